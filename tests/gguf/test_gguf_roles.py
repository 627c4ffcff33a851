"""What a file is that is no model which writes, by its keys and the names of its tensors, whatever they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from opsin.gguf import NewTensor, open_unwritten
from opsin.gguf.roles import find_other

A = "general.architecture"
OTHERS = {
    "an adapter (LoRA)": ({A: "llama", "adapter.type": "lora"}, "x"),
    "an adapter (LoRA) for 'base'": ({A: "llama", "general.type": "adapter", "general.base_model.0.name": "base"}, "x"),
    "statistics for quantising (imatrix)": ({"imatrix.datasets": ["a"]}, "blk.0.attn_q.weight.counts"),
    "a control vector for 'qwen2'": ({A: "controlvector", "controlvector.model_hint": "qwen2"}, "direction.1"),
    "a vocabulary alone: it has no tensors": ({A: "llama", "tokenizer.ggml.tokens": ["a"]}, ""),
    "a draft model (it guesses for another one)": ({A: "x", "x.nextn_predict_layers": 1}, "blk.9.nextn.eh_proj.weight"),
    "a model for embeddings of texts (nomic-bert-moe)": ({A: "nomic-bert-moe"}, "blk.0.x"),
    "a model for embeddings of texts (t5encoder)": ({A: "t5encoder"}, "enc.blk.0.x"),
    "a model that ranks texts (xbert)": ({A: "xbert", "xbert.pooling_type": 4}, "blk.0.x"),
    "a model that makes pictures or films (sdxl)": ({A: "sdxl"}, "x"),
    "a model that makes sound (wavtokenizer-dec)": ({A: "wavtokenizer-dec"}, "x"),
}
MODELS = [
    {},
    {A: "llama"},
    {A: "never-heard-of"},
    {A: "clip", "clip.has_vision_encoder": True, "clip.has_audio_encoder": True},
    {A: "clip", "clip.has_audio_encoder": True},
    {A: "x", "x.pooling_type": 1},
    {A: "x", "x.nextn_predict_layers": 1},
]
# Of other types than they should be.
HOSTILE = [7, True, 0.5, "", ["a", "b"], np.arange(3), np.zeros(0, np.int32)]


def what(metadata: dict[str, object], tensor: str = "blk.0.x") -> str | None:
    """What the file of these keys, with one tensor, is said to be."""
    made = [NewTensor.of(tensor, np.zeros(2, np.float32))] if tensor else []
    found = find_other(open_unwritten(Path("x"), metadata, made))
    assert found is None or found[1].startswith(("give ", "merge it"))
    return None if found is None else found[0]


@pytest.mark.parametrize("said", OTHERS)
def test_what_is_no_model_is_told(said: str) -> None:
    assert what(*OTHERS[said]) == said


@pytest.mark.parametrize("metadata", MODELS)
def test_what_may_be_a_model_is_nothing_else(metadata: dict[str, object]) -> None:
    assert what(metadata) is None


def test_a_family_s_own_is_a_model_whatever_its_name() -> None:
    file = open_unwritten(Path("x"), {A: "bert"}, [NewTensor.of("x", np.zeros(2, np.float32))])
    assert find_other(file) is not None
    assert find_other(file, is_known=True) is None


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_keys_of_any_type_are_read(value: object) -> None:
    keys = (A, "general.type", "x.pooling_type", "x.nextn_predict_layers", "clip.has_audio_encoder",
            "clip.has_vision_encoder", "general.base_model.0.name")  # fmt: skip
    for key in keys:
        for architecture in ("x", "clip"):
            told = what({A: architecture, key: value}, "blk.9.x")
            assert told is None or "draft" in told or "embeddings" in told or "sound" in told
