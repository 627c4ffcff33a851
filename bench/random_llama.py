"""Writes GGUF files of Llama-3.2-1B's shapes with random weights, so that speed can be measured without a download.

    python bench/random_llama.py FOLDER [--mix q4_k_m q4_0 q8_0] [--layers 16]

Speed depends on shapes and formats, not on what a model knows. The weights are scaled so that activations stay
near 1, and every block is a valid block of its format. It knows nothing of how any of these formats is computed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Format
from gguf import GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quant_shape_to_byte_shape
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

MIXES = {
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
}
BLOCKS = 131_101  # distinct blocks a format; odd and above the vocabulary, so that no two rows of a tensor are equal
SEED = 20_240_925


@dataclass(frozen=True)
class Shapes:
    """Sizes of a decoder of the llama family; the defaults are those published for Llama-3.2-1B."""

    layers: int = 16
    width: int = 2048
    hidden: int = 8192
    heads: int = 32
    kv_heads: int = 8
    head: int = 64
    vocabulary: int = 128_256
    context: int = 131_072
    rope_base: float = 500_000.0
    eps: float = 1e-5


@dataclass(frozen=True)
class Tensor:
    """A matrix [rows, columns] to fill with random blocks of the wanted standard deviation, or with what is `made`."""

    name: str
    rows: int
    columns: int
    format: Format
    deviation: float
    made: Callable[[], Bytes] | None = None


@contextmanager
def created(path: Path, architecture: str) -> Iterator[GGUFWriter | None]:
    """A writer of the file, which stands under its name once it is whole; None where it is there already."""
    if path.exists():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, architecture)
    yield writer
    writer.close()
    partial.replace(path)


def write(folder: Path, mix: str, shapes: Shapes | None = None) -> Path:
    """Write `mix` into `folder` unless the file is there already; returns its path."""
    shapes = shapes or Shapes()
    path = folder / f"random-llama-{shapes.layers}x{shapes.width}.{mix}.gguf"
    with created(path, "llama") as writer:
        if writer is not None:
            _write_metadata(writer, shapes, mix)
            write_tokenizer(writer, shapes.vocabulary)
            _write_tensors(writer, shapes, mix)
    return path


def _write_metadata(writer: GGUFWriter, shapes: Shapes, mix: str) -> None:
    writer.add_name(f"Random llama, {shapes.layers} layers of {shapes.width}")
    writer.add_file_type(MIXES[mix])
    writer.add_quantization_version(2)
    writer.add_block_count(shapes.layers)
    writer.add_context_length(shapes.context)
    writer.add_embedding_length(shapes.width)
    writer.add_feed_forward_length(shapes.hidden)
    writer.add_head_count(shapes.heads)
    writer.add_head_count_kv(shapes.kv_heads)
    writer.add_key_length(shapes.head)
    writer.add_value_length(shapes.head)
    writer.add_rope_dimension_count(shapes.head)
    writer.add_rope_freq_base(shapes.rope_base)
    writer.add_layer_norm_rms_eps(shapes.eps)
    writer.add_vocab_size(shapes.vocabulary)


# --- tokenizer ---------------------------------------------------------------------------------------------------

SPECIAL = 256  # the last tokens are control tokens, as in the real vocabulary
EOT = 9
NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    EOT: "<|eot_id|>",
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def write_tokenizer(writer: GGUFWriter, vocabulary: int) -> None:
    """A vocabulary of so many tokens: bytes, words of letters, and control tokens."""
    merged = list(itertools.islice(_merged_tokens(), vocabulary - SPECIAL - 256))
    special = [NAMED.get(i, f"<|reserved_{i}|>") for i in range(SPECIAL)]
    tokens = [*_byte_tokens(), *merged, *special]
    first = len(tokens) - SPECIAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([int(TokenType.NORMAL)] * first + [int(TokenType.CONTROL)] * SPECIAL)
    writer.add_token_merges([f"{token[:-1]} {token[-1]}" for token in merged])
    writer.add_bos_token_id(first)
    writer.add_eos_token_id(first + EOT)
    writer.add_eot_token_id(first + EOT)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)


def _byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE spells them: visible Latin-1 as itself, the rest from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = itertools.count(0x100)
    return [chr(b) if b in visible else chr(next(hidden)) for b in range(256)]


def _merged_tokens() -> Iterator[str]:
    """Two letters, three, four ...: each is one merge of an earlier token and a letter."""
    for length in itertools.count(2):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


# --- tensors -----------------------------------------------------------------------------------------------------


def _write_tensors(writer: GGUFWriter, shapes: Shapes, mix: str) -> None:
    norms = ["output_norm.weight"]
    norms += [f"blk.{i}.{kind}_norm.weight" for i in range(shapes.layers) for kind in ("attn", "ffn")]
    plain = {"rope_freqs.weight": rope_factors(shapes), **dict.fromkeys(norms, np.ones(shapes.width, np.float32))}
    write_tensors(writer, plain, list(_matrices(shapes, mix)))


def write_tensors(
    writer: GGUFWriter, plain: Mapping[str, NDArray[np.generic]], matrices: Sequence[Tensor]
) -> None:  # fmt: skip
    """The rest of a file: tensors as they are, then random matrices."""
    for name, values in plain.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for m in matrices:
        size = quant_shape_to_byte_shape((m.rows, m.columns), m.format)
        writer.add_tensor_info(m.name, size, np.dtype(np.uint8), math.prod(size), raw_dtype=m.format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in plain.values():
        writer.write_tensor_data(values)
    pool = Pool()
    for m in matrices:
        writer.write_tensor_data(pool.take(m) if m.made is None else m.made())


def _matrices(shapes: Shapes, mix: str) -> Iterator[Tensor]:
    base = {"q4_k_m": Format.Q4_K, "q4_0": Format.Q4_0, "q8_0": Format.Q8_0}[mix]
    tied = Format.Q8_0 if mix == "q8_0" else Format.Q6_K  # an embedding that is also the output keeps more bits
    width, hidden, q, kv = shapes.width, shapes.hidden, shapes.heads * shapes.head, shapes.kv_heads * shapes.head
    quiet = 1 / math.sqrt(2 * shapes.layers)  # what is added to the stream, layer after layer
    yield Tensor("token_embd.weight", shapes.vocabulary, width, tied, 1 / math.sqrt(width))
    for i in range(shapes.layers):
        more = Format.Q6_K if mix == "q4_k_m" and has_more_bits(i, shapes.layers) else base
        for part, rows, columns, form, gain in (
            ("attn_q", q, width, base, 1.0),
            ("attn_k", kv, width, base, 1.0),
            ("attn_v", kv, width, more, 1.0),
            ("attn_output", width, q, base, quiet),
            ("ffn_gate", hidden, width, base, 1.0),
            ("ffn_up", hidden, width, base, 1.0),
            ("ffn_down", width, hidden, more, quiet),
        ):
            yield Tensor(f"blk.{i}.{part}.weight", rows, columns, form, gain / math.sqrt(columns))


def has_more_bits(layer: int, layers: int) -> bool:
    """Layers whose attn_v and ffn_down a Q4_K_M file stores as Q6_K: both ends, and every third between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def rope_factors(shapes: Shapes) -> NDArray[np.float32]:
    """What each rotation frequency is divided by: llama3 scaling with factor 32, bands 1 and 4, trained on 8192."""
    factor, low, high, trained = 32.0, 1.0, 4.0, 8192
    pairs = np.arange(0, shapes.head, 2, dtype=np.float64)
    turns = trained / (2 * math.pi * shapes.rope_base ** (pairs / shapes.head))  # whole turns in the trained context
    blend = np.clip((turns - low) / (high - low), 0, 1)
    factors: NDArray[np.float32] = (1 / ((1 - blend) / factor + blend)).astype(np.float32)
    return factors


class Pool:
    """Random blocks of each format, made once and laid end to end; every tensor starts at another place."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(SEED)
        self._blocks: dict[Format, Bytes] = {}

    def take(self, tensor: Tensor) -> Bytes:
        """Blocks for the whole tensor, [rows, bytes a row]."""
        makers: dict[Format, Callable[[np.random.Generator], Bytes]] = {
            Format.Q4_0: _blocks_q4_0,
            Format.Q8_0: _blocks_q8_0,
            Format.Q4_K: _blocks_q4_k,
            Format.Q5_K: _blocks_q5_k,
            Format.Q6_K: _blocks_q6_k,
        }
        if tensor.format not in self._blocks:
            self._blocks[tensor.format] = makers[tensor.format](self._random)
        blocks = _scaled(self._blocks[tensor.format], tensor)
        start = int(self._random.integers(BLOCKS))
        size = quant_shape_to_byte_shape((tensor.rows, tensor.columns), tensor.format)
        return np.resize(np.roll(blocks, -start, axis=0), math.prod(size)).reshape(size)


def _scaled(blocks: Bytes, tensor: Tensor) -> Bytes:
    """The same blocks with their f16 scales multiplied by the tensor's deviation."""
    first, count = {Format.Q6_K: (208, 1), Format.Q4_K: (0, 2), Format.Q5_K: (0, 2)}.get(tensor.format, (0, 1))
    scaled = blocks.copy()
    scales = np.ascontiguousarray(scaled[:, first : first + 2 * count]).view(np.float16)
    scales = (scales.astype(np.float32) * tensor.deviation).astype(np.float16)
    scaled[:, first : first + 2 * count] = scales.view(np.uint8)
    return scaled


def _normal(random: np.random.Generator, count: int, *, deviation: float, low: int, high: int) -> NDArray[np.int16]:
    """Rounded normal numbers [BLOCKS, count] around the (upper) middle of low..high, clipped to it."""
    drawn = random.standard_normal((BLOCKS, count), dtype=np.float32) * deviation + (low + high + 1) // 2
    clipped: NDArray[np.int16] = np.clip(np.rint(drawn), low, high).astype(np.int16)
    return clipped


def _halves(random: np.random.Generator, unit: float) -> NDArray[np.float16]:
    """One f16 a block [BLOCKS, 1] around `unit`."""
    return (random.uniform(0.8, 1.2, (BLOCKS, 1)) * unit).astype(np.float16)


def _joined(*parts: NDArray[np.generic]) -> Bytes:
    return np.concatenate([np.ascontiguousarray(p).view(np.uint8).reshape(BLOCKS, -1) for p in parts], axis=1)


def _nibbles(q: NDArray[np.int16], group: int) -> Bytes:
    """Pairs of 4-bit numbers in a byte: the first half of each group low, the second half high."""
    pairs = q.reshape(BLOCKS, -1, 2, group // 2)
    return (pairs[:, :, 0] | pairs[:, :, 1] << 4).astype(np.uint8).reshape(BLOCKS, -1)


def _blocks_q4_0(random: np.random.Generator) -> Bytes:
    """f16 scale, 32 nibbles; weight = scale * (q - 8)."""
    return _joined(_halves(random, 1 / 3), _nibbles(_normal(random, 32, deviation=3, low=0, high=15), 32))


def _blocks_q8_0(random: np.random.Generator) -> Bytes:
    """f16 scale, 32 signed bytes."""
    return _joined(_halves(random, 1 / 45), _normal(random, 32, deviation=45, low=-127, high=127).astype(np.int8))


def _blocks_q4_k(random: np.random.Generator) -> Bytes:
    """f16 scale and minimum of 256, 8 pairs of 6-bit scale and minimum, 256 nibbles; minimum = 8 scales, so mean 0."""
    scale = _halves(random, 1 / (3 * 44))
    six = random.integers(25, 64, (BLOCKS, 8)).astype(np.uint8)
    low, high = six[:, :4], six[:, 4:]
    tops = (high >> 4) << 6
    packed = [low | tops, low | tops, (high & 15) | (high & 15) << 4]  # scales, minimums, what is left of 4..7
    quants = _nibbles(_normal(random, 256, deviation=3, low=0, high=15), 64)
    return _joined(scale, scale * np.float16(8), *packed, quants)


def _blocks_q5_k(random: np.random.Generator) -> Bytes:
    """As q4_k with a fifth bit of each number, 32 bytes of them before the nibbles; minimum = 16 scales, so mean 0."""
    scale = _halves(random, 1 / (6 * 44))
    six = random.integers(25, 64, (BLOCKS, 8)).astype(np.uint8)
    low, high = six[:, :4], six[:, 4:]
    tops = (high >> 4) << 6
    packed = [low | tops, low | tops, (high & 15) | (high & 15) << 4]
    q = _normal(random, 256, deviation=6, low=0, high=31)
    fifths = np.bitwise_or.reduce((q >> 4).reshape(BLOCKS, 8, 32) << np.arange(8)[:, None], axis=1)
    return _joined(scale, scale * np.float16(16), *packed, fifths.astype(np.uint8), _nibbles(q & 15, 64))


def _blocks_q6_k(random: np.random.Generator) -> Bytes:
    """128 low nibbles, 64 high pairs of bits, 16 signed scales, f16 scale; weight = scale * s * (q - 32)."""
    q = _normal(random, 256, deviation=10, low=0, high=63).reshape(BLOCKS, 2, 4, 32)
    lows = (q[:, :, :2] & 15) | (q[:, :, 2:] & 15) << 4
    highs = sum(q[:, :, i] >> 4 << 2 * i for i in range(4))
    scales = (random.integers(64, 128, (BLOCKS, 16)) * random.choice((-1, 1), (BLOCKS, 16))).astype(np.int8)
    return _joined(lows.astype(np.uint8), np.asarray(highs, np.uint8), scales, _halves(random, 1 / (10 * 96)))


def main() -> None:
    """Write the files asked for and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mix", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--layers", type=int, default=16, help="28 makes q8_0 a file of about 2 GB")
    args = parser.parse_args()
    for mix in args.mix:
        print(write(args.folder, mix, Shapes(layers=args.layers)))


if __name__ == "__main__":
    main()
