"""Which of two sources counts is what transformers does, and what GGUF cannot hold is a note."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import checkpoints  # noqa: E402
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer, ProcessorMixin  # noqa: E402

import opsin  # noqa: E402
from opsin.convert.checkpoint import Checkpoint  # noqa: E402
from opsin.convert.hf import convert  # noqa: E402
from opsin.convert.templates import template_keys  # noqa: E402
from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File  # noqa: E402
from opsin.models import rules  # noqa: E402
from opsin.text import Tokenizer  # noqa: E402

G, S = "tokenizer.ggml.", "general.sampling."


def change(path, **more):
    """Settings into a JSON file, which is made where it is not; None takes one out."""
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in (told | more).items() if value is not None}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    hf_folders.save(folder, "llama")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    copy = tmp_path / "hf"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).symlink_to(file) if file.suffix == ".safetensors" else (copy / file.name).write_bytes(
            file.read_bytes()
        )
    return copy


def converted(folder):
    made = convert(folder, folder / "out.gguf", vision=False)
    with File.open(made.paths[0]) as file:
        return dict(file.metadata), made.notes


# Ends of answers


def test_a_second_end_is_kept_and_ends_answers(folder):
    for name in ("config.json", "generation_config.json"):
        change(folder / name, eos_token_id=[264, 70, 71])
    keys, notes = converted(folder)
    assert keys[f"{G}eos_token_id"] == 264
    assert keys[f"{G}eos_token_ids"].tolist() == [264, 70, 71]
    assert (keys[f"{G}eot_token_id"], keys[f"{G}eom_token_id"]) == (70, 71)
    assert {264, 70, 71} <= Tokenizer.from_metadata(keys).end_ids
    assert notes == ()


def test_more_ends_than_other_programs_have_keys_for_are_kept_and_told(folder):
    change(folder / "generation_config.json", eos_token_id=[264, 70, 71, 72, 9999])
    keys, notes = converted(folder)
    assert {264, 70, 71, 72} <= Tokenizer.from_metadata(keys).end_ids
    texts = list(keys[f"{G}tokens"])
    assert any(repr(texts[72]) in note and "no key for so many" in note for note in notes)
    assert any("9999 is none of 265 tokens" in note for note in notes)


def test_ends_that_everybody_knows_by_their_text_take_no_key_from_others(folder):
    change(folder / "generation_config.json", eos_token_id=[264, 262])  # <|im_end|>, <|endoftext|>
    keys, _ = converted(folder)
    assert f"{G}eot_token_id" not in keys
    assert keys[f"{G}eos_token_ids"].tolist() == [264, 262]


SOURCES = {
    "both": ({"eos_token_id": [70, 71], "top_k": 7}, {"eos_token_id": 72, "top_p": 0.5}),
    "generation is silent of ends": ({"top_k": 7}, {"eos_token_id": [70, 71]}),
    "config alone": (None, {"eos_token_id": [70, 71], "temperature": 0.3}),
    "drawn by defaults": ({"do_sample": True, "eos_token_id": 70}, {}),
    "drawn": ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1}, {}),
    "greedy": ({"do_sample": False, "temperature": 0.6}, {}),
    "kept from writing": ({"suppress_tokens": [5, 6], "repetition_penalty": 1.25}, {}),
}


@pytest.mark.parametrize("case", SOURCES)
def test_generation_settings_are_those_that_transformers_takes(folder, case):
    generation, config = SOURCES[case]
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", **config)
    if generation is not None:
        change(folder / "generation_config.json", **generation)
    truth, _ = AutoModelForCausalLM.from_pretrained(folder)._prepare_generation_config(None)
    keys, _ = converted(folder)
    ends = truth.eos_token_id if isinstance(truth.eos_token_id, list) else [truth.eos_token_id or 264]
    found = Tokenizer.from_metadata(keys).end_ids - {262, 264}  # known by their texts
    assert found == set(ends) - {264}
    if truth.do_sample:
        for theirs, ours in (("temperature", "temp"), ("top_k", "top_k"), ("top_p", "top_p"), ("min_p", "min_p")):
            assert keys[S + ours] == pytest.approx(getattr(truth, theirs) or 0.0), theirs
    if generation and generation.get("do_sample") is False:
        assert keys[f"{S}temp"] == 0
    assert keys.get(f"{S}penalty_repeat", 1.0) == truth.repetition_penalty
    suppressed = keys.get(f"{G}suppress_tokens")
    assert (None if suppressed is None else suppressed.tolist()) == truth.suppress_tokens


# Chat templates


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # transformers leaves files open
@pytest.mark.parametrize("has_vision", [False, True], ids=["text", "pictures"])
@pytest.mark.parametrize(
    "files",
    [("jinja",), ("config",), ("jinja", "config"), ("jinja", "legacy"), ("jinja", "config", "legacy"),
     ("jinja", "more"), ("jinja", "more", "config"), ("list",), ("jinja", "list")],
    ids=" ".join,
)  # fmt: skip
def test_the_template_is_the_one_that_transformers_takes(tmp_path, files, has_vision):
    family = "gemma3" if has_vision else "llama"
    tokenizer = hf_folders.plain()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    for name in files:
        if name == "jinja":
            (tmp_path / "chat_template.jinja").write_text("of jinja")
        elif name == "config":
            change(tmp_path / "tokenizer_config.json", chat_template="of config")
        elif name == "list":
            listed = [{"name": "default", "template": "of list"}, {"name": "tool_use", "template": "tools"}]
            change(tmp_path / "tokenizer_config.json", chat_template=listed)
        elif name == "legacy":
            change(tmp_path / "chat_template.json", chat_template="of legacy")
        else:
            (tmp_path / "additional_chat_templates").mkdir()
            (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("more")
    keys, notes = template_keys(tmp_path, has_vision=has_vision)
    if has_vision:
        change(tmp_path / "processor_config.json", processor_class="Gemma3Processor",
               image_processor={"image_processor_type": "Gemma3ImageProcessor"})  # fmt: skip
        told, _ = ProcessorMixin.get_processor_dict(tmp_path)
        truth = told.get("chat_template") or AutoTokenizer.from_pretrained(tmp_path).chat_template
    else:
        truth = AutoTokenizer.from_pretrained(tmp_path).chat_template
    named = {"default": truth} if isinstance(truth, str) else dict(truth)
    assert keys["tokenizer.chat_template"] == named.pop("default")
    assert {k.removeprefix("tokenizer.chat_template."): v for k, v in keys.items() if "template." in k} == named
    losers = {"jinja", "config", "legacy", "list"} & set(files)
    assert len([note for note in notes if "holds another chat template" in note]) == len(losers) - 1


def test_a_checkpoint_without_a_template_is_a_note(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change(folder / "tokenizer_config.json", chat_template=None)
    assert any("no chat template" in note for note in converted(folder)[1])


# Tokenizers


def test_special_tokens_map_counts_only_without_a_list_of_added_tokens(folder):
    change(folder / "tokenizer_config.json", eos_token="<|im_end|>")
    change(folder / "special_tokens_map.json", eos_token="<|endoftext|>")
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=None)
    truth = AutoTokenizer.from_pretrained(folder)
    assert converted(folder)[0][f"{G}eos_token_id"] == truth.eos_token_id
    decoder = {str(truth.convert_tokens_to_ids(text)): {"content": text, "special": True}
               for text in ("<|im_end|>", "<|endoftext|>")}  # fmt: skip
    change(folder / "tokenizer_config.json", added_tokens_decoder=decoder)
    truth = AutoTokenizer.from_pretrained(folder)
    assert converted(folder)[0][f"{G}eos_token_id"] == truth.eos_token_id


def test_tokenizer_json_counts_where_a_model_of_sentencepiece_says_otherwise(tmp_path):
    from test_vocabulary import PIECES, proto

    from opsin.convert.vocabulary import vocabulary_keys

    made = hf_folders.with_bytes_behind(prefix=True)
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_bytes(proto(PIECES))
    keys, notes = vocabulary_keys(tmp_path, len(made))
    assert keys[f"{G}tokens"].value == [made.convert_ids_to_tokens(id) for id in range(len(made))]
    assert any("tokenizer.model knows no" in note for note in notes)


def test_added_tokens_beside_a_model_of_sentencepiece_are_kept(tmp_path):
    from test_vocabulary import PIECES, proto

    from opsin.convert.vocabulary import vocabulary_keys

    (tmp_path / "tokenizer.model").write_bytes(proto(PIECES))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<turn>": len(PIECES), "word": len(PIECES) + 1}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<turn>"}))
    keys, _ = vocabulary_keys(tmp_path, len(PIECES) + 2)
    assert keys[f"{G}tokens"].value[-2:] == ["<turn>", "word"]
    assert keys[f"{G}token_type"].value[-2:] == [3, 4]
    assert keys[f"{G}eos_token_id"].value == len(PIECES)


# Pictures


def test_a_processor_s_word_on_pictures_counts_alone(tmp_path):
    checkpoints.make("gemma3").save_pretrained(tmp_path)
    change(tmp_path / "preprocessor_config.json", image_processor_type="Gemma3ImageProcessor", image_mean=[0.1] * 3,
           image_std=[0.2] * 3)  # fmt: skip
    vision = next(rule for rule in rules() if rule.part == "vision" and rule.architecture == "gemma3")

    def ours(key):
        with Checkpoint(tmp_path) as checkpoint:
            return checkpoint.settings(vision).find(f"preprocessor.{key}")

    assert ours("image_mean") == list(AutoImageProcessor.from_pretrained(tmp_path).image_mean) == [0.1] * 3
    change(tmp_path / "processor_config.json", processor_class="Gemma3Processor",
           image_processor={"image_processor_type": "Gemma3ImageProcessor", "image_mean": [0.3] * 3})  # fmt: skip
    truth = AutoImageProcessor.from_pretrained(tmp_path)
    assert ours("image_mean") == list(truth.image_mean) == [0.3] * 3
    assert ours("image_std") is None
    assert list(truth.image_std) != [0.2] * 3


# Notes and refusals

LOST = {
    "begin_suppress_tokens": ({"begin_suppress_tokens": [5]}, r"begin_suppress_tokens is \[5\]"),
    "bad words": ({"bad_words_ids": [[5]]}, r"bad_words_ids is \[\[5\]\]"),
    "forced": ({"forced_bos_token_id": 5}, "forced_bos_token_id is 5"),
    "a length": ({"max_length": 4096}, "max_length is 4096"),
    "beams": ({"num_beams": 4}, "num_beams is 4"),
    "repeats": ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size is 3"),
    "a knob of the future": ({"sharpness": {"a": 1}}, "sharpness is {'a': 1}"),
}


@pytest.mark.parametrize("case", LOST)
def test_generation_settings_without_a_key_are_notes(folder, case):
    settings, said = LOST[case]
    change(folder / "generation_config.json", **settings)
    (note,) = converted(folder)[1]
    assert re.search(said, note)
    assert note.startswith("generation_config.json: ")


def test_neutral_settings_are_no_notes(folder):
    change(folder / "generation_config.json", max_length=20, num_beams=1, use_cache=True, output_scores=True,
           typical_p=1.0, length_penalty=1.0, transformers_version="9", min_length=0)  # fmt: skip
    assert converted(folder)[1] == ()


TOKENIZERS = {
    "strips": (lambda t: t["added_tokens"][0].update(rstrip=True), {}, r"\(rstrip\).*<\|endoftext\|>"),
    "words": (lambda t: t["added_tokens"][1].update(single_word=True), {}, r"\(single_word\)"),
    "cleans": (lambda t: None, {"clean_up_tokenization_spaces": True}, "clean_up_tokenization_spaces"),
    "splits": (lambda t: None, {"split_special_tokens": True}, "split_special_tokens"),
    "adds": (
        lambda t: t.update(post_processor={
            "type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [262], "tokens": ["<|endoftext|>"]}},
        }), {}, r"puts '<\|endoftext\|>' beside each text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOKENIZERS)
def test_what_a_tokenizer_does_without_a_key_is_a_note(folder, case):
    spoil, settings, said = TOKENIZERS[case]
    tree = json.loads((folder / "tokenizer.json").read_text())
    spoil(tree)
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    change(folder / "tokenizer_config.json", **settings)
    notes = converted(folder)[1]
    assert [note for note in notes if re.search(said, note)], notes


def test_code_of_its_own_is_a_note(folder):
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_odd.OddModel"})
    (note,) = converted(folder)[1]
    assert "modeling_odd.OddModel" in note


def pointer(path):
    path.unlink()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12000\n")


REFUSED = {
    "an adapter": (lambda f: change(f / "adapter_config.json", peft_type="LORA"), "holds an adapter"),
    "ends that are words": (lambda f: change(f / "generation_config.json", eos_token_id=["</s>"]), "no ids of tokens"),
    "a temperature in words": (lambda f: change(f / "generation_config.json", temperature="hot"), "is 'hot'"),
    "a temperature below 0": (lambda f: change(f / "generation_config.json", temperature=-0.5), "is -0.5, no number"),
    "a share above 1": (lambda f: change(f / "generation_config.json", top_p=7), "top_p is 7, no number from 0 to 1"),
    "a pointer for weights": (lambda f: pointer(f / "model.safetensors"), "a pointer of Git LFS to a file of 12,000"),
    "a pointer for a tokenizer": (lambda f: pointer(f / "tokenizer.json"), "a pointer of Git LFS.*git lfs pull"),
    "a web page for settings": (
        lambda f: (f / "config.json").write_bytes(b"<!DOCTYPE html>"), "config.json is no JSON: it is a web page"
    ),
    "a template without end": (
        lambda f: (f / "chat_template.jinja").write_text("x" * (2 << 20)), "has 2097152 characters, more than"
    ),
    "a template of bytes": (lambda f: (f / "chat_template.jinja").write_bytes(b"\xff\xfe"), "cannot be read"),
    "a template that is a number": (
        lambda f: ((f / "chat_template.jinja").unlink(True), change(f / "tokenizer_config.json", chat_template=5)),
        "chat_template is 5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_understood_is_refused(folder, case):
    spoil, said = REFUSED[case]
    spoil(folder)
    with pytest.raises(OpsinError, match=said):
        convert(folder, folder / "out.gguf")
    assert not (folder / "out.gguf").exists()


def test_the_command_prints_the_notes(folder, capsys):
    from opsin.cli.main import run

    change(folder / "generation_config.json", num_beams=4)
    assert run(["convert", str(folder), "-o", str(folder / "out.gguf")]) == 0
    assert "opsin: generation_config.json: num_beams is 4" in capsys.readouterr().err


def test_sampling_of_the_checkpoint_is_what_answers_are_drawn_with(folder):
    change(folder / "generation_config.json", do_sample=True, temperature=0.6, top_p=0.9)
    made = convert(folder, folder / "out.gguf")
    with opsin.load(made.paths[0], threads=1, context=64) as model:
        sampling = model.facts.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.6, 0.9, 50, 0.0)
