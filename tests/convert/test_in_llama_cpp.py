"""Converted files in llama.cpp: it loads them, and expects the same next tokens as opsin and transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
xllamacpp = pytest.importorskip("xllamacpp")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import checkpoints  # noqa: E402
import test_internlm2  # noqa: E402

from opsin.convert.hf import convert  # noqa: E402

PROMPTS = [np.random.default_rng(n).integers(7, checkpoints.VOCABULARY, 20 + 12 * n).tolist() for n in range(6)]
# llama.cpp knows no width of heads but width / heads for some.
FAMILIES = {
    "llama": {},
    "gemma3": {"layers": 7, "layer_types": None},
    "gemma3 of another period": {},
    "gemma4": {},
    "qwen2": {"head_dim": 16},
    "qwen3": {},
    "qwen2vl": {},
    "qwen3vl": {},
    "qwen35": {"linear_key_head_dim": 16, "linear_value_head_dim": 16},
    "qwen35moe": {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "num_experts_per_tok": 3},
    "qwen3next": {"linear_key_head_dim": 16, "linear_value_head_dim": 16},
    "qwen3moe": {"mlp_only_layers": []},
    "qwen3vlmoe": {},
    "glm4moe": {},
    "gpt-oss": {"tied": False, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},  # its yarn ends whole
    "mixtral": {"head_dim": 16},
    "mistral3": {},
    "gemma2": {},
    "phi3": {"sliding_window": None},  # which llama.cpp does not look at
    "lfm2": {"conv_L_cache": 3, "head_dim": 16},
    "smollm3": {},
    "ernie4_5": {"use_bias": False},
    "paddleocr": {},
    "glm4": {},
}


NEAR = {"qwen3vl": 0.5}  # its tiny attention is so peaked that llama.cpp's rounding shows; ours is within 0.01


def likeliest(path) -> list[dict[int, float]]:
    """The likeliest tokens after each prompt, with their log-probabilities, as llama.cpp sees them.

    It tells none where an answer ends at once.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup = 512, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server, found = xllamacpp.Server(params), []
    for ids in PROMPTS:
        asked = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": 4, "cache_prompt": False}
        told = server.handle_completions(asked)
        told = json.loads(told) if isinstance(told, str) else told
        known = (told["choices"][0]["logprobs"] or {}).get("content")
        found.append({row["id"]: row["logprob"] for row in known[0]["top_logprobs"]} if known else {})
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_expects_the_same_tokens(tmp_path, family):
    model = hf_folders.save(tmp_path / "hf", family.split()[0], **FAMILIES[family])
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32", vision=False).paths
    assert_expected(path, model, NEAR.get(family, 0.1))


def test_llama_cpp_expects_the_same_tokens_of_a_class_that_transformers_lacks(tmp_path):
    model = checkpoints.make("internlm2", tied=False)
    test_internlm2.save(tmp_path / "hf", test_internlm2.TEXT, test_internlm2.packed(model.state_dict()))
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32").paths
    assert_expected(path, model)


def assert_expected(path, model, near=0.1):
    known = [(ids, theirs) for ids, theirs in zip(PROMPTS, likeliest(path), strict=True) if theirs]
    assert len(known) > len(PROMPTS) // 2
    for ids, theirs in known:
        last = checkpoints.logits(model, ids)[-1].astype(np.float64)
        ours = last - last.max() - np.log(np.exp(last - last.max()).sum())
        assert max(theirs, key=theirs.get) == int(ours.argmax())
        assert all(abs(ours[id] - value) < near for id, value in theirs.items())
