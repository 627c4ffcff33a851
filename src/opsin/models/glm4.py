"""GLM 4: the common decoder with norms behind each part as well; half of each head turns, gate and up are one matrix.

Where a file has sections of M-RoPE (GLM-4.1V, GLM-OCR), halves turn by three positions; else neighbouring pairs do.

GGUF: general.architecture = "glm4". Oracle: transformers' Glm4ForCausalLM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

from opsin.gguf import File
from opsin.gguf.rules import Key, Tensor
from opsin.gguf.text_rules import pre_norm_rules, tensors, turned
from opsin.nn.batch import Batch
from opsin.nn.decoder import PreNormBlock, PreNormDecoder, PreNormWeights, Tables, written_layers
from opsin.nn.ffn import GatedFfn
from opsin.nn.module import FirstLayers, Reader, at
from opsin.nn.parts import RmsNorm
from opsin.ops import Array

NAME = "glm4"


class Glm4Block(PreNormBlock):
    post_attention_norm: RmsNorm
    ffn_norm: RmsNorm  # type: ignore[assignment]  # never the one after attention: it has that, too
    ffn: Annotated[GatedFfn, at("")]
    post_ffw_norm: RmsNorm


class Glm4Weights(PreNormWeights):
    blk: list[Glm4Block]  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Glm4(PreNormDecoder):
    WEIGHTS: ClassVar[type[PreNormWeights]] = Glm4Weights

    @classmethod
    def of(cls, file: File, source: Reader) -> Glm4:
        """The decoder of a file."""
        source = FirstLayers(source, written_layers(file, NAME))
        planes = bool(file.get_ints(f"{NAME}.rope.dimension_sections", ()).any())
        return cls.load(file, source, NAME, pairing="halves" if planes else "neighbours", mrope=planes)

    def _block(self, block: PreNormBlock, x: Array, batch: Batch, layer: int, tables: Tables | None) -> Array:
        assert isinstance(block, Glm4Block)
        x = batch.going_on(x) + block.post_attention_norm(self._attend(block, x, batch, layer, tables), self.eps)
        x = x + block.post_ffw_norm(block.ffn(block.ffn_norm(x, self.eps), "silu"), self.eps)
        return batch.tap(f"blk.{layer}.out", x)


DECODERS = {"glm4": Glm4.of}
RULES = (
    replace(
        pre_norm_rules(
            NAME, ("Glm4ForCausalLM",), ("glm4",), Key("{arch}.rope.dimension_count", partial(turned, share=0.5))
        ),
        assumed={"hidden_act": "silu"},
        tensors=(
            *tensors(),
            Tensor("layers.{n}.post_self_attn_layernorm", "blk.{n}.post_attention_norm"),
            Tensor("layers.{n}.post_attention_layernorm", "blk.{n}.ffn_norm"),
            Tensor("layers.{n}.post_mlp_layernorm", "blk.{n}.post_ffw_norm"),
            Tensor("layers.{n}.mlp.gate_up_proj", "blk.{n}.ffn_up"),
        ),
        defaults={
            "vocab_size": 151552, "max_position_embeddings": 131072, "hidden_size": 4096, "intermediate_size": 13696,
            "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
            "rms_norm_eps": 1.5625e-7,
        },
    ),
)  # fmt: skip
