"""Tokenizers that transformers saved, as GGUF: opsin's tokenizer gives the same ids from the file's keys."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

from tiny import SPECIALS, TEMPLATE  # noqa: E402
from tokenizers import normalizers, processors  # noqa: E402

from opsin.convert.vocabulary import vocabulary_keys  # noqa: E402
from opsin.errors import FileError, ModelError  # noqa: E402
from opsin.gguf import File, write  # noqa: E402
from opsin.text import Tokenizer  # noqa: E402
from opsin.text.vocabulary import CONTROL, USER_DEFINED  # noqa: E402

TEXTS = [
    "The quick brown fox", " leading and  double   spaces ", "don't they're 12345 67", "héllo wörld 漢字 🚀 مرحبا",
    "line\n\nbreaks\n \t tabs\r\n", "", " ", "unseen: ζξψ ☃", "it'S 3.14 -- x_y(z)[0]",
]  # fmt: skip


def read(tmp_path, keys):
    """The keys as a file gives them back."""
    path = write(tmp_path / "vocabulary.gguf", {"general.architecture": "none", **keys}, [])[0]
    with File.open(path) as file:
        return file.metadata


def convert(tmp_path, made, rows):
    made.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{}")
    return read(tmp_path, vocabulary_keys(tmp_path / "hf", rows)[0])


@pytest.mark.parametrize("name", hf_folders.BYTE_LEVEL)
def test_byte_level_ids_equal_transformers(tmp_path, name):
    made = hf_folders.byte_level(name)
    keys = convert(tmp_path, made, len(made))
    assert keys["tokenizer.ggml.pre"] == name
    ours = Tokenizer.from_metadata(keys)
    for text in TEXTS:
        assert ours.encode(text) == made.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text


def test_a_text_that_ends_with_another_token_than_its_eos_ends_so_here_too(tmp_path):
    made = hf_folders.byte_level("qwen2")
    end = SPECIALS[0]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, made.convert_tokens_to_ids(end))]
    )
    ours = Tokenizer.from_metadata(convert(tmp_path, made, len(made)))
    assert ours.encode("the fox", add_special=True) == made.encode("the fox")
    assert {made.convert_tokens_to_ids(end), made.eos_token_id} <= ours.end_ids


@pytest.mark.parametrize("prefix", [True, False], ids=["space before the text", "no space before the text"])
def test_ids_of_sentencepiece_equal_transformers(tmp_path, prefix):
    made = hf_folders.with_bytes_behind(prefix=prefix)
    keys = convert(tmp_path, made, len(made))
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.add_space_prefix"] is prefix
    assert keys["tokenizer.ggml.add_bos_token"] is True
    ours = Tokenizer.from_metadata(keys)
    for text in TEXTS:
        if text:
            assert ours.encode(text) == made.encode(text, add_special_tokens=False), text
            assert ours.encode(text, add_special=True) == made.encode(text), text


def test_ids_of_merges_without_bytes_equal_transformers(tmp_path):
    """As Gemma 4 has them: the vocabulary of SentencePiece, and merges instead of scores."""
    made = hf_folders.with_bytes_behind(prefix=False)
    made.add_special_tokens({"extra_special_tokens": ["<|channel>", "<|turn>"]})
    made.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{}")
    keys, _ = vocabulary_keys(tmp_path / "hf", len(made), merged="gemma4", visible=["<|channel>"])
    keys = read(tmp_path, keys)
    assert keys["tokenizer.ggml.model"] == "gemma4" and "tokenizer.ggml.scores" not in keys
    assert keys["tokenizer.ggml.add_space_prefix"] is False and keys["tokenizer.ggml.add_bos_token"] is True
    kinds = [keys["tokenizer.ggml.token_type"][made.convert_tokens_to_ids(text)] for text in ("<|channel>", "<|turn>")]
    assert kinds == [USER_DEFINED, CONTROL]
    ours = Tokenizer.from_metadata(keys)
    for text in TEXTS:
        assert ours.encode(text) == made.encode(text, add_special_tokens=False), text
        assert ours.encode(text, add_special=True) == made.encode(text), text


def as_slow_one(folder, *, kind="Qwen2Tokenizer"):
    """A folder's tokenizer as transformers saved it before it had fast ones."""
    tree = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(tree["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tree["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": kind}
    config["added_tokens_decoder"] = {str(token["id"]): token for token in tree["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))


@pytest.mark.parametrize(("name", "kind"), [("qwen2", "Qwen2Tokenizer"), ("gpt-2", "GPT2Tokenizer")])
def test_a_slow_tokenizer_is_the_same_as_the_fast_one(tmp_path, name, kind):
    made = hf_folders.byte_level(name)
    keys = convert(tmp_path, made, len(made))
    as_slow_one(tmp_path / "hf", kind=kind)
    slow = read(tmp_path, vocabulary_keys(tmp_path / "hf", len(made))[0])
    assert slow.keys() == keys.keys()
    for key, value in keys.items():
        assert list(slow[key]) == list(value) if isinstance(value, Sequence) else np.array_equal(slow[key], value), key
    ours = Tokenizer.from_metadata(slow)
    assert all(ours.encode(text) == made.encode(text, add_special_tokens=False) for text in TEXTS)


def test_a_slow_tokenizer_of_another_class_is_refused(tmp_path):
    hf_folders.byte_level("qwen2").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    as_slow_one(tmp_path, kind="OwnTokenizer")
    with pytest.raises(ModelError, match="no tokenizer.json, and its class is 'OwnTokenizer'"):
        vocabulary_keys(tmp_path, 400)
    (tmp_path / "vocab.json").unlink()
    as_class = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(as_class))
    with pytest.raises(FileError, match="vocab.json cannot be read"):
        vocabulary_keys(tmp_path, 400)


def test_kinds_and_roles_of_tokens(tmp_path):
    made = hf_folders.byte_level("qwen2")
    keys = convert(tmp_path, made, len(made) + 3)
    texts, kinds = list(keys["tokenizer.ggml.tokens"]), keys["tokenizer.ggml.token_type"].tolist()
    assert [kinds[texts.index(text)] for text in (*SPECIALS, "<tool_call>", "a")] == [3, 3, 3, 4, 1]
    assert texts[-3:] == [f"[PAD{len(made) + i}]" for i in range(3)]
    assert kinds[-3:] == [5, 5, 5]
    named = {name: texts[keys[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos", "padding")}
    assert named == {"bos": SPECIALS[1], "eos": SPECIALS[2], "padding": SPECIALS[0]}
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert keys["tokenizer.chat_template"] == TEMPLATE


def test_tokens_behind_the_embeddings_are_left_out(tmp_path):
    made = hf_folders.byte_level("gpt-2")
    keys = convert(tmp_path, made, len(made) - 1)
    assert len(keys["tokenizer.ggml.tokens"]) == len(made) - 1
    assert "<tool_call>" not in list(keys["tokenizer.ggml.tokens"])


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_templates_are_found_where_transformers_puts_them(tmp_path, where):
    made = hf_folders.byte_level("gpt-2")
    made.chat_template = None
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    content = TEMPLATE if where.endswith("jinja") else json.dumps({"chat_template": TEMPLATE})
    (tmp_path / where).write_text(content)
    assert vocabulary_keys(tmp_path, len(made))[0]["tokenizer.chat_template"] == TEMPLATE


def test_templates_by_name_keep_their_names(tmp_path):
    made = hf_folders.byte_level("gpt-2")
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    keys = read(tmp_path, vocabulary_keys(tmp_path, len(made))[0])
    assert keys["tokenizer.chat_template"] == "a"
    assert keys["tokenizer.chat_template.tool_use"] == "b"
    assert list(keys["tokenizer.chat_templates"]) == ["tool_use"]


def field(number, value):
    if isinstance(value, bytes):
        return bytes([number << 3 | 2]) + varint(len(value)) + value
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    return bytes([number << 3]) + varint(value)


def varint(value):
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def proto(pieces, *, model_type=2, prefix=1):
    body = [field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces]
    return b"".join(body) + field(2, field(3, model_type)) + field(3, field(1, b"nmt_nfkc") + field(3, prefix))


PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{b:02X}>", 0.0, 6) for b in range(256)),
          ("\u2581a", -1.5, 1), ("\u2581", -2.0, 1), ("a", -3.0, 1)]  # fmt: skip


def test_a_chat_s_tokens_take_the_places_that_were_kept_for_them(tmp_path):
    """As in InternLM2's: a file of SentencePiece alone, whose pieces have other texts there, and one that is a NUL."""
    kept = [("\0", -9.0, 1), ("[UNUSED_TOKEN_145]", 0.0, 1), ("[UNUSED_TOKEN_146]", 0.0, 1)]
    first = len(PIECES) + 1
    added = {
        str(first + i): {"content": text, "special": True} for i, text in enumerate(("<|im_end|>", "<|im_start|>"))
    }
    config = {"tokenizer_class": "InternLM2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "chat_template": "x",
              "added_tokens_decoder": added}  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(proto([*PIECES, *kept], prefix=0))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, first]}))
    keys = read(tmp_path, vocabulary_keys(tmp_path, len(PIECES) + 5)[0])
    texts, kinds = list(keys["tokenizer.ggml.tokens"]), keys["tokenizer.ggml.token_type"].tolist()
    assert texts[first - 1 :] == ["\0", "<|im_end|>", "<|im_start|>", f"[PAD{first + 2}]", f"[PAD{first + 3}]"]
    assert kinds[first - 1 :] == [1, 3, 3, 5, 5]
    ours = Tokenizer.from_metadata(keys)
    assert ours.encode("<|im_start|>a<|im_end|>", special=True) == [first + 1, 261, first]
    assert ours.decode(ours.encode("a\0a")) == "a\0a"
    assert {2, first} <= set(ours.end_ids) and (ours.bos, ours.add_bos) == (1, True)


@pytest.mark.parametrize("prefix", [0, 1])
def test_sentencepiece_s_own_file_is_read(tmp_path, prefix):
    (tmp_path / "tokenizer.model").write_bytes(proto(PIECES, prefix=prefix))
    (tmp_path / "config.json").write_text('{"bos_token_id": 1}')
    keys = read(tmp_path, vocabulary_keys(tmp_path, len(PIECES))[0])
    assert list(keys["tokenizer.ggml.tokens"]) == [text for text, _, _ in PIECES]
    assert keys["tokenizer.ggml.token_type"].tolist() == [kind for _, _, kind in PIECES]
    assert keys["tokenizer.ggml.scores"].tolist() == [score for _, score, _ in PIECES]
    assert keys["tokenizer.ggml.add_space_prefix"] is bool(prefix)
    assert Tokenizer.from_metadata(keys).encode("a a") == ([259, 259] if prefix else [261, 259])


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "holds no pieces"), (b"PK\3\4" * 9, "is no tokenizer"), (proto(PIECES)[:-40], "is no tokenizer"),
     (proto([("x", 0.0, 9)]), "is no tokenizer"), (proto(PIECES, model_type=1), "only byte pairs"),
     (b"\xff" * 40, "is no tokenizer")],
)  # fmt: skip
def test_a_damaged_file_of_sentencepiece_is_refused(tmp_path, data, message):
    (tmp_path / "tokenizer.model").write_bytes(data)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((FileError, ModelError), match=message):
        vocabulary_keys(tmp_path, 262)


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"model": {"type": "Unigram", "vocab": []}}', '{"model": {"type": "BPE", "vocab": []}}',
     '{"model": {"type": "BPE", "vocab": {"a": "b"}}}', '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": 5}}',
     '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {"a": 0}, "merges": [["a"]]}}',
     '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1}]}'],
)  # fmt: skip
def test_a_damaged_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((FileError, ModelError)):
        vocabulary_keys(tmp_path, 10)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileError, match="neither tokenizer.json nor tokenizer.model"):
        vocabulary_keys(tmp_path, 10)


@pytest.mark.parametrize("sort", ["byte pairs", "SentencePiece"])
@pytest.mark.parametrize(
    ("normalizer", "named"),
    [
        (normalizers.NFKC(), "NFKC"), (normalizers.Lowercase(), "Lowercase"),
        (normalizers.Sequence([normalizers.NFC(), normalizers.Sequence([normalizers.StripAccents()])]), "StripAccents"),
        (normalizers.Replace(" ", "_"), "Replace"), (normalizers.Prepend("x"), "Prepend"),
    ],
    ids=["NFKC", "small letters", "within sequences", "another text for spaces", "another text in front"],
)  # fmt: skip
def test_a_normaliser_that_gguf_has_no_key_for_is_refused_by_name(tmp_path, sort, normalizer, named):
    made = hf_folders.byte_level("qwen2") if sort == "byte pairs" else hf_folders.with_bytes_behind(prefix=True)
    made.backend_tokenizer.normalizer = normalizer
    with pytest.raises(FileError, match=f"{tmp_path}.*normalises text by '{named}'.*take \"normalizer\" out"):
        convert(tmp_path, made, len(made))


def test_nfc_is_left_out_as_in_other_files_of_such_models(tmp_path):
    made = hf_folders.byte_level("qwen2")
    without = convert(tmp_path, made, len(made))
    made.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    assert list(convert(tmp_path, made, len(made))) == list(without)


@pytest.mark.parametrize("normalizer", ["NFKC", ["NFKC"], {"type": "Sequence", "normalizers": ["NFKC"]}], ids=str)
def test_a_damaged_normaliser_is_refused(tmp_path, normalizer):
    hf_folders.byte_level("qwen2").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    source = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(source | {"normalizer": normalizer}))
    with pytest.raises(FileError, match="cannot be read|not as it should be"):
        vocabulary_keys(tmp_path, 400)
