"""What a file lacks or says wrongly is in `Model.notes`, or an error where answers would be nonsense."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny import SPECIALS, Shape, metadata, tiny_llama, tokens, weights
from tiny import _tensor as tensor

import opsin
from opsin.gguf import Typed, ValueType, write

ASK = [{"role": "user", "content": "the"}]
G = "tokenizer.ggml."


def without(path, *keys, specials=(), **more):
    """A tiny llama whose file lacks these keys."""
    shape = Shape(specials=specials)
    kept = {key: value for key, value in metadata(shape).items() if key not in keys}
    write(path, {**kept, **more}, [tensor(name, value, {}) for name, value in weights(shape).items()])
    return path


def loaded(path):
    with opsin.load(path, threads=1, context=64) as model:
        model.chat(ASK, max_tokens=2).text  # noqa: B018 - it answers
        return model.notes, model.tokenizer


def test_a_whole_file_has_no_notes(tmp_path):
    assert loaded(tiny_llama(tmp_path / "m.gguf"))[0] == ()


def test_a_file_without_a_template_is_completed_plainly_and_says_so(tmp_path):
    path = without(tmp_path / "m.gguf", "tokenizer.chat_template")
    with opsin.load(path, threads=1, context=64) as model:
        assert ["no chat template" in note and "without roles" in note for note in model.notes] == [True]
        turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}]
        assert model.write(turns) == "S\nhi"


LACKS = {
    "no pre-tokenizer": ([f"{G}pre"], {}, "tokenizer.ggml.pre is missing"),
    "no token types": (
        [f"{G}token_type"], {"tokenizer.chat_template": "{{ messages[0].content }}"}, "token_type is missing"
    ),
    "an end outside": ([], {f"{G}eos_token_id": 9999}, "eos_token_id is 9999, which is none of the 265 tokens"),
    "a beginning outside": ([], {f"{G}bos_token_id": 265}, "bos_token_id is 265, which is none of the 265"),
    "an ordinary end": ([], {f"{G}eos_token_id": 64}, "ends answers, 64 .*, is an ordinary one"),
    "more ends outside": (
        [], {f"{G}eos_token_ids": Typed(ValueType.INT32, [264, -5])}, "eos_token_ids names -5, which is none"
    ),
    "a foreign template": (
        [], {"tokenizer.chat_template": "<|user|>{{ messages[0].content }}<end_of_turn>"},
        r"writes '<\|user\|>', '<end_of_turn>', which the vocabulary does not have as a token",
    ),
    "a sampler of the past": ([], {"general.sampling.tfs_z": 0.5}, "general.sampling.tfs_z is 0.5.*not built"),
    "an order with strange names": ([], {"general.sampling.sequence": "top_k;tfs_z;temp"}, "names 'tfs_z': no sampler"),
    "a sampler of the future": ([], {"general.sampling.dry_multiplier": 0.8}, "dry_multiplier is 0.8.*not built"),
    "a window": ([], {"llama.attention.sliding_window": 512}, "llama.attention.sliding_window is 512.*not built"),
    "a scale of logits": ([], {"llama.logit_scale": 0.25}, "llama.logit_scale is 0.25.*not built"),
    "a list of factors": (
        [], {"general.sampling.tfs_z": np.float32([1, 2])}, r"tfs_z is \[1.0, 2.0\].*not built"
    ),
    "a template that fails": ([], {"tokenizer.chat_template": "{{ 1 / 0 }}"}, "makes the chat template fail"),
    "a template that is empty": ([], {"tokenizer.chat_template": ""}, "leaves out what a user says"),
    "a list": ([], {"llama.new_thing": np.arange(3)}, r"llama.new_thing is \[0, 1, 2\].*not built"),
}  # fmt: skip


@pytest.mark.parametrize("case", LACKS)
def test_what_a_file_lacks_or_says_wrongly_is_a_note(tmp_path, case):
    keys, more, said = LACKS[case]
    with opsin.load(without(tmp_path / "m.gguf", *keys, **more), threads=1, context=64) as model:
        notes = model.notes
    assert len(notes) == 1, notes
    assert re.search(said, notes[0]), notes


def test_thousands_of_odd_keys_are_a_few_notes(tmp_path):
    notes, _ = loaded(without(tmp_path / "m.gguf", **{f"llama.x{number}": number + 1 for number in range(3000)}))
    assert len(notes) == 17
    assert notes[-1] == "... and 2984 more keys that are not built"


def test_neutral_knobs_and_old_ways_of_saying_none_are_no_notes(tmp_path):
    more = {
        "general.sampling.penalty_repeat": 1.0, "general.sampling.penalty_last_n": 64, "general.sampling.temp": 0.5,
        "general.sampling.mirostat": 0, "llama.attention.sliding_window": 0, "llama.attention.causal": True,
        f"{G}padding_token_id": 9999, f"{G}bos_token_id": (1 << 32) - 1,
    }  # fmt: skip
    assert loaded(without(tmp_path / "m.gguf", **more))[0] == ()


def test_a_missing_end_is_not_taken_for_a_comma(tmp_path):
    """Files of byte pairs that name none end at token 11 in llama.cpp, which is an ordinary one here."""
    _, tokenizer = loaded(without(tmp_path / "m.gguf", f"{G}eos_token_id"))
    assert 11 not in tokenizer.end_ids
    assert tokenizer.end_ids == {tokens()[0].index(text) for text in (SPECIALS[0], SPECIALS[2])}


def test_a_file_whose_answers_never_end_says_so(tmp_path):
    shape = Shape()
    texts = [text.replace("|", "!") if text.startswith("<|") else text for text in tokens()[0]]
    keys = {k: v for k, v in metadata(shape).items() if k not in (f"{G}eos_token_id", "tokenizer.chat_template")}
    path = tmp_path / "m.gguf"
    write(path, {**keys, f"{G}tokens": texts}, [tensor(n, v, {}) for n, v in weights(shape).items()])
    with opsin.load(path, threads=1, context=64) as model:
        assert any("no token ends an answer" in note for note in model.notes)


def test_more_ends_are_read_under_ollamas_name(tmp_path):
    more = {f"{G}eos_token_ids": Typed(ValueType.INT32, [264, 65, 66])}
    notes, tokenizer = loaded(without(tmp_path / "m.gguf", **more))
    assert notes == ()
    assert {264, 65, 66} <= tokenizer.end_ids


NONSENSE = {
    "byte pairs without merges": ([f"{G}merges"], {}, "tokenizer.ggml.merges is missing.*'th'"),
    "gemma's without merges": ([f"{G}merges", f"{G}pre"], {f"{G}model": "gemma4"}, "merges is missing"),
    "SentencePiece without scores": ([f"{G}merges", f"{G}pre"], {f"{G}model": "llama"}, "scores is missing"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_what_makes_answers_nonsense_is_an_error(tmp_path, case):
    keys, more, said = NONSENSE[case]
    path = without(tmp_path / "m.gguf", *keys, **more)
    with pytest.raises(opsin.OpsinError, match=said) as caught:
        opsin.load(path, threads=1)
    assert caught.value.exit_code == 3


def test_letters_alone_need_no_merges(tmp_path):
    shape = Shape()
    texts, kinds, merges = tokens()
    texts = [chr(0x400 + id) if kind == 1 and len(text) > 1 else text
             for id, (text, kind) in enumerate(zip(texts, kinds, strict=True))]  # fmt: skip
    assert len(merges) > 1
    keys = {k: v for k, v in metadata(shape).items() if k != f"{G}merges"}
    path = tmp_path / "m.gguf"
    write(path, {**keys, f"{G}tokens": texts}, [tensor(n, v, {}) for n, v in weights(shape).items()])
    assert loaded(path)[0] == ()
