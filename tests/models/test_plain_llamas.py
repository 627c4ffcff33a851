"""The texts of LLaVA's files: Vicuna's and Mistral's Llamas, with the few keys that their converters wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import opsin
from opsin.spans import MediaSpan

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "convert"))

import hf_folders  # noqa: E402
import llava_truth  # noqa: E402
from by_hand import distance  # noqa: E402
from vision_truth import picture  # noqa: E402

from opsin.convert.vocabulary import vocabulary_keys  # noqa: E402
from opsin.gguf import NewTensor, write  # noqa: E402

HEAD = checkpoints.WIDTH // checkpoints.HEADS
G = "tokenizer.ggml."
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
SIZES = {
    "block_count": 3, "context_length": 2048, "embedding_length": checkpoints.WIDTH,
    "feed_forward_length": checkpoints.FFN, "attention.head_count": checkpoints.HEADS,
    "attention.layer_norm_rms_epsilon": checkpoints.EPS,
}  # fmt: skip
ROLES = {f"{G}bos_token_id": 1, f"{G}eos_token_id": 2, f"{G}unknown_token_id": 0}
# What is said, and how transformers has it: Vicuna 1.5, and Mistral 0.2, which LLaVA 1.6 takes.
FILES = {
    "vicuna": (
        {"attention.head_count_kv": checkpoints.HEADS, "rope.dimension_count": HEAD},
        {**ROLES, f"{G}padding_token_id": 0},
        {"num_key_value_heads": checkpoints.HEADS, "rope_theta": 1e4},
    ),
    "vicuna of the first converters": ({}, ROLES, {"num_key_value_heads": checkpoints.HEADS, "rope_theta": 1e4}),
    "mistral": (
        {"attention.head_count_kv": 2, "rope.dimension_count": HEAD, "rope.freq_base": 1e6, "vocab_size": 400},
        {**ROLES, f"{G}add_bos_token": True, f"{G}add_eos_token": False, "tokenizer.chat_template": INST},
        {"num_key_value_heads": 2, "rope_theta": 1e6},
    ),
}
TEXTS = ["The quick brown fox", " doesn't it?", "héllo wörld 漢字 ☃\n\nline"]


@pytest.fixture(scope="module", params=FILES)
def both(request, tmp_path_factory):
    """transformers' tokenizer and model, and ours, of a pair of files."""
    folder, (keys, roles, options) = tmp_path_factory.mktemp("plain"), FILES[request.param]
    tokenizer = hf_folders.with_bytes_behind(prefix=True)
    tokenizer.save_pretrained(folder / "hf")
    (folder / "hf" / "config.json").write_text("{}")
    words = vocabulary_keys(folder / "hf", 400)[0]
    model = checkpoints.make("llama", tied=False, vocab_size=400, head_dim=HEAD, **options)
    known = {
        "general.architecture": "llama", "general.name": "LLaMA v2",
        **{f"llama.{name}": value for name, value in {**SIZES, **keys}.items()},
        **{f"{G}{name}": words[f"{G}{name}"] for name in ("model", "tokens", "scores", "token_type")}, **roles,
    }  # fmt: skip
    tensors = checkpoints.tensors("internlm2", model)  # whose rows of q and k stand as those of a Llama
    write(folder / "llava-model.gguf", known, [NewTensor.of(name, values) for name, values in tensors.items()])
    llava_truth.write_tower(folder / "mmproj-model-f16.gguf", llava_truth.llava_truth())
    with opsin.load(folder / "llava-model.gguf", threads=2, pages="f32", context=512) as ours:
        yield tokenizer, model, ours


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_logits_equal_transformers(both, text):
    tokenizer, model, ours = both
    prompt = ours.chat_prompt([{"role": "user", "content": text}])
    wrote = f"[INST] {text} [/INST]" if ours.template else text
    ids = [id for span in prompt.spans for id in span.ids]
    assert ids == tokenizer(wrote)["input_ids"]
    assert ids[0] == 1
    assert distance(ours.logits(prompt), checkpoints.logits(model, ids)) <= 1e-4


def test_a_picture_is_answered(both):
    ours = both[-1]
    prompt = ours.chat_prompt([{"role": "user", "content": ["The fox ", picture(60, 44), " jumps"]}])
    assert [len(span) for span in prompt.spans if isinstance(span, MediaSpan)] == [llava_truth.ROWS]
    assert prompt.spans[0].ids[0] == 1 and 1 not in prompt.spans[2].ids
    answer = ours.chat([{"role": "user", "content": ["The fox ", picture(60, 44)]}], max_tokens=5, temperature=0.0)
    assert isinstance(answer.text, str)
    assert answer.usage.pictures == llava_truth.ROWS
    assert np.isfinite(ours.logits(prompt)).all()
