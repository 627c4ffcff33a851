"""The truth for a llama file: its weights as gguf-py decodes them, in the `transformers` class, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from smollm2 import metadata
from transformers import LlamaConfig, LlamaForCausalLM

Logits = NDArray[np.float32]

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
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


def load(path: Path) -> LlamaForCausalLM:
    """The file as a `LlamaForCausalLM`, ready to run."""
    config = _config(path)
    state = {}
    for tensor in GGUFReader(path).tensors:
        name = str(tensor.name)
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1])
        if ".attn_q." in name:
            weight = _halves(weight, config.num_attention_heads)
        if ".attn_k." in name:
            weight = _halves(weight, config.num_key_value_heads)
        state[_rename(name)] = torch.from_numpy(weight)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=True, assign=True)
    # Buffers are not in the state; made anew on the CPU, since those above have no storage.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def logits(model: LlamaForCausalLM, ids: list[int]) -> Logits:
    """Logits after each id, [rows, vocabulary]."""
    with torch.inference_mode():
        rows: Logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    return rows


def _config(path: Path) -> LlamaConfig:
    values = metadata(path)
    tied = not any(tensor.name == "output.weight" for tensor in GGUFReader(path).tensors)
    return LlamaConfig(
        vocab_size=len(values["tokenizer.ggml.tokens"]),
        hidden_size=values["llama.embedding_length"],
        intermediate_size=values["llama.feed_forward_length"],
        num_hidden_layers=values["llama.block_count"],
        num_attention_heads=values["llama.attention.head_count"],
        num_key_value_heads=values["llama.attention.head_count_kv"],
        max_position_embeddings=values["llama.context_length"],
        rms_norm_eps=values["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": values["llama.rope.freq_base"]},
        tie_word_embeddings=tied,
        attn_implementation="eager",
        dtype=torch.float32,
    )


def _rename(name: str) -> str:
    parts = name.split(".")
    if parts[0] != "blk":
        return f"{NAMES[parts[0]]}.{parts[1]}"
    return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"


def _halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from rotation pairs side by side, as GGUF has them, to the two halves of `transformers`."""
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, width)
