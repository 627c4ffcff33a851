"""Writes a GGUF file of Qwen3.5-4B's shapes with random weights, so that speed can be measured without a download.

    python bench/random_qwen35.py FOLDER [--layers 32] [--right 0.85]

Its formats are those of Q4_K_M. See `random_llama`. With `--right` a layer guesses the token after the next
(multi-token prediction), rightly in that share of cases: layers add nothing to embeddings, whose likeliest next token
is the next one by number, and so it is for that layer, but behind some of the tokens.
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

from opsin.quants import BY_NAME

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
    right: float | None = None  # of what a layer that guesses says; None for no such layer

    @property
    def values(self) -> int:
        return self.value_heads * self.state

    @property
    def channels(self) -> int:
        return 2 * self.key_heads * self.state + self.values

    @property
    def stored(self) -> int:
        """Layers, with one that guesses."""
        return self.layers + (self.right is not None)

    def attends(self, layer: int) -> bool:
        return (layer + 1) % self.period == 0 or layer == self.layers


def write(folder: Path, shapes: Shapes | None = None) -> Path:
    """Write it into `folder` unless it is there already; returns its path."""
    shapes = shapes or Shapes()
    guesses = "" if shapes.right is None else f"-mtp-{shapes.right}"
    path = folder / f"random-qwen35-{shapes.layers}x{shapes.width}{guesses}.q4_k_m.gguf"
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
    writer.add_block_count(shapes.stored)
    if shapes.right is not None:
        writer.add_nextn_predict_layers(1)
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
    for name in () if shapes.right is None else ("enorm", "hnorm", "shared_head_norm"):
        yield f"blk.{shapes.layers}.nextn.{name}.weight", np.ones(shapes.width, np.float32)
    for i in range(shapes.stored):
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
    if shapes.right is None:
        yield Tensor("token_embd.weight", shapes.vocabulary, width, Format.Q6_K, 1 / math.sqrt(width))
    else:
        yield from _telling(shapes, shapes.right)
    for i in range(shapes.stored):
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
            if rows == width and shapes.right is not None:
                quiet = 0.0
            yield Tensor(f"blk.{i}.{part}.weight", rows, columns, form, quiet / math.sqrt(columns))


CODES = 512  # a token's embedding is one of so many codes for its number's end, beside one for its beginning


def _telling(shapes: Shapes, right: float) -> Iterator[Tensor]:
    """Tables by which the next token is the next by number, and those of a layer that says the same, mostly."""
    width, numbers = shapes.width, np.arange(shapes.vocabulary)
    codes = np.random.default_rng(SEED).choice(np.float32([-1, 1]), (2, CODES, width // 2))
    encode = BY_NAME["Q6_K"].encode
    assert encode is not None
    blocks = encode(codes.reshape(-1, 256)).reshape(2, CODES, -1)

    def table(name: str, ids: NDArray[np.int64]) -> Tensor:
        def made() -> NDArray[np.uint8]:
            return np.concatenate([blocks[0, ids % CODES], blocks[1, ids // CODES]], axis=1)

        return Tensor(name, shapes.vocabulary, width, Format.Q6_K, 1.0, made)

    def passing() -> NDArray[np.uint8]:
        kind = BY_NAME["Q8_0"]
        assert kind.encode is not None
        return kind.encode(np.eye(width, 2 * width, dtype=np.float32).reshape(-1, 32)).reshape(width, -1)

    wrong = numbers * 7919 % 1000 >= 1000 * right
    beside = f"blk.{shapes.layers}.nextn"
    yield table("token_embd.weight", numbers)
    yield table("output.weight", (numbers - 1) % shapes.vocabulary)
    yield table(f"{beside}.embed_tokens.weight", np.where(wrong, (numbers + 100) % shapes.vocabulary, numbers))
    yield Tensor(f"{beside}.eh_proj.weight", width, 2 * width, Format.Q8_0, 1.0, passing)


def main() -> None:
    """Write the file and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--right", type=float, help="with a layer that guesses, which is right so often")
    args = parser.parse_args()
    print(write(args.folder, Shapes(layers=args.layers, right=args.right)))


if __name__ == "__main__":
    main()
