"""Writes a GGUF file of Qwen3.5-4B's shapes with random weights, so that speed can be measured without a download.

    python bench/random_qwen35.py FOLDER [--layers 32]

Its formats are those of Q4_K_M. See `random_llama`.
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
from random_llama import Tensor, created, has_more_bits, write_tensors, write_tokenizer

ARCHITECTURE = "qwen35"


@dataclass(frozen=True)
class Shapes:
    """Sizes of a decoder; the defaults are those of Qwen3.5-4B. Every `period`-th layer attends."""

    layers: int = 32
    period: int = 4
    width: int = 2560
    hidden: int = 9216
    heads: int = 16
    kv_heads: int = 4
    head: int = 256
    key_heads: int = 16
    value_heads: int = 32
    state: int = 128
    steps: int = 4
    vocabulary: int = 248_320
    context: int = 262_144

    @property
    def values(self) -> int:
        return self.value_heads * self.state

    @property
    def channels(self) -> int:
        return 2 * self.key_heads * self.state + self.values

    def attends(self, layer: int) -> bool:
        return (layer + 1) % self.period == 0


def write(folder: Path, shapes: Shapes | None = None) -> Path:
    """Write it into `folder` unless it is there already; returns its path."""
    shapes = shapes or Shapes()
    path = folder / f"random-qwen35-{shapes.layers}x{shapes.width}.q4_k_m.gguf"
    with created(path, ARCHITECTURE) as writer:
        if writer is not None:
            _write_metadata(writer, shapes)
            write_tokenizer(writer, shapes.vocabulary)
            write_tensors(writer, dict(_plain(shapes)), list(_matrices(shapes)))
    return path


def _write_metadata(writer: GGUFWriter, shapes: Shapes) -> None:
    writer.add_name(f"Random Qwen 3.5, {shapes.layers} layers of {shapes.width}")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_quantization_version(2)
    writer.add_block_count(shapes.layers)
    writer.add_context_length(shapes.context)
    writer.add_embedding_length(shapes.width)
    writer.add_feed_forward_length(shapes.hidden)
    writer.add_head_count(shapes.heads)
    writer.add_head_count_kv(shapes.kv_heads)
    writer.add_key_length(shapes.head)
    writer.add_value_length(shapes.head)
    writer.add_rope_dimension_count(shapes.head // 4)
    writer.add_rope_freq_base(1e7)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shapes.vocabulary)
    writer.add_array(f"{ARCHITECTURE}.rope.dimension_sections", [11, 11, 10, 0])
    for name, value in {
        "full_attention_interval": shapes.period, "ssm.conv_kernel": shapes.steps, "ssm.state_size": shapes.state,
        "ssm.group_count": shapes.key_heads, "ssm.time_step_rank": shapes.value_heads, "ssm.inner_size": shapes.values,
    }.items():  # fmt: skip
        writer.add_uint32(f"{ARCHITECTURE}.{name}", value)


def _plain(shapes: Shapes) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What is not quantised: norms, taps, rates of decay from a few rows to thousands."""
    yield "output_norm.weight", np.ones(shapes.width, np.float32)
    taps = np.tile(np.float32([0.1, 0.2, 0.3, 0.6]), (shapes.channels, 1))
    rates = -np.geomspace(1e-3, 1, shapes.value_heads, dtype=np.float32)
    for i in range(shapes.layers):
        for name in ("attn_norm", "post_attention_norm"):
            yield f"blk.{i}.{name}.weight", np.ones(shapes.width, np.float32)
        if shapes.attends(i):
            for name in ("attn_q_norm", "attn_k_norm"):
                yield f"blk.{i}.{name}.weight", np.ones(shapes.head, np.float32)
        else:
            yield f"blk.{i}.ssm_conv1d.weight", taps
            yield f"blk.{i}.ssm_a", rates
            yield f"blk.{i}.ssm_dt.bias", np.ones(shapes.value_heads, np.float32)
            yield f"blk.{i}.ssm_norm.weight", np.ones(shapes.state, np.float32)


def _matrices(shapes: Shapes) -> Iterator[Tensor]:
    width, q, kv = shapes.width, shapes.heads * shapes.head, shapes.kv_heads * shapes.head
    yield Tensor("token_embd.weight", shapes.vocabulary, width, Format.Q6_K, 1 / math.sqrt(width))
    for i in range(shapes.layers):
        more = Format.Q6_K if has_more_bits(i, shapes.layers) else Format.Q4_K
        parts = [
            ("ffn_gate", shapes.hidden, width, Format.Q4_K), ("ffn_up", shapes.hidden, width, Format.Q4_K),
            ("ffn_down", width, shapes.hidden, more),
        ]  # fmt: skip
        if shapes.attends(i):
            parts += [
                ("attn_q", 2 * q, width, Format.Q4_K), ("attn_k", kv, width, Format.Q4_K),
                ("attn_v", kv, width, more), ("attn_output", width, q, Format.Q4_K),
            ]  # fmt: skip
        else:
            parts += [
                ("attn_qkv", shapes.channels, width, Format.Q5_K), ("attn_gate", shapes.values, width, Format.Q4_K),
                ("ssm_alpha", shapes.value_heads, width, Format.Q4_K),
                ("ssm_beta", shapes.value_heads, width, Format.Q4_K),
                ("ssm_out", width, shapes.values, Format.Q4_K),
            ]  # fmt: skip
        for part, rows, columns, form in parts:
            quiet = 1 / math.sqrt(2 * shapes.layers) if rows == width else 1.0  # what is added to the stream
            yield Tensor(f"blk.{i}.{part}.weight", rows, columns, form, quiet / math.sqrt(columns))


def main() -> None:
    """Write the file and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    args = parser.parse_args()
    print(write(args.folder, Shapes(layers=args.layers)))


if __name__ == "__main__":
    main()
