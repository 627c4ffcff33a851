"""The truth for a tiny llama: its weights in transformers' class, in float32 with plain attention."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tiny import Shape, weights
from transformers import LlamaConfig, LlamaForCausalLM

Floats = NDArray[np.float32]
NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama_truth(shape: Shape, *, rope: dict[str, object] | None = None, scale: float | None = None) -> LlamaForCausalLM:
    """`shape` with `weights(shape)`. `rope` replaces the rope's parameters, `scale` that of attention."""
    values = weights(shape)
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head, max_position_embeddings=shape.context, rms_norm_eps=shape.eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.base, **(rope or {})},
        tie_word_embeddings=not shape.untied, attention_bias=shape.biases, mlp_bias=shape.biases,
        attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    state = {
        "model.embed_tokens.weight": values["token_embd.weight"],
        "model.norm.weight": values["output_norm.weight"],
        "lm_head.weight": values["output.weight" if shape.untied else "token_embd.weight"],
    }
    for name, value in values.items():
        if name.startswith("blk."):
            _, layer, part, kind = name.split(".")
            for key, rows in _apart(shape, part, value):
                state[f"model.layers.{layer}.{NAMES[key]}.{kind}"] = rows
    model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in state.items()}, strict=True)
    if scale is not None:
        for layer in model.model.layers:
            layer.self_attn.scaling = scale
    return model


def run(model: LlamaForCausalLM, ids: list[int], **options: bool):
    """Everything that transformers tells of one pass."""
    with torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False, **options)


def logits(model: LlamaForCausalLM, ids: list[int]) -> Floats:
    return run(model, ids).logits[0].numpy()


def _apart(s: Shape, part: str, value: Floats) -> list[tuple[str, Floats]]:
    """A tensor as transformers has it: q, k and v apart, rotated pairs as two halves."""
    if part == "attn_qkv":
        q, k, v = np.split(value, [s.heads * s.head, (s.heads + s.kv_heads) * s.head])
        return [*_apart(s, "attn_q", q), *_apart(s, "attn_k", k), ("attn_v", v)]
    if part in ("attn_q", "attn_k"):
        heads = s.heads if part == "attn_q" else s.kv_heads
        pairs = value.reshape(heads, s.head // 2, 2, -1)
        return [(part, pairs.swapaxes(1, 2).reshape(value.shape))]
    return [(part, value)]
