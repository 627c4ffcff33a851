"""Writes GGUF pairs of SmolVLM-256M's shapes with random weights, so that speed can be measured without a download.

    python bench/random_smolvlm.py FOLDER [--text f16 q8_0] [--tower f16 q8_0 f32] [--outliers]

The text part has the tokens of SmolLM2 and, after them, the markers of pictures. The tower is SigLIP base: tiles of
512 pixels, patches of 16, squares of 4 x 4 patches become a row. A picture is one tile here, never cut, so that both
programs encode the same. Weights are scaled so that activations stay near 1; --outliers makes one output in 200 of the
tower's matrices 50 times as large, as a few channels of trained towers are. Queries and keys are left alone: with such
scores a patch sees one other, and which one changes when weights are rounded, however exact the arithmetic is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Format
from gguf import GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray
from ours import smollm2

from opsin.gguf import File

Floats = NDArray[np.float32]

FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
FORMATS = {"f32": Format.F32, "f16": Format.F16, "q8_0": Format.Q8_0}
SEED = 256
TOKENIZER = ("tokens", "token_type", "merges")  # that are taken from SmolLM2
OUTLIER_SHARE, OUTLIER_FACTOR = 1 / 200, 50


@dataclass(frozen=True)
class Text:
    """Sizes of the text part; the defaults are those published for SmolVLM-256M."""

    layers: int = 30
    width: int = 576
    hidden: int = 1536
    heads: int = 9
    kv_heads: int = 3
    vocabulary: int = 49_280
    context: int = 8192
    rope_base: float = 100_000.0
    eps: float = 1e-5


@dataclass(frozen=True)
class Tower:
    """Sizes of the part that sees; the defaults are those published for SmolVLM-256M."""

    layers: int = 12
    width: int = 768
    hidden: int = 3072
    heads: int = 12
    side: int = 512
    patch: int = 16
    fold: int = 4
    makes: int = 576
    eps: float = 1e-6

    @property
    def patches(self) -> int:
        """Of a tile."""
        return (self.side // self.patch) ** 2

    @property
    def rows(self) -> int:
        """That a tile becomes."""
        return self.patches // self.fold**2

    @property
    def products(self) -> int:
        """Multiplications and additions of a tile's matrix products with weights."""
        layer = 4 * self.width**2 + 2 * self.width * self.hidden
        last = self.rows * self.width * self.fold**2 * self.makes
        return 2 * (self.patches * (self.layers * layer + 3 * self.patch**2 * self.width) + last)


def write_text(folder: Path, form: str, shapes: Text | None = None) -> Path:
    """The text part in one of FORMATS, unless it is there already; returns its path."""
    shapes = shapes or Text()
    path = folder / f"random-smolvlm-256m.{form}.gguf"
    return path if path.exists() else _write(path, "llama", form, _text_keys(shapes), _text_tensors(shapes))


def write_tower(folder: Path, form: str, shapes: Tower | None = None, *, outliers: bool = False) -> Path:
    """The part that sees in one of FORMATS, unless it is there already; returns its path."""
    shapes = shapes or Tower()
    path = folder / f"mmproj-random-smolvlm-256m{'-outliers' if outliers else ''}.{form}.gguf"
    return path if path.exists() else _write(path, "clip", form, _tower_keys(shapes), _tower_tensors(shapes, outliers))


def _write(
    path: Path, architecture: str, form: str, keys: dict[str, Any], tensors: Iterator[tuple[str, Floats]]
) -> Path:
    """Matrices in the format, all else in f32, as published files have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, architecture)
    writer.add_file_type(FILE_TYPES[form])
    writer.add_quantization_version(2)
    for key, value in keys.items():
        _add(writer, key, value)
    for name, values in tensors:
        kept = values.ndim < 2 or name == "v.position_embd.weight"
        kind = Format.F32 if kept else Format.F16 if values.ndim > 2 and form == "q8_0" else FORMATS[form]
        data = quantize(values, kind) if kind is Format.Q8_0 else values.astype(np.float16 if kind == 1 else np.float32)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.replace(path)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders.get(type(value), writer.add_array)(key, value)


# --- metadata ------------------------------------------------------------------------------------------------------

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% if message['content'] is string %} {{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def _text_keys(shapes: Text) -> dict[str, Any]:
    with File.open(smollm2()) as file:
        known: dict[str, Any] = {key: file.metadata[f"tokenizer.ggml.{key}"] for key in TOKENIZER}
    tokens = [*map(str, known["tokens"])]
    marks = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    marks = ["<global-img>", *marks, "<fake_token_around_image>", "<image>"]
    spare = shapes.vocabulary - len(tokens) - len(marks) - 1
    added = [*marks, *(f"<|reserved_special_token_{i}|>" for i in range(spare)), "<end_of_utterance>"]
    kinds = [*(int(kind) for kind in known["token_type"]), *([int(TokenType.CONTROL)] * len(added))]
    return {
        "general.name": "Random SmolVLM-256M", "llama.block_count": shapes.layers,
        "llama.context_length": shapes.context, "llama.embedding_length": shapes.width,
        "llama.feed_forward_length": shapes.hidden, "llama.attention.head_count": shapes.heads,
        "llama.attention.head_count_kv": shapes.kv_heads, "llama.rope.freq_base": shapes.rope_base,
        "llama.rope.dimension_count": shapes.width // shapes.heads,
        "llama.attention.layer_norm_rms_epsilon": shapes.eps, "llama.vocab_size": shapes.vocabulary,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": [*tokens, *added],
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": [*map(str, known["merges"])],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": shapes.vocabulary - 1,
        "tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip


def _tower_keys(shapes: Tower) -> dict[str, Any]:
    see = {
        "image_size": shapes.side, "patch_size": shapes.patch, "embedding_length": shapes.width,
        "feed_forward_length": shapes.hidden, "block_count": shapes.layers, "projection_dim": shapes.makes,
        "attention.head_count": shapes.heads, "attention.layer_norm_epsilon": shapes.eps,
        "projector.scale_factor": shapes.fold, "preproc_image_size": shapes.side,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    return {
        "general.type": "mmproj", "general.name": "Random SmolVLM-256M", "clip.has_vision_encoder": True,
        "clip.projector_type": "idefics3", "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in see.items()},
    }  # fmt: skip


# --- tensors -------------------------------------------------------------------------------------------------------


class Dice:
    """Normal numbers drawn once and laid end to end; every tensor starts at another place."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(SEED)
        self._pool = self._random.standard_normal(4_000_037, np.float32)

    def draw(self, *shape: int, deviation: float) -> Floats:
        count, start = int(np.prod(shape)), int(self._random.integers(len(self._pool)))
        return (np.resize(np.roll(self._pool, -start), count) * np.float32(deviation)).reshape(shape)

    def matrix(self, outputs: int, inputs: int, gain: float = 1.0) -> Floats:
        """Scaled so that what comes out is `gain` times as large as what goes in."""
        return self.draw(outputs, inputs, deviation=gain * inputs**-0.5)

    def enlarge(self, matrix: Floats) -> None:
        """A few of its outputs."""
        count = max(1, round(len(matrix) * OUTLIER_SHARE))
        matrix[self._random.choice(len(matrix), count, replace=False)] *= OUTLIER_FACTOR


def _text_tensors(shapes: Text) -> Iterator[tuple[str, Floats]]:
    dice, width, kv = Dice(), shapes.width, shapes.width // shapes.heads * shapes.kv_heads
    quiet = (2 * shapes.layers) ** -0.5  # what is added to the stream, layer after layer
    yield "token_embd.weight", dice.draw(shapes.vocabulary, width, deviation=1.0)
    yield "output.weight", dice.matrix(shapes.vocabulary, width)
    yield "output_norm.weight", np.ones(width, np.float32)
    for i in range(shapes.layers):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{i}.{name}.weight", np.ones(width, np.float32)
        for name, outputs, inputs, gain in (
            ("attn_q", width, width, 1.0), ("attn_k", kv, width, 1.0), ("attn_v", kv, width, 1.0),
            ("attn_output", width, width, quiet), ("ffn_gate", shapes.hidden, width, 1.0),
            ("ffn_up", shapes.hidden, width, 1.0), ("ffn_down", width, shapes.hidden, quiet),
        ):  # fmt: skip
            yield f"blk.{i}.{name}.weight", dice.matrix(outputs, inputs, gain)


def _tower_tensors(shapes: Tower, outliers: bool) -> Iterator[tuple[str, Floats]]:
    dice, width, values = Dice(), shapes.width, 3 * shapes.patch**2
    quiet = (2 * shapes.layers) ** -0.5
    yield "v.patch_embd.weight", dice.matrix(width, values).reshape(width, 3, shapes.patch, shapes.patch)
    yield "v.patch_embd.bias", dice.draw(width, deviation=0.1)
    yield "v.position_embd.weight", dice.draw(shapes.patches, width, deviation=0.5)
    norms = ["v.post_ln", *(f"v.blk.{i}.{name}" for i in range(shapes.layers) for name in ("ln1", "ln2"))]
    for norm in norms:
        yield f"{norm}.weight", np.ones(width, np.float32)
        yield f"{norm}.bias", dice.draw(width, deviation=0.1)
    for i in range(shapes.layers):
        for name, outputs, inputs, gain in (
            ("attn_q", width, width, 1.0), ("attn_k", width, width, 1.0), ("attn_v", width, width, 1.0),
            ("attn_out", width, width, quiet), ("ffn_up", shapes.hidden, width, 1.0),
            ("ffn_down", width, shapes.hidden, quiet),
        ):  # fmt: skip
            matrix = dice.matrix(outputs, inputs, gain)
            if outliers and name not in ("attn_q", "attn_k"):
                dice.enlarge(matrix)
            yield f"v.blk.{i}.{name}.weight", matrix
            yield f"v.blk.{i}.{name}.bias", dice.draw(outputs, deviation=0.1)
    yield "mm.model.fc.weight", dice.matrix(shapes.makes, width * shapes.fold**2)


def main() -> None:
    """Write the files asked for and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", nargs="*", choices=FORMATS, default=["f16", "q8_0"])
    parser.add_argument("--tower", nargs="*", choices=FORMATS, default=["f16", "q8_0"])
    parser.add_argument("--outliers", action="store_true")
    args = parser.parse_args()
    for form in args.text:
        print(write_text(args.folder, form))
    for form in args.tower:
        print(write_tower(args.folder, form, outliers=args.outliers))


if __name__ == "__main__":
    main()
