"""Tiny random encoders in the place of those that llama-server's tests use: one that embeds, one that ranks.

Their vocabulary has the words of these tests, and letters for all others.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.gguf import NewTensor, Typed, ValueType, write

WORDS = """
i believe the meaning of life is write a joke about ai from very long prompt which will not be truncated this test
another hello world string string1 string2 string3 base64 embedding output machine learning are an in what city paris
"""
CONTROL, NORMAL, SPACE = 3, 1, "\u2581"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WIDTH, LAYERS, HEADS, FFN, CONTEXT = 64, 2, 4, 128, 512
CLS, RANK = 2, 4  # poolings


def write_encoder(path: Path, *, ranks: bool = False) -> None:
    """Write the model; with `ranks` it has a head."""
    texts, kinds = _vocabulary()
    metadata: dict[str, object] = {
        "general.architecture": "bert", "general.name": "random encoder", "bert.block_count": LAYERS,
        "bert.context_length": CONTEXT, "bert.embedding_length": WIDTH, "bert.feed_forward_length": FFN,
        "bert.attention.head_count": HEADS, "bert.attention.layer_norm_epsilon": 1e-12, "bert.attention.causal": False,
        "bert.pooling_type": RANK if ranks else CLS, "tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": Typed(ValueType.INT32, kinds), "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.unknown_token_id": 1, "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.cls_token_id": 2, "tokenizer.ggml.seperator_token_id": 3, "tokenizer.ggml.mask_token_id": 4,
    }  # fmt: skip
    write(path, metadata, [NewTensor.of(name, values) for name, values in _tensors(len(texts), ranks=ranks).items()])


def _vocabulary() -> tuple[list[str], list[int]]:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [*WORDS.split(), *letters]
    texts = [*SPECIALS, *(SPACE + word for word in dict.fromkeys(words)), *letters]
    return texts, [CONTROL] * len(SPECIALS) + [NORMAL] * (len(texts) - len(SPECIALS))


def _tensors(size: int, *, ranks: bool) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)

    def matrix(outputs: int, inputs: int) -> NDArray[np.float32]:
        return (random.standard_normal((outputs, inputs)) * inputs**-0.5).astype(np.float32)

    def norm(name: str) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": np.ones(WIDTH, np.float32), f"{name}.bias": np.zeros(WIDTH, np.float32)}

    def linear(name: str, outputs: int, inputs: int) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": matrix(outputs, inputs), f"{name}.bias": np.zeros(outputs, np.float32)}

    made = {"token_embd.weight": matrix(size, WIDTH), "token_types.weight": matrix(2, WIDTH)}
    made |= {"position_embd.weight": matrix(CONTEXT, WIDTH), **norm("token_embd_norm")}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            made |= linear(f"{block}.{name}", WIDTH, WIDTH)
        made |= linear(f"{block}.ffn_up", FFN, WIDTH) | linear(f"{block}.ffn_down", WIDTH, FFN)
        made |= norm(f"{block}.attn_output_norm") | norm(f"{block}.layer_output_norm")
    return made | (linear("cls", WIDTH, WIDTH) | linear("cls.output", 1, WIDTH) if ranks else {})
