"""What GGUF files call the model's parameters, and finished weights read from one, such as that in the package.

So measuring, and going on, need nothing that is not shipped.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from torch import Tensor

from training.model import Nano, Shape

BUNDLED = Path(__file__).parents[1] / "src" / "opsin" / "data" / "opsin-nano.gguf"
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
TOWER_NAMES = {
    "layer_norm1": "ln1", "layer_norm2": "ln2", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}
TOWER_ENDS = {
    "embeddings.patch_embedding.weight": "v.patch_embd.weight", "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight", "post_layernorm.weight": "v.post_ln.weight",
    "post_layernorm.bias": "v.post_ln.bias",
}


def gguf_name(name: str) -> str:
    """The GGUF name of one of our parameters."""
    part, _, rest = name.partition(".")
    if part == "multi_modal_projector":
        return {"mm_input_projection_weight": "mm.input_projection.weight",
                "mm_soft_emb_norm.weight": "mm.soft_emb_norm.weight"}[rest]
    if rest in TOWER_ENDS:
        return TOWER_ENDS[rest]
    if ".layers." not in name:
        return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[rest]
    number, _, inner = rest.split("layers.", 1)[1].partition(".")
    stem, _, end = inner.rpartition(".")
    tower = part == "vision_tower"
    return f"{'v.' if tower else ''}blk.{number}.{(TOWER_NAMES if tower else LAYER_NAMES)[stem]}.{end}"


def holds_one(name: str) -> bool:
    """Whether a parameter is an RMS norm's weight, which we keep minus one."""
    return "norm" in name and name.endswith("weight") and "vision_tower" not in name


def read_weights(path: Path = BUNDLED, shape: Shape | None = None) -> dict[str, Tensor]:
    """The model's parameters in float32 from a file in F16 and F32."""
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    names = Nano(shape or Shape()).state_dict()
    found = {name: torch.tensor(tensors[gguf_name(name)], dtype=torch.float32) for name in names}
    return {name: tensor - 1 if holds_one(name) else tensor for name, tensor in found.items()}
