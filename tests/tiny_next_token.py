"""A tiny Qwen 3.5, or GLM 4.5, whose likeliest next token is known, and whose layer that guesses knows it, too, or not.

The token after one is the next by number, as long as what layers add (`gain`) does not outweigh the embeddings. The
layer that guesses passes embeddings on as they are, so that it says the same; of some ids its own table holds another's
embedding: there it is `wrong`. A `blind` one has random matrices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny import TEMPLATE, tokens

from opsin.gguf import NewTensor, write

Floats = NDArray[np.float32]
WIDTH, FFN, HEADS, KV, HEAD, LAYERS, PART = 32, 48, 4, 2, 16, 3, 8
VOCABULARY = len(tokens()[0])
ATTENDS = (1, LAYERS)  # the layers that attend; the last one guesses
CHANNELS, VALUES = (2 * 2 + 4) * PART, 4 * PART


def tiny_next_token(
    path: Path, *, gain: float = 0.0, wrong: float = 0.0, blind: bool = False, sharp: float = 0.4,
    by_state: bool = False, states: bool = True,
) -> Path:  # fmt: skip
    """Write it. `wrong`: the share of ids behind which the layer guesses wrong; `sharp`: the scale of logits.

    `by_state`: it passes states on instead, and says the next but one by number: what it says first is right, what it
    says from its own state is wrong. Without `states` all layers attend, and it is a GLM.
    """
    random = np.random.default_rng(0)

    def matrix(outputs: int, inputs: int, scale: float = 1.0) -> Floats:
        return (random.standard_normal((outputs, inputs)) * scale * inputs**-0.5).astype(np.float32)

    made = {"token_embd.weight": matrix(VOCABULARY, WIDTH, WIDTH**0.5), "output_norm.weight": np.ones(WIDTH)}
    table = made["token_embd.weight"] = made["token_embd.weight"] / np.linalg.norm(
        made["token_embd.weight"], axis=1, keepdims=True
    ) * np.float32(WIDTH**0.5)  # fmt: skip
    made["output.weight"] = np.roll(table, 1, axis=0) * np.float32(sharp)
    for layer in range(LAYERS + 1):
        block = {"attn_norm": np.ones(WIDTH), "post_attention_norm": np.ones(WIDTH), "ffn_gate": matrix(FFN, WIDTH),
                 "ffn_up": matrix(FFN, WIDTH), "ffn_down": matrix(WIDTH, FFN, gain)}  # fmt: skip
        if layer in ATTENDS or not states:
            block |= {
                "attn_q": matrix((1 + states) * HEADS * HEAD, WIDTH), "attn_k": matrix(KV * HEAD, WIDTH),
                "attn_v": matrix(KV * HEAD, WIDTH), "attn_output": matrix(WIDTH, HEADS * HEAD, gain),
                "attn_q_norm": np.full(HEAD, 1.7), "attn_k_norm": np.full(HEAD, 1.7),
            }  # fmt: skip
        else:
            block |= {
                "attn_qkv": matrix(CHANNELS, WIDTH), "attn_gate": matrix(VALUES, WIDTH), "ssm_alpha": matrix(4, WIDTH),
                "ssm_beta": matrix(4, WIDTH), "ssm_conv1d": matrix(CHANNELS, 4, 2.0), "ssm_norm": np.ones(PART),
                "ssm_out": matrix(WIDTH, VALUES, gain),
            }  # fmt: skip
            made |= {f"blk.{layer}.ssm_a": -np.ones(4), f"blk.{layer}.ssm_dt.bias": np.ones(4)}
        made |= {f"blk.{layer}.{name}.weight": values for name, values in block.items()}
    other = np.where(random.random(VOCABULARY) < wrong, 7, 0)
    beside = {
        "eh_proj": matrix(WIDTH, 2 * WIDTH) if blind else np.eye(WIDTH, 2 * WIDTH),
        "enorm": np.ones(WIDTH), "hnorm": np.ones(WIDTH), "shared_head_norm": np.ones(WIDTH),
        "embed_tokens": table[(np.arange(VOCABULARY) + other) % VOCABULARY],
    }  # fmt: skip
    if by_state:
        beside |= {"eh_proj": np.eye(WIDTH, 2 * WIDTH, WIDTH), "shared_head_head": np.roll(table, 2, axis=0) * sharp}
    made |= {f"blk.{LAYERS}.nextn.{name}.weight": values for name, values in beside.items()}
    write(
        path,
        _metadata("qwen35" if states else "glm4moe"),
        [NewTensor.of(name, values.astype(np.float32)) for name, values in made.items()],
    )
    return path


def _metadata(architecture: str) -> dict[str, object]:
    texts, kinds, merges = tokens()
    keys = {
        "block_count": LAYERS + 1, "nextn_predict_layers": 1, "context_length": 1024, "embedding_length": WIDTH,
        "feed_forward_length": FFN, "attention.head_count": HEADS, "attention.head_count_kv": KV,
        "attention.key_length": HEAD, "attention.value_length": HEAD, "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.recurrent_layers": [layer not in ATTENDS for layer in range(LAYERS + 1)],
        "rope.dimension_count": HEAD // 2, "rope.freq_base": 1e4,
        "ssm.conv_kernel": 4, "ssm.state_size": PART, "ssm.group_count": 2, "ssm.time_step_rank": 4,
        "ssm.inner_size": VALUES,
    }  # fmt: skip
    if architecture == "qwen35":
        keys["rope.dimension_sections"] = [2, 1, 1, 0]
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{key}": value for key, value in keys.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": texts.index("<|im_end|>"),
        "tokenizer.chat_template": TEMPLATE,
    }
