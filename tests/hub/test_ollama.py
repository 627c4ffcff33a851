"""Models in Ollama's store: the same answers as from files, and nothing that leads out of it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from ollama_store import CHATML_GO, LLAMA3_GO, blob, pull, write_manifest
from PIL import Image
from tiny_sight import tiny_pair

import opsin
from opsin.convert.merge import merge
from opsin.errors import FileError, ModelError, OpsinError, RequestError
from opsin.hub.locate import is_place, locate
from opsin.hub.modelfile import read_template
from opsin.text import ChatTemplate

QUESTION = [
    {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (40, 40), "red")},
                                 {"type": "text", "text": "what?"}]}
]  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, which OLLAMA_MODELS names."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A text model, its tower, and one file of both."""
    folder = tmp_path_factory.mktemp("pair")
    text, tower = tiny_pair(folder)
    one = folder / "one" / "model.gguf"
    one.parent.mkdir()
    merge(text, tower, one)
    return text, tower, one


def logits(place, **options):
    """After a question with a picture, at the first token of the answer."""
    with opsin.load(place, threads=1, context=256, **options) as model:
        made = model.logits(model.question(QUESTION).prompt)
        return np.asarray(made)


def test_both_versions_of_manifests_give_the_bits_of_the_files(store, pair):
    text, tower, one = pair
    pull(store, [("model", text.read_bytes()), ("projector", tower.read_bytes()), ("license", b"MIT")])
    pull(store, [("model", one.read_bytes())], "registry.ollama.ai/library/tiny/11b")
    wanted = logits(text)
    assert np.array_equal(logits("ollama:tiny"), wanted)
    assert np.array_equal(logits("ollama:tiny:11b"), wanted)
    assert np.array_equal(logits("ollama:tiny:latest", verify=True), wanted)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("registry.ollama.ai/library/tiny/latest", "tiny"),
        ("registry.ollama.ai/library/tiny/latest", "library/tiny"),
        ("registry.ollama.ai/library/tiny/1b-Q4", "Tiny:1B-q4"),
        ("registry.ollama.ai/somebody/tiny/latest", "somebody/tiny"),
        ("hf.co/owner/Some-GGUF/Q4_K_M", "hf.co/owner/Some-GGUF:Q4_K_M"),
        ("localhost:5000/me/tiny/2", "localhost:5000/me/tiny:2"),
    ],
)
def test_names_are_ollamas(store, pair, place, name):
    manifest = pull(store, [("model", pair[0].read_bytes())], place)
    assert locate(f"ollama:{name}").text == blob(store, manifest["layers"][0])


@pytest.mark.parametrize(
    "name", ["", ":", "a:", "../x", "a/../b", "a/b/c/d", "/etc/passwd", "a:..", "a b", "a\n", "-a"]
)
def test_other_names_are_refused(store, name):
    with pytest.raises(RequestError, match="no name of Ollama's"):
        locate(f"ollama:{name}")


def test_only_texts_with_a_scheme_are_places(tmp_path):
    assert is_place("ollama:x")
    assert not any(map(is_place, ("model.gguf", "ollama", "./ollama:x", "C:\\model.gguf", tmp_path / "ollama:x", 3)))


def test_a_model_that_is_not_there_is_told_with_those_that_are(store, pair):
    with pytest.raises(FileError, match="OLLAMA_MODELS"):
        locate("ollama:tiny")
    pull(store, [("model", pair[0].read_bytes())])
    pull(store, [("model", pair[0].read_bytes())], "hf.co/owner/repo/Q8_0")
    with pytest.raises(FileError, match="there are hf.co/owner/repo:Q8_0, tiny:latest"):
        locate("ollama:other")


def test_parameters_are_taken_and_what_is_not_taken_is_told(store, pair):
    params = {"temperature": 0.25, "top_k": 7, "num_ctx": 128, "stop": ["<|im_end|>", "Human:"], "num_gpu": 99,
              "repeat_penalty": 1.3, "tfs_z": 0.5}  # fmt: skip
    pull(store, [("model", pair[0].read_bytes()), ("params", json.dumps(params).encode()), ("system", b"Be brief.")])
    with opsin.load("ollama:tiny", threads=1) as model:
        assert (model.facts.sampling.temperature, model.facts.sampling.top_k) == (0.25, 7)
        assert model.context == 128
        assert model.name == "tiny"
        assert model.facts.stop == ("<|im_end|>", "Human:")
        said = "\n".join(model.notes)
        assert model.facts.sampling.repeat_penalty == 1.3
    assert "tfs_z" in said and "system message" in said
    assert "im_end" not in said and "num_gpu" not in said
    with opsin.load("ollama:tiny", threads=1, context=64) as model:
        assert model.context == 64


def test_the_stores_system_message_is_sent_where_a_conversation_has_none(store, pair):
    pull(store, [("model", pair[0].read_bytes()), ("system", b"Be <|im_end|> brief.")])
    ask = {"role": "user", "content": "hi"}
    with (
        opsin.load(pair[0], threads=1, context=128) as plain,
        opsin.load("ollama:tiny", threads=1, context=128) as model,
    ):
        with_system = [{"role": "system", "content": "Be <|im_end|> brief."}, ask]
        assert model.question([ask]).prompt == plain.question(with_system).prompt
        assert model.count("hi") == plain.count(with_system)
        for role in ("system", "developer"):
            own = [{"role": role, "content": "Be long."}, ask]
            assert model.question(own).prompt == plain.question(own).prompt
        with pytest.raises(RequestError, match=r"messages\[0\]"):
            model.question([{"role": "user", "content": 3}])


def test_the_stores_stop_strings_end_answers_where_nobody_gives_others(store, pair):
    with opsin.load(pair[0], threads=1, context=128) as plain:
        text = plain.chat("hi", max_tokens=24, temperature=0, ignore_eos=True).text
    stop = text[4:6]
    pull(store, [("model", pair[0].read_bytes()), ("params", json.dumps({"stop": stop}).encode())])
    with opsin.load("ollama:tiny", threads=1, context=128) as model:

        def said(**options):
            return model.chat("hi", max_tokens=24, temperature=0, ignore_eos=True, **options).text

        assert said() == text[: text.index(stop)] != text
        assert said(stop=[]) == text
        assert said(stop=[text[8]]) == text[: text.index(text[8])]


def test_a_window_larger_than_the_model_was_trained_for_is_cut(store, pair):
    pull(store, [("model", pair[0].read_bytes()), ("params", b'{"num_ctx": 1000000}')])
    with opsin.load("ollama:tiny", threads=1) as model:
        assert model.context == model.trained_context


def test_the_files_own_template_counts_and_the_layer_where_there_is_none(store, tmp_path, tiny_file):
    own = tiny_file().read_bytes()
    pull(store, [("model", own), ("template", LLAMA3_GO.encode())])
    with opsin.load("ollama:tiny", threads=1) as model:
        assert "im_start" in model.template.source
    bare = opsin_without_template(tiny_file(), tmp_path / "bare.gguf")
    pull(store, [("model", bare), ("template", CHATML_GO.encode())], "registry.ollama.ai/library/bare/latest")
    pull(store, [("model", bare), ("template", b"{{ .Strange }}")], "registry.ollama.ai/library/bare/odd")
    with opsin.load("ollama:bare", threads=1) as model:
        assert model.template.source == read_template(CHATML_GO)
        assert any("lacks tokenizer.chat_template" in note for note in model.notes)
    with opsin.load("ollama:bare:odd", threads=1) as model:
        assert model.template is None
        assert any("no chat template" in note for note in model.notes)


def opsin_without_template(path, target):
    from opsin.gguf import File, write

    with File.open(path) as file:
        keys = {key: value for key, value in file.typed.items() if key != "tokenizer.chat_template"}
        write(target, keys, [file.copy_tensor(name) for name in file.tensors])
    return target.read_bytes()


@pytest.mark.parametrize(
    ("go", "wanted"),
    [
        ("<|im_start|><|im_end|>", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
         "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n"),
        (LLAMA3_GO, "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>"
         "\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user"
         "<|end_header_id|>\n\nR<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("<start_of_turn><end_of_turn>", "<start_of_turn>user\nS\n\nQ<end_of_turn>\n"
         "<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n"),
        ("<|system|><|user|><|assistant|><|end|>", "<|system|>\nS<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\nA<|end|>\n"
         "<|user|>\nR<|end|>\n<|assistant|>\n"),
        ("{{ .System }}\nUSER: {{ .Prompt }}\nASSISTANT: ", "S\nUSER: Q\nASSISTANT: A</s>\nUSER: R\nASSISTANT:"),
        ("[INST] {{ .Prompt }} [/INST]", "[INST] S\n\nQ [/INST] A</s>[INST] R [/INST]"),
        ("[INST] <<SYS>>{{ .System }}<</SYS>> [/INST]", None),
        ("{{ .Prompt }}", None),
    ],
)  # fmt: skip
def test_well_known_go_templates_have_their_form_in_jinja(go, wanted):
    source = read_template(go)
    messages = [{"role": role, "content": text} for role, text in
                (("system", "S"), ("user", "Q"), ("assistant", "A"), ("user", "R"))]  # fmt: skip
    made = ChatTemplate(source, tokens={"eos_token": "</s>"}).render(messages) if source else None
    assert made == wanted


def test_what_is_no_gguf_or_has_an_adapter_is_refused(store, pair):
    text = pair[0].read_bytes()
    pull(store, [("tensor", b"x"), ("tensor", b"y")], model_format="safetensors")
    with pytest.raises(ModelError, match="safetensors"):
        locate("ollama:tiny")
    pull(store, [("model", text), ("adapter", b"x")])
    with pytest.raises(ModelError, match="LoRA"):
        locate("ollama:tiny")
    pull(store, [("license", b"x")])
    with pytest.raises(FileError, match="0 model layers"):
        locate("ollama:tiny")


def test_a_damaged_blob_is_found_on_request(store, pair):
    manifest = pull(store, [("model", pair[0].read_bytes())])
    path = blob(store, manifest["layers"][0])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    opsin.load("ollama:tiny", threads=1).close()
    with pytest.raises(FileError, match="is damaged"):
        opsin.load("ollama:tiny", threads=1, verify=True)
    path.write_bytes(data[:-1])
    with pytest.raises(FileError, match="bytes, not"):
        locate("ollama:tiny")
    path.unlink()
    with pytest.raises(FileError, match="lacks"):
        locate("ollama:tiny")
    with pytest.raises(RequestError, match="no digest"):
        opsin.load(pair[0], threads=1, verify=True)


HOSTILE = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe{}",
    "deep": b"[" * 100_000,
    "huge": b" " * (5 << 20),
    "long number": b'{"layers": ' + b"9" * 10_000 + b"}",
    "a list": b"[]",
    "no layers": b"{}",
    "layers of another kind": b'{"layers": {"a": 1}}',
    "many layers": json.dumps({"layers": [0] * 10_001}).encode(),
    "a layer that is a number": b'{"layers": [1]}',
    "a config that is a number": b'{"layers": [], "config": 3}',
}
DIGESTS = ("../../../etc/passwd", "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 64,
           "sha256:" + "a" * 64 + "\n", "/etc/passwd", "", None, 7)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests_are_refused_in_a_line(store, name):
    write_manifest(store, "registry.ollama.ai/library/tiny/latest", HOSTILE[name])
    refused()


@pytest.mark.parametrize("digest", DIGESTS)
def test_digests_that_are_none_are_refused_in_a_line(store, digest):
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 1}
    write_manifest(store, "registry.ollama.ai/library/tiny/latest", {"layers": [layer]})
    assert "digest" in refused()


@pytest.mark.parametrize("change", [{"size": -1}, {"size": True}, {"size": "1"}, {"size": 2**70}, {"size": None},
                                    {"mediaType": None}, {"mediaType": "model"}])  # fmt: skip
def test_wrong_sizes_and_media_types_are_refused_in_a_line(store, pair, change):
    manifest = pull(store, [("model", pair[0].read_bytes())])
    manifest["layers"][0].update(change)
    write_manifest(store, "registry.ollama.ai/library/tiny/latest", manifest)
    if change != {"mediaType": "model"}:
        refused()
    else:
        assert locate("ollama:tiny").text.is_file()


@pytest.mark.parametrize("params", [b"[]", b"{", b'{"temperature": "warm"}', b'{"top_k": NaN}', b'{"top_p": 1e999}',
                                    b'{"num_ctx": true}', b'{"stop": 7}', b'{"stop": ["a", null]}',
                                    json.dumps({"stop": [str(n) for n in range(65)]}).encode(),
                                    json.dumps({"stop": "x" * (1 << 17)}).encode(),
                                    b'{"num_ctx": ' + b"9" * 400 + b"}",
                                    b" " * (2 << 20)])  # fmt: skip
def test_hostile_parameters_are_refused_in_a_line(store, pair, params):
    pull(store, [("model", pair[0].read_bytes()), ("params", params)])
    refused()


def refused() -> str:
    with pytest.raises(OpsinError) as caught:
        locate("ollama:tiny")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line


def test_links_out_of_the_store_pipes_and_folders_are_refused(store, pair, tmp_path):
    manifest = pull(store, [("model", pair[0].read_bytes())])
    path = blob(store, manifest["layers"][0])
    outside = tmp_path / "secret"
    path.rename(outside)
    path.symlink_to(outside)
    assert "link out of" in refused()
    path.unlink()
    path.symlink_to(path)
    refused()
    path.unlink()
    path.mkdir()
    refused()
    path.rmdir()
    os.mkfifo(path)
    refused()
    named = store / "manifests/registry.ollama.ai/library/tiny/latest"
    named.rename(tmp_path / "manifest")
    named.symlink_to(tmp_path / "manifest")
    assert "link out of" in refused()


def test_a_store_that_is_a_link_itself_and_links_inside_it_are_sound(store, pair, monkeypatch, tmp_path):
    manifest = pull(store, [("model", pair[0].read_bytes())])
    path = blob(store, manifest["layers"][0])
    path.rename(store / "elsewhere")
    path.symlink_to(store / "elsewhere")
    (tmp_path / "link").symlink_to(store)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "link"))
    assert locate("ollama:tiny").text.read_bytes() == pair[0].read_bytes()


def test_without_a_variable_the_users_own_folder_is_read(tmp_path, monkeypatch, pair):
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    pull(tmp_path / ".ollama" / "models", [("model", pair[0].read_bytes())])
    assert locate("ollama:tiny").text.is_relative_to(tmp_path)
