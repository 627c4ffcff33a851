"""Texts in Ollama's words give the same bits as in llama.cpp's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

import opsin  # noqa: E402
from opsin.gguf import File, write  # noqa: E402
from opsin.models import dialects, open_model  # noqa: E402

IDS = np.random.default_rng(5).integers(7, checkpoints.VOCABULARY, 60).tolist()
# Of each: the architecture that files say, names that are theirs, keys that they do not have, how texts are cut.
TEXTS = {
    "gpt-oss": ("gptoss", {"attn_output": "attn_out", "attn_sinks.weight": "attn_sinks",
                           "post_attention_norm": "ffn_norm"},
                ("rope.scaling.type", "expert_feed_forward_length"), "gpt-4o"),
    "lfm2": ("lfm2", {"token_embd_norm": "output_norm"}, (), "lfm2"),
}  # fmt: skip


def test_every_dialect_of_texts_is_tried():
    assert {entry.architecture for entry in dialects() if not entry.projector} == {said for said, *_ in TEXTS.values()}


@pytest.fixture(params=TEXTS)
def files(request, tmp_path):
    said, names, dropped, pre = TEXTS[request.param]
    plain = checkpoints.save(tmp_path / "plain.gguf", request.param, checkpoints.make(request.param))
    with File.open(plain) as file:
        keys = {
            key.replace(f"{request.param}.", f"{said}.", 1): value
            for key, value in file.typed.items()
            if key.removeprefix(f"{request.param}.") not in dropped
        }
        tensors = []
        for name in file.tensors:
            tensor, told = file.copy_tensor(name), name
            for ours, theirs in names.items():
                told = told.replace(ours, theirs)
            object.__setattr__(tensor, "name", told)
            tensors.append(tensor)
        (other,) = write(tmp_path / "other.gguf", {**keys, "general.architecture": said}, tensors)
    return plain, other, pre


def logits(path):
    with opsin.load(path, threads=2, context=256) as model:
        return model.logits(IDS)


def test_logits_are_the_same_bits(files):
    plain, other, _ = files
    assert np.array_equal(logits(other), logits(plain))


def test_it_is_told_in_plain_words(files):
    plain, other, pre = files
    with open_model(other) as told, File.open(plain) as file:
        assert set(told.tensors) == set(file.tensors)
        assert told.get_str("general.architecture") == file.get_str("general.architecture")
        assert told.get_str("tokenizer.ggml.pre") == pre
    with open_model(plain) as same:
        assert same.get_str("tokenizer.ggml.pre") == "gpt-2"
