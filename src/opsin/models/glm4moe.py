"""GLM 4.5 and 4.6: the first layers have one feed-forward part, the others experts and one that all rows share.

Scores are sigmoids; a bias changes who is chosen, and shares add up to a factor. Half of a head turns, by three
positions where a file has sections of M-RoPE (GLM-4.5V and 4.6V). A layer behind the others may guess the token after
the next.

GGUF: general.architecture = "glm4moe". Oracle: transformers' Glm4MoeForCausalLM.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.text_rules import EXPERT_KEYS, KEYS, NEXT_TOKEN_KEYS, expert_tensors, head_width, tensors
from opsin.nn.decoder import PreNormDecoder, written_layers
from opsin.nn.module import FirstLayers, Reader
from opsin.nn.next_token import GuessingDecoder

SIGMOID = 2  # GGUF's number of the gating


def _turned(settings: Settings) -> int:
    """Values of a head that turn."""
    share = settings.get("rope_parameters.partial_rotary_factor|partial_rotary_factor", "float", 0.5)
    assert isinstance(share, float)
    return int(head_width(settings) * share)


def load(file: File, source: Reader) -> PreNormDecoder:
    first = FirstLayers(source, written_layers(file, "glm4moe"))
    planes = bool(file.get_ints("glm4moe.rope.dimension_sections", ()).any())
    decoder = PreNormDecoder.load(file, first, "glm4moe", pairing="halves", mrope=planes, gating=SIGMOID)
    return GuessingDecoder.around(decoder, file, source, "glm4moe")


DECODERS = {"glm4moe": load}
_PART = "layers.{n}.mlp"
_NEXT_TOKEN = {name: name for name in ("eh_proj", "enorm", "hnorm", "embed_tokens")} | {
    "shared_head.norm": "shared_head_norm", "shared_head.head": "shared_head_head",
}  # fmt: skip
RULES = (
    Rules(
        part="text",
        architecture="glm4moe",
        classes=("Glm4MoeForCausalLM",),
        types=("glm4_moe",),
        next_token="layers.{n}.eh_proj",
        assumed={"hidden_act": "silu"},
        keys=(
            *KEYS,
            *NEXT_TOKEN_KEYS,
            *EXPERT_KEYS,
            Key("glm4moe.rope.dimension_count", _turned),
            Key("glm4moe.leading_dense_block_count", "first_k_dense_replace", "int", 1),
            Key("glm4moe.expert_shared_count", "n_shared_experts", "int", 1),
            constant("glm4moe.expert_gating_func", SIGMOID, "int"),
            Key("glm4moe.expert_weights_norm", "norm_topk_prob", "bool", True),
            Key("glm4moe.expert_weights_scale", "routed_scaling_factor", "float", 1.0),
            Key("glm4moe.expert_group_count", "n_group", "int", 1),
            Key("glm4moe.expert_group_used_count", "topk_group", "int", 1),
        ),
        tensors=(
            *tensors(),
            Tensor("layers.{n}.post_attention_layernorm", "blk.{n}.post_attention_norm"),
            *expert_tensors(),
            Tensor(f"{_PART}.gate.e_score_correction_bias", "blk.{n}.exp_probs_b.bias"),
            *(
                Tensor(f"{_PART}.shared_experts.{part}_proj", f"blk.{{n}}.ffn_{part}_shexp")
                for part in ("gate", "up", "down")
            ),
            *(Tensor(f"layers.{{n}}.{theirs}", f"blk.{{n}}.nextn.{ours}") for theirs, ours in _NEXT_TOKEN.items()),
        ),
    ),
)
