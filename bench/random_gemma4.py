"""Writes a GGUF file of Gemma 4 E2B's shapes with random weights, so that speed can be measured without a download.

    python bench/random_gemma4.py FOLDER [--layers 35]

Its formats are those of Q4_K_M: two thirds of the file are the table of the layers' embeddings. See `random_llama`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Format
from gguf import GGUFWriter, LlamaFileType
from numpy.typing import NDArray
from random_llama import SEED, Tensor, created, has_more_bits, write_tensors, write_tokenizer

ARCHITECTURE = "gemma4"


@dataclass(frozen=True)
class Shapes:
    """Sizes of a decoder; the defaults are those of E2B. Every `period`-th layer sees everything."""

    layers: int = 35
    shared: int = 20
    width: int = 1536
    hidden: int = 6144
    heads: int = 8
    kv_heads: int = 1
    head: int = 256
    wide_head: int = 512
    narrow: int = 256
    window: int = 512
    period: int = 5
    vocabulary: int = 262_144
    context: int = 131_072

    @property
    def local(self) -> list[bool]:
        return [(i + 1) % self.period != 0 for i in range(self.layers)]

    def writes(self, layer: int) -> bool:
        """Whether a layer has keys of its own."""
        return layer < self.layers - self.shared

    def ffn(self, layer: int) -> int:
        return self.hidden if self.writes(layer) else 2 * self.hidden


def write(folder: Path, shapes: Shapes | None = None) -> Path:
    """Write it into `folder` unless it is there already; returns its path."""
    shapes = shapes or Shapes()
    path = folder / f"random-gemma4-{shapes.layers}x{shapes.width}.q4_k_m.gguf"
    with created(path, ARCHITECTURE) as writer:
        if writer is not None:
            _write_metadata(writer, shapes)
            write_tokenizer(writer, shapes.vocabulary)
            write_tensors(writer, dict(_plain(shapes)), list(_matrices(shapes)))
    return path


def _write_metadata(writer: GGUFWriter, shapes: Shapes) -> None:
    writer.add_name(f"Random Gemma 4, {shapes.layers} layers of {shapes.width}")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_quantization_version(2)
    writer.add_block_count(shapes.layers)
    writer.add_context_length(shapes.context)
    writer.add_embedding_length(shapes.width)
    writer.add_feed_forward_length([shapes.ffn(i) for i in range(shapes.layers)])
    writer.add_head_count(shapes.heads)
    writer.add_head_count_kv(shapes.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shapes.vocabulary)
    for name, value in {
        "attention.key_length": shapes.wide_head, "attention.value_length": shapes.wide_head,
        "attention.key_length_swa": shapes.head, "attention.value_length_swa": shapes.head,
        "attention.sliding_window": shapes.window, "attention.shared_kv_layers": shapes.shared,
        "rope.dimension_count": shapes.wide_head, "rope.dimension_count_swa": shapes.head,
        "embedding_length_per_layer_input": shapes.narrow,
    }.items():  # fmt: skip
        writer.add_uint32(f"{ARCHITECTURE}.{name}", value)
    for name, number in {"rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "final_logit_softcapping": 30.0}.items():
        writer.add_float32(f"{ARCHITECTURE}.{name}", number)
    writer.add_array(f"{ARCHITECTURE}.attention.sliding_window_pattern", shapes.local)


def _plain(shapes: Shapes) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Norms, scales and what is not quantised."""
    turned = shapes.wide_head // 8
    yield "rope_freqs.weight", np.float32([1.0] * turned + [1e30] * (shapes.wide_head // 2 - turned))
    yield "output_norm.weight", np.ones(shapes.width, np.float32)
    yield "per_layer_proj_norm.weight", np.ones(shapes.narrow, np.float32)
    random = np.random.default_rng(SEED)
    made = random.standard_normal((shapes.narrow * shapes.layers, shapes.width), np.float32)
    yield "per_layer_model_proj.weight", made.astype(np.float16)
    for i, local in enumerate(shapes.local):
        head = shapes.head if local else shapes.wide_head
        for name in ("attn", "post_attention", "ffn", "post_ffw", "post"):
            yield f"blk.{i}.{name}_norm.weight", np.ones(shapes.width, np.float32)
        for name in ("attn_q", "attn_k") if shapes.writes(i) else ("attn_q",):
            yield f"blk.{i}.{name}_norm.weight", np.full(head, 0.5, np.float32)
        yield f"blk.{i}.layer_output_scale.weight", np.ones(1, np.float32)


def _matrices(shapes: Shapes) -> Iterator[Tensor]:
    width = shapes.width
    yield Tensor("token_embd.weight", shapes.vocabulary, width, Format.Q6_K, 1 / math.sqrt(width))
    table = shapes.narrow * shapes.layers
    yield Tensor("per_layer_token_embd.weight", shapes.vocabulary, table, Format.Q6_K, 1 / math.sqrt(shapes.narrow))
    for i, local in enumerate(shapes.local):
        head = shapes.head if local else shapes.wide_head
        q, kv, hidden = shapes.heads * head, shapes.kv_heads * head, shapes.ffn(i)
        more = Format.Q6_K if has_more_bits(i, shapes.layers) else Format.Q4_K
        parts = [
            ("attn_q", q, width, Format.Q4_K), ("attn_output", width, q, Format.Q4_K),
            ("ffn_gate", hidden, width, Format.Q4_K), ("ffn_up", hidden, width, Format.Q4_K),
            ("ffn_down", width, hidden, more), ("inp_gate", shapes.narrow, width, Format.Q4_K),
            ("proj", width, shapes.narrow, Format.Q4_K),
        ]  # fmt: skip
        if shapes.writes(i):
            parts += [("attn_k", kv, width, Format.Q4_K), ("attn_v", kv, width, more)]
        for part, rows, columns, form in parts:
            yield Tensor(f"blk.{i}.{part}.weight", rows, columns, form, 1 / math.sqrt(columns))


def main() -> None:
    """Write the file and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=35)
    args = parser.parse_args()
    print(write(args.folder, Shapes(layers=args.layers)))


if __name__ == "__main__":
    main()
