"""Writes a GGUF file of Qwen3-30B-A3B's shapes in Q4_K_M with random weights and fewer layers, to measure speed.

    python bench/random_experts.py FOLDER [--layers 6] [--experts 128]

Each layer has 128 experts, of which a row passes through 8, and 360 MB. See `random_llama.py`: speed depends on shapes
and formats. Routers are random, too: rows of a prompt meet nearly all experts, those of an answer 8 each.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Format
from gguf import GGUFWriter
from gguf.quants import quant_shape_to_byte_shape
from random_llama import MIXES, Pool, Shapes, Tensor, created, has_more_bits, write_tokenizer

MIX = "q4_k_m"
SIZES = Shapes(
    layers=6, width=2048, hidden=6144, heads=32, kv_heads=4, head=128, vocabulary=151_936, context=40_960,
    rope_base=1e6, eps=1e-6,
)  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """Experts of a layer; the defaults are those published for Qwen3-30B-A3B."""

    experts: int = 128
    used: int = 8
    hidden: int = 768


def write(folder: Path, shapes: Shapes = SIZES, mixture: Mixture | None = None) -> Path:
    """Write the file into `folder` unless it is there already; returns its path."""
    mixture = mixture or Mixture()
    path = folder / f"random-experts-{shapes.layers}x{mixture.experts}.{MIX}.gguf"
    with created(path, "qwen3moe") as writer:
        if writer is not None:
            _write_metadata(writer, shapes, mixture)
            write_tokenizer(writer, shapes.vocabulary)
            _write_tensors(writer, shapes, mixture)
    return path


def _write_metadata(writer: GGUFWriter, shapes: Shapes, mixture: Mixture) -> None:
    writer.add_name(f"Random experts, {shapes.layers} layers of {mixture.experts}")
    writer.add_file_type(MIXES[MIX])
    writer.add_quantization_version(2)
    writer.add_block_count(shapes.layers)
    writer.add_context_length(shapes.context)
    writer.add_embedding_length(shapes.width)
    writer.add_feed_forward_length(shapes.hidden)
    writer.add_head_count(shapes.heads)
    writer.add_head_count_kv(shapes.kv_heads)
    writer.add_key_length(shapes.head)
    writer.add_value_length(shapes.head)
    writer.add_rope_freq_base(shapes.rope_base)
    writer.add_layer_norm_rms_eps(shapes.eps)
    writer.add_vocab_size(shapes.vocabulary)
    writer.add_expert_count(mixture.experts)
    writer.add_expert_used_count(mixture.used)
    writer.add_expert_feed_forward_length(mixture.hidden)


def _write_tensors(writer: GGUFWriter, shapes: Shapes, mixture: Mixture) -> None:
    floats, matrices = list(_floats(shapes, mixture)), list(_matrices(shapes, mixture))
    for name, values in floats:
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for m in matrices:
        size = quant_shape_to_byte_shape(_shape(m, mixture), m.format)
        writer.add_tensor_info(m.name, size, np.dtype(np.uint8), math.prod(size), raw_dtype=m.format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, values in floats:
        writer.write_tensor_data(values)
    pool = Pool()
    for m in matrices:
        writer.write_tensor_data(pool.take(m))


def _floats(shapes: Shapes, mixture: Mixture) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    yield "output_norm.weight", np.ones(shapes.width, np.float32)
    for i in range(shapes.layers):
        for kind, size in (
            ("attn", shapes.width),
            ("ffn", shapes.width),
            ("attn_q", shapes.head),
            ("attn_k", shapes.head),
        ):
            yield f"blk.{i}.{kind}_norm.weight", np.ones(size, np.float32)
        router = random.standard_normal((mixture.experts, shapes.width), np.float32) / math.sqrt(shapes.width)
        yield f"blk.{i}.ffn_gate_inp.weight", router


def _matrices(shapes: Shapes, mixture: Mixture) -> Iterator[Tensor]:
    width, hidden, base = shapes.width, mixture.hidden, Format.Q4_K
    q, kv, quiet = shapes.heads * shapes.head, shapes.kv_heads * shapes.head, 1 / math.sqrt(2 * shapes.layers)
    yield Tensor("token_embd.weight", shapes.vocabulary, width, base, 1.0)
    yield Tensor("output.weight", shapes.vocabulary, width, Format.Q6_K, 1 / math.sqrt(width))
    for i in range(shapes.layers):
        more = Format.Q6_K if has_more_bits(i, shapes.layers) else base
        for part, rows, columns, form, gain in (
            ("attn_q", q, width, base, 1.0),
            ("attn_k", kv, width, base, 1.0),
            ("attn_v", kv, width, more, 1.0),
            ("attn_output", width, q, base, quiet),
            ("ffn_gate_exps", mixture.experts * hidden, width, base, 1.0),
            ("ffn_up_exps", mixture.experts * hidden, width, base, 1.0),
            ("ffn_down_exps", mixture.experts * width, hidden, more, quiet),
        ):
            yield Tensor(f"blk.{i}.{part}.weight", rows, columns, form, gain / math.sqrt(columns))


def _shape(m: Tensor, mixture: Mixture) -> tuple[int, ...]:
    if "_exps" not in m.name:
        return m.rows, m.columns
    return mixture.experts, m.rows // mixture.experts, m.columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=SIZES.layers)
    parser.add_argument("--experts", type=int, default=Mixture.experts)
    args = parser.parse_args()
    print(write(args.folder, replace(SIZES, layers=args.layers), Mixture(experts=args.experts)))


if __name__ == "__main__":
    main()
