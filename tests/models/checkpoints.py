"""Tiny random checkpoints of transformers' classes, and the GGUF files that say the same.

Written by hand, tensor by tensor, so that nothing of opsin's converter is believed here. Weights are scaled so that
attention is peaked; there are three layers and more, grouped heads, heads wider than width / heads, and another width
in the FFN.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tiny import tokens

from opsin.gguf import NewTensor, write

Floats = NDArray[np.float32]
VOCABULARY = len(tokens()[0])
WIDTH, FFN, HEADS, KV, HEAD, CONTEXT, EPS = 64, 96, 4, 2, 32, 1024, 1e-3

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
EXPERTS = {**NAMES, "mlp.gate": "ffn_gate_inp"}
SANDWICH = {
    **NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GEMMA4 = {
    **SANDWICH,
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
    "layer_scalar": "layer_output_scale.weight",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "router.proj": "ffn_gate_inp",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "embed_tokens_per_layer": "per_layer_token_embd",
    "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm",
}
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": FFN, "num_attention_heads": HEADS,
    "num_key_value_heads": KV, "head_dim": HEAD, "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A family: how its class is made, and how its file says the same.

    Attributes:
        make: keywords of the text's configuration -> the model of transformers.
        layers, options: the configuration that is tested.
        keys: metadata beside the ordinary one, without the architecture before them.
        names: transformers' part -> GGUF's.
        plus_one: norms of the file hold one more.
        neighbours: the file's rows of q and k stand so that neighbouring pairs turn, not halves.
        head: width of a head.
        made: tensors of the file that the checkpoint has as settings.
        change: what the file holds of a tensor, of transformers' name.
        peak: about the weights of norms of q and k, so that attention is peaked.
        architecture: that of the file, where it is not called like the family.
    """

    make: Callable[..., torch.nn.Module]
    layers: int = 3
    options: dict[str, object] = field(default_factory=dict)
    keys: dict[str, object] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=lambda: NAMES)
    plus_one: bool = False
    neighbours: bool = False
    head: int = HEAD
    made: dict[str, list[float]] = field(default_factory=dict)
    change: Callable[[str, Floats], Floats] = lambda name, values: values
    peak: float = 1.7
    architecture: str | None = None


def _causal(name: str, config_of: str = "") -> Callable[..., torch.nn.Module]:
    def make(**text: object) -> torch.nn.Module:
        config = getattr(transformers, config_of or f"{name}Config")(**text)
        config._attn_implementation = "eager"
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return make


def _gemma3(**text: object) -> torch.nn.Module:
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(
        text_config={**text, "model_type": "gemma3_text"}, vision_config={**tower, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4, image_token_index=3, boi_token_index=4, eoi_token_index=5,
        tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    config._attn_implementation = "eager"
    return transformers.Gemma3ForConditionalGeneration(config)


def _qwen2vl(**text: object) -> torch.nn.Module:
    tower = {"depth": 1, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = transformers.Qwen2VLConfig(
        text_config={**text, "model_type": "qwen2_vl_text"}, vision_config=tower, image_token_id=3, video_token_id=4,
        vision_start_token_id=5, vision_end_token_id=6, tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    config._attn_implementation = "eager"
    return transformers.Qwen2VLForConditionalGeneration(config)


def _qwen3vl(kind: str = "", **text: object) -> torch.nn.Module:
    tower = {"depth": 3, "hidden_size": 32, "out_hidden_size": WIDTH, "num_heads": 2, "intermediate_size": 48,
             "patch_size": 14, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 2]}  # fmt: skip
    config = getattr(transformers, f"Qwen3VL{kind}Config")(
        text_config={**text, "model_type": f"qwen3_vl_{'moe_' if kind else ''}text"}, vision_config=tower,
        image_token_id=3, video_token_id=4, vision_start_token_id=5, vision_end_token_id=6,
        tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    config._attn_implementation = "eager"
    return getattr(transformers, f"Qwen3VL{kind}ForConditionalGeneration")(config)


def _paddleocr(**text: object) -> torch.nn.Module:
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.PaddleOCRVLConfig(
        text_config={**text, "model_type": "paddleocr_vl_text"}, vision_config=tower, image_token_id=3,
        video_token_id=4, vision_start_token_id=5, vision_end_token_id=6,
        tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    config._attn_implementation = "eager"
    return transformers.PaddleOCRVLForConditionalGeneration(config)


LONG = {  # part of a head of 16 turns, and every text is long
    "rope_type": "longrope", "rope_theta": 5e4, "original_max_position_embeddings": 4, "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 3.0], "long_factor": [1.0, 1.3, 2.5, 6.0, 17.0, 40.0],
}  # fmt: skip
WIDE = 48  # heads of Gemma 4's layers that see everything: 6 of 24 pairs turn
LOCAL = [True, True, False, True, False, True, True, False]  # layers with a window; the last three share


def _qwen35(**text: object) -> torch.nn.Module:
    name, kind = ("Qwen3_5Moe", "qwen3_5_moe_text") if "num_experts" in text else ("Qwen3_5", "qwen3_5_text")
    tower = {"depth": 1, "hidden_size": 32, "out_hidden_size": WIDTH, "num_heads": 2, "intermediate_size": 48,
             "patch_size": 14, "num_position_embeddings": 16}  # fmt: skip
    config = getattr(transformers, f"{name}Config")(
        text_config={**text, "model_type": kind}, vision_config=tower, image_token_id=3, video_token_id=4,
        vision_start_token_id=5, vision_end_token_id=6, tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    config._attn_implementation = "eager"
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


DELTA = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 12, "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "layer_types": [f"{'full' if i in (1, 4) else 'linear'}_attention" for i in range(5)],
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.5,
                        "mrope_section": [3, 3, 2], "mrope_interleaved": True},
}  # fmt: skip
DELTA_KEYS = {
    "rope.freq_base": 5e4, "rope.dimension_count": HEAD // 2, "rope.dimension_sections": [3, 3, 2, 0],
    "attention.recurrent_layers": [True, False, True, True, False], "ssm.conv_kernel": 4, "ssm.state_size": 8,
    "ssm.group_count": 2, "ssm.time_step_rank": 6, "ssm.inner_size": 6 * 12,
}  # fmt: skip
RECURRENT = {
    **NAMES, "post_attention_layernorm": "post_attention_norm", "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate", "linear_attn.in_proj_a": "ssm_alpha", "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.conv1d": "ssm_conv1d", "linear_attn.dt_bias": "ssm_dt.bias", "linear_attn.A_log": "ssm_a",
    "linear_attn.norm": "ssm_norm", "linear_attn.out_proj": "ssm_out",
}  # fmt: skip


def _tiled(name: str, values: Floats) -> Floats:
    """Value heads 0 to 5, of which three in a row have a key head, as 0, 3, 1, 4, 2, 5; the rest of what differs."""
    if "linear_attn" not in name:
        return values
    values = -np.exp(values) if name.endswith("A_log") else values
    heads = [0, 3, 1, 4, 2, 5]
    if name.endswith(("A_log", "dt_bias", "in_proj_a.weight", "in_proj_b.weight")):
        return values[heads]
    places = [12 * head + i for head in heads for i in range(12)]
    if name.endswith("out_proj.weight"):
        return values[:, places]
    if name.endswith("in_proj_z.weight"):
        return values[places]
    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        return np.concatenate([values[:32], values[32:][places]]).reshape(len(values), -1)
    return values


def _as_old(name: str, values: Floats) -> Floats:
    """As files of Qwen 3 Next were first written: heads as the class has them."""
    if name.endswith("conv1d.weight"):
        return values[:, 0]
    return -np.exp(values) if name.endswith("A_log") else values


SECTIONS = [1, 4, 3]  # pairs of time, rows and columns: no two alike
INTERLEAVED = [8, 5, 3]
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 40, "beta_fast": 4.0,
    "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.6, "llama_4_scaling_beta": 0.4,
}  # fmt: skip
CHECKPOINTS = {
    "qwen2": Checkpoint(_causal("Qwen2"), options={"rope_theta": 5e4}, keys={"rope.freq_base": 5e4}),
    "qwen3": Checkpoint(_causal("Qwen3"), options={"rope_theta": 5e4}, keys={"rope.freq_base": 5e4}),
    "qwen3moe": Checkpoint(
        _causal("Qwen3Moe"),
        options={"rope_theta": 5e4, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
                 "norm_topk_prob": True, "mlp_only_layers": [1]},
        keys={"rope.freq_base": 5e4, "expert_count": 6, "expert_used_count": 2},
        names=EXPERTS,
    ),
    "gpt-oss": Checkpoint(
        _causal("GptOss"),
        layers=4,
        options={
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 4.0,
                                "beta_slow": 0.5, "original_max_position_embeddings": 40, "truncate": False},
            "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 96, "sliding_window": 24,
        },
        keys={
            "rope.freq_base": 1e4, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 40, "rope.scaling.yarn_beta_fast": 4.0,
            "rope.scaling.yarn_beta_slow": 0.5, "attention.sliding_window": 24, "expert_count": 5,
            "expert_used_count": 2,
        },
        names={**NAMES, "post_attention_layernorm": "post_attention_norm", "mlp.router": "ffn_gate_inp"},
    ),
    "glm4moe": Checkpoint(
        _causal("Glm4Moe"),
        options={
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.5},
            "n_routed_experts": 12, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "use_qk_norm": True,
            "moe_intermediate_size": 40, "routed_scaling_factor": 1.8, "attention_bias": True, "num_mtp_layers": 0,
        },
        keys={
            "rope.freq_base": 5e4, "rope.dimension_count": HEAD // 2, "expert_count": 12, "expert_used_count": 3,
            "expert_group_count": 4, "expert_group_used_count": 2, "expert_weights_scale": 1.8,
            "expert_weights_norm": True,
        },
        names=EXPERTS | {f"mlp.shared_experts.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
    ),
    "internlm2": Checkpoint(
        _causal("Llama"),  # computes the same
        head=WIDTH // HEADS,
        options={"rope_theta": 5e4},
        keys={"rope.freq_base": 5e4},
        neighbours=True,
    ),
    "mistral3": Checkpoint(
        _causal("Ministral3"),
        options={"rope_parameters": YARN},
        keys={
            "rope.freq_base": 1e4,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 40,
            "rope.scaling.yarn_beta_fast": 4.0,
            "rope.scaling.yarn_beta_slow": 0.5,
            "rope.scaling.yarn_log_multiplier": 0.6,
            "attention.temperature_scale": 0.4,
        },
        neighbours=True,
    ),
    "qwen2vl": Checkpoint(
        _qwen2vl,
        head=WIDTH // HEADS,  # its class knows no other
        options={"rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "mrope_section": SECTIONS}},
        keys={"rope.freq_base": 5e4, "rope.dimension_sections": [*SECTIONS, 0]},
    ),
    "qwen3vl": Checkpoint(
        _qwen3vl,
        options={"rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "mrope_section": INTERLEAVED,
                                     "mrope_interleaved": True}},
        keys={"rope.freq_base": 5e4, "rope.dimension_sections": [*INTERLEAVED, 0], "n_deepstack_layers": 2},
    ),
    "qwen35": Checkpoint(
        _qwen35, layers=5, options=DELTA, keys=DELTA_KEYS, names=RECURRENT, plus_one=True, change=_tiled
    ),
    "qwen35moe": Checkpoint(
        _qwen35,
        layers=5,
        options={**DELTA, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
                 "shared_expert_intermediate_size": 48,
                 "layer_types": [*DELTA["layer_types"][:4], "linear_attention"]},
        keys={**DELTA_KEYS, "expert_count": 6, "expert_used_count": 2,
              "attention.recurrent_layers": [True, False, True, True, True]},
        names={
            **RECURRENT, "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
            **{f"mlp.shared_expert.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
        },
        plus_one=True,
        change=_tiled,
    ),
    "qwen3next": Checkpoint(
        _causal("Qwen3Next"),
        layers=5,
        options={
            **{key: value for key, value in DELTA.items() if key != "rope_parameters"},
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.5},
            "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 48,
        },
        keys={**{key: value for key, value in DELTA_KEYS.items() if "sections" not in key},
              "expert_count": 6, "expert_used_count": 2},
        names={
            **RECURRENT, "linear_attn.in_proj_qkvz": "ssm_in", "linear_attn.in_proj_ba": "ssm_ba",
            "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
            **{f"mlp.shared_expert.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
        },
        plus_one=True,
        change=_as_old,
    ),
    "qwen3vlmoe": Checkpoint(
        partial(_qwen3vl, "Moe"),
        options={"rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "mrope_section": INTERLEAVED,
                                     "mrope_interleaved": True},
                 "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40},
        keys={"rope.freq_base": 5e4, "rope.dimension_sections": [*INTERLEAVED, 0], "n_deepstack_layers": 2,
              "expert_count": 6, "expert_used_count": 3},
        names=EXPERTS,
    ),
    "gemma3": Checkpoint(
        _gemma3,
        layers=7,
        options={
            "sliding_window": 24,
            "query_pre_attn_scalar": HEAD,
            "layer_types": [f"{'full' if i in (2, 5) else 'sliding'}_attention" for i in range(7)],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3e3},
            },
        },
        keys={
            "attention.sliding_window": 24,
            "attention.sliding_window_pattern": 3,
            "rope.freq_base": 1e5,
            "rope.freq_base_swa": 3e3,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
        names=SANDWICH,
        plus_one=True,
    ),
    "gemma2": Checkpoint(
        _causal("Gemma2"),
        layers=5,
        options={
            "sliding_window": 24, "query_pre_attn_scalar": HEAD,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
            "attn_logit_softcapping": 6.0, "final_logit_softcapping": 15.0,
        },
        keys={
            "attention.sliding_window": 24, "rope.freq_base": 5e4, "attn_logit_softcapping": 6.0,
            "final_logit_softcapping": 15.0,
        },
        names=SANDWICH,
        plus_one=True,
    ),
    "phi3": Checkpoint(
        _causal("Phi3"),
        head=WIDTH // HEADS,
        options={"rope_parameters": LONG, "original_max_position_embeddings": 4, "sliding_window": 40},
        keys={
            "rope.freq_base": 5e4, "rope.dimension_count": 12, "rope.scaling.original_context_length": 4,
            "rope.scaling.attn_factor": (1 + np.log(CONTEXT / 4) / np.log(4)) ** 0.5,
            "attention.sliding_window": 40,
        },
        names={**NAMES, "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
        made={"rope_factors_short.weight": LONG["short_factor"], "rope_factors_long.weight": LONG["long_factor"]},
    ),
    "lfm2": Checkpoint(
        _causal("Lfm2"),
        layers=5,
        options={
            "layer_types": ["conv", "full_attention", "conv", "full_attention", "conv"], "norm_eps": EPS,
            "conv_L_cache": 4, "block_auto_adjust_ff_dim": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
        },
        keys={"attention.head_count_kv": [0, KV, 0, KV, 0], "shortconv.l_cache": 4, "rope.freq_base": 5e4},
        names={
            "operator_norm": "attn_norm", "ffn_norm": "ffn_norm", "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output",
            "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm",
            "conv.in_proj": "shortconv.in_proj", "conv.conv": "shortconv.conv", "conv.out_proj": "shortconv.out_proj",
            "feed_forward.w1": "ffn_gate", "feed_forward.w3": "ffn_up", "feed_forward.w2": "ffn_down",
        },
        change=lambda name, values: values[:, 0] if name.endswith("conv.conv.weight") else values,
    ),
    "smollm3": Checkpoint(
        _causal("SmolLM3"), layers=5, options={"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
        keys={"rope.freq_base": 5e4}, neighbours=True,
    ),
    "paddleocr": Checkpoint(
        _paddleocr,
        head=WIDTH // HEADS,
        options={"rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "mrope_section": SECTIONS}},
        keys={"rope.freq_base": 5e4, "rope.dimension_sections": [*SECTIONS, 0]},
    ),
    "ernie4_5": Checkpoint(
        _causal("Ernie4_5"),
        options={"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}, "use_bias": True},
        keys={"rope.freq_base": 5e4},
    ),
    "glm4": Checkpoint(
        _causal("Glm4"),
        options={
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.5},
            "attention_bias": True,
        },
        keys={"rope.freq_base": 5e4, "rope.dimension_count": HEAD // 2},
        names={
            **NAMES, "post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm",
            "mlp.gate_up_proj": "ffn_up",
        },
    ),
    "gemma4": Checkpoint(
        _causal("Gemma4", "Gemma4TextConfig"),
        layers=8,
        options={
            "sliding_window": 24,
            "layer_types": [f"{'sliding' if local else 'full'}_attention" for local in LOCAL],
            "global_head_dim": WIDE,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "final_logit_softcapping": 12.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3e3},
            },
        },
        keys={
            "feed_forward_length": [FFN * (1 + (i >= 5)) for i in range(8)],
            "embedding_length_per_layer_input": 16,
            "attention.head_count_kv": [KV if local else 1 for local in LOCAL],
            "attention.key_length": WIDE,
            "attention.value_length": WIDE,
            "attention.key_length_swa": HEAD,
            "attention.value_length_swa": HEAD,
            "attention.shared_kv_layers": 3,
            "attention.sliding_window": 24,
            "attention.sliding_window_pattern": np.array(LOCAL),
            "rope.freq_base": 1e5,
            "rope.freq_base_swa": 3e3,
            "rope.dimension_count": WIDE,
            "rope.dimension_count_swa": HEAD,
            "final_logit_softcapping": 12.0,
        },
        names=GEMMA4,
        peak=0.8,
        made={"rope_freqs.weight": [1.0] * 6 + [1e30] * 18},
    ),
}  # fmt: skip


# Those that tests of all families do not take.
OTHERS = {
    "llama": Checkpoint(_causal("Llama"), options={"rope_theta": 5e4}),
    "mixtral": Checkpoint(
        _causal("Mixtral"), options={"num_local_experts": 4, "num_experts_per_tok": 2, "rope_theta": 5e4},
        keys={"rope.freq_base": 5e4, "expert_count": 4, "expert_used_count": 2}, names=EXPERTS, neighbours=True,
        architecture="llama",
    ),
}  # fmt: skip


def make(name: str, *, tied: bool = True, layers: int | None = None, **options: object) -> torch.nn.Module:
    """A random model of the family. `options` replace those of its configuration."""
    known = (CHECKPOINTS | OTHERS)[name]
    count = layers or known.layers
    text = {**TEXT, **known.options, "head_dim": known.head, "num_hidden_layers": count, "tie_word_embeddings": tied}
    model = known.make(**{**text, **options})
    model = model.float().eval()
    random = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for key, value in model.named_parameters():
            _fill(key, value, random, known)
        for key, value in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                value.normal_(generator=random).mul_(0.2)
            if key.endswith("layer_scalar"):
                value.uniform_(0.6, 1.4, generator=random)
    return model


def _fill(name: str, value: torch.Tensor, random: torch.Generator, known: Checkpoint) -> None:
    value.normal_(generator=random)
    plus_one = known.plus_one and "linear_attn" not in name
    if name.endswith("A_log"):
        value.sub_(2.0)  # some decay in a few rows, some in dozens
        return
    if name.endswith(("q_norm.weight", "k_norm.weight", "q_layernorm.weight", "k_layernorm.weight")):
        value.mul_(0.3).add_(known.peak - plus_one)
    elif "norm" in name and name.endswith(".weight"):
        value.mul_(0.3).add_(1.0 - plus_one)
    elif name.endswith("bias"):
        value.mul_(0.5)
    elif name.endswith("scale"):
        value.mul_(0.3).add_(1.0)
    elif name.endswith("router.proj.weight"):
        value.mul_(2.0)  # of rows that are normed to length 1
    elif "embed_tokens" not in name:
        peaked = "q_proj" in name or "k_proj" in name
        value.mul_((3.0 if peaked else 1.0) ** 0.5 * value.shape[-1] ** -0.5)


def save(path: Path, name: str, model: torch.nn.Module, **keys: object) -> Path:
    """The text of a model as a GGUF file. `keys` replace those of the family; dots are written as two underscores."""
    known, config = (CHECKPOINTS | OTHERS)[name], model.config.get_text_config()
    architecture = known.architecture or name
    texts, kinds, merges = tokens()
    ordinary = {
        "block_count": config.num_hidden_layers, "context_length": CONTEXT, "embedding_length": WIDTH,
        "feed_forward_length": FFN, "attention.head_count": HEADS, "attention.head_count_kv": KV,
        "attention.key_length": known.head, "attention.value_length": known.head,
        "attention.layer_norm_rms_epsilon": EPS,
        **known.keys, **{key.replace("__", "."): value for key, value in keys.items()},
    }  # fmt: skip
    metadata = {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        **{f"{architecture}.{key}": value for key, value in ordinary.items() if value is not None},
    }
    write(path, metadata, [NewTensor.of(key, value) for key, value in tensors(name, model).items()])
    return path


def tensors(name: str, model: torch.nn.Module) -> dict[str, Floats]:
    """The text's tensors under GGUF's names."""
    known = (CHECKPOINTS | OTHERS)[name]
    found = {target: np.array(values, np.float32) for target, values in known.made.items()}
    for key, value in model.state_dict().items():
        short = key.replace("model.language_model.", "").replace("model.", "", 1)
        if "visual" in key or "vision" in key or "projector" in key:
            continue
        array = value.numpy().astype(np.float32)
        if known.plus_one and "norm" in short and "linear_attn" not in short:
            array = array + 1
        array = known.change(short, array)
        if known.neighbours and re.search(r"[qk]_proj", short):
            array = array.reshape(-1, 2, known.head // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        found |= _experts(name, short, array) if ".experts." in short else {_rename(short, known.names): array}
    if model.config.get_text_config().tie_word_embeddings:
        found.pop("output.weight", None)
    return found


def _experts(family: str, name: str, array: Floats) -> dict[str, Floats]:
    """The layers of all experts, of which the class holds gate and up as one."""
    _, layer, rest = name.split(".", 2)
    kind = "bias" if rest.endswith("_bias") else "weight"
    if family == "gpt-oss" and kind == "weight":
        array = array.swapaxes(1, 2)
    if "down_proj" in rest:
        return {f"blk.{layer}.ffn_down_exps.{kind}": array}
    gate, up = (array[:, 0::2], array[:, 1::2]) if family == "gpt-oss" else np.split(array, 2, 1)
    return {f"blk.{layer}.ffn_gate_exps.{kind}": gate, f"blk.{layer}.ffn_up_exps.{kind}": up}


def _rename(name: str, names: dict[str, str]) -> str:
    whole = {"self_attn.sinks": "attn_sinks.weight", "mlp.gate.e_score_correction_bias": "exp_probs_b.bias"}
    if (rest := name.split(".", 2)[-1]) in whole:
        return f"blk.{name.split('.')[1]}.{whole[rest]}"
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        if rest in names:
            return f"blk.{layer}.{names[rest]}"
        part, kind = rest.rsplit(".", 1)
        return f"blk.{layer}.{names[part]}.{kind}"
    whole = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
             "embedding_norm": "token_embd_norm"}  # fmt: skip
    part, kind = name.rsplit(".", 1)
    return f"{(names | whole)[part]}.{kind}"


def embeddings(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """What the text model makes of ids, [1, rows, width]."""
    with torch.no_grad():
        return model.get_input_embeddings()(torch.tensor([ids]))


def run(model: torch.nn.Module, ids: list[int] | None = None, **inputs: object):
    """Everything that transformers tells of one pass."""
    if ids is not None:
        inputs["input_ids"] = torch.tensor([ids])
    with torch.inference_mode():
        return model(use_cache=False, **inputs)


def logits(model: torch.nn.Module, ids: list[int] | None = None, **inputs: object) -> Floats:
    return run(model, ids, **inputs).logits[0].numpy()
