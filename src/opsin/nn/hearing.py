"""Towers that hear: convolutions over log-mel frames, then ordinary layers, as GGUF's `a.*` tensors.

The encoder of Radford et al. 2022 (arXiv 2212.04356), with which many models of sound begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.vit import VitBlock, VitShape, attention_spans
from opsin.ops import Array, Ops, most

KERNEL = 3  # frames that a convolution sees
MOST_FRAMES = 1 << 15  # a tower hears at once
_MOST_BANDS = 1 << 10


class MovedConv(Linear):
    """A convolution whose inputs lie frame by frame, where files have them band by band."""

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        def by_frames(values: Floats) -> Floats:
            return values.reshape(len(values), -1, KERNEL).swapaxes(1, 2).reshape(values.shape)

        part = cls.__new__(cls)
        part._path, part.weight = path, source.weight(f"{path}.weight", change=by_frames)
        part.bias = source.ops.constant(source.values(f"{path}.bias").reshape(-1))
        return part


class HearingWeights(Module):
    conv1: Annotated[Linear, at("conv1d.1")]
    conv2: Annotated[MovedConv, at("conv1d.2")]
    blk: list[VitBlock]
    post_ln: LayerNorm


@dataclass(frozen=True, eq=False)
class HearingTower:
    """Log-mel frames in, half as many states out.

    Attributes:
        bands: of a frame.
        rows: states that the longest window of sound becomes.
        positions: [rows, width], added to what the convolutions give.
    """

    ops: Ops
    weights: HearingWeights
    shape: VitShape
    bands: int
    rows: int
    positions: Array

    @classmethod
    def load(cls, file: File, source: Reader) -> HearingTower:
        """Read `a.*` and `clip.audio.*`. Raises ModelError, naming what does not fit."""
        weights, shape, bands = HearingWeights.read(source, "a"), hearing_shape(file), bands_of(file)
        table = source.values("a.position_embd.weight")
        if table.ndim != 2 or table.shape[1] != shape.width or not 0 < 2 * len(table) <= MOST_FRAMES:
            raise ModelError(f"a.position_embd.weight is {table.shape}; [rows, {shape.width}] is needed")
        if len(weights.blk) != shape.layers:
            raise ModelError(f"{file.path} holds {len(weights.blk)} of its {shape.layers} layers that hear")
        weights.conv1.check(KERNEL * bands, shape.width)
        weights.conv2.check(KERNEL * shape.width, shape.width)
        weights.post_ln.check(shape.width)
        for block in weights.blk:
            block.check(shape)
        return cls(source.ops, weights, shape, bands, len(table), source.ops.constant(table))

    @property
    def frames(self) -> int:
        """Frames of the longest window of sound: two become a row."""
        return 2 * self.rows

    def encode(self, logs: Floats) -> Array:
        """Frames [windows, frames, bands] on the host -> [windows * rows, width], a row for two frames or the last."""
        x = self.run(self.embed(logs), len(logs))
        return self.weights.post_ln(x, self.shape.eps)

    def embed(self, logs: Floats) -> Array:
        """What the convolutions make of frames, with positions: the tower's first state. Beyond a window is nothing."""
        ops, (windows, frames, _) = self.ops, logs.shape
        padded = np.pad(logs, ((0, 0), (1, 1), (0, 0)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, KERNEL, axis=1)  # [windows, frames, bands, 3]
        given = np.ascontiguousarray(seen).reshape(windows * frames, KERNEL * self.bands)
        x = self.weights.conv1(ops.constant(given), activation="gelu_erf")
        places, beyond = _second_places(windows, frames)
        nothing = ops.constant(np.zeros((1, self.shape.width), np.float32))
        three = ops.put(ops.take(x, ops.constant(places)), nothing, ops.constant(beyond))
        which = np.tile(np.arange(-(-frames // 2), dtype=np.int32), windows)
        positions = ops.take(self.positions, ops.constant(which))
        return self.weights.conv2(ops.fold(three, KERNEL), positions, "gelu_erf")

    def run(self, x: Array, windows: int) -> Array:
        """All layers: the rows of a window see each other."""
        spans = attention_spans(self.ops, [0, most(x.shape[0]) // windows], windows)
        for block in self.weights.blk:
            x = block(x, spans, None, self.shape)
        return x


def first_rows(x: Array, windows: int, count: int) -> Array:
    """The first rows of each window of [windows * rows, width]."""
    rows = most(x.shape[0]) // windows
    if count == rows:
        return x
    places = (np.arange(windows)[:, None] * rows + np.arange(count)).reshape(-1).astype(np.int32)
    return x.ops.take(x, x.ops.constant(places))


def filled(x: Array, windows: int, k: int) -> Array:
    """States [windows * rows, width] with nothing behind those of each window, up to a whole number of k rows."""
    rows = most(x.shape[0]) // windows
    whole = -(-rows // k) * k
    if whole == rows:
        return x
    inside = np.minimum(np.arange(whole), rows - 1)
    places = (np.arange(windows)[:, None] * rows + inside).reshape(-1).astype(np.int32)
    beyond = np.tile(np.where(np.arange(whole) < rows, -1, 0), windows).astype(np.int32)
    nothing = x.ops.constant(np.zeros((1, x.width), np.float32))
    return x.ops.put(x.ops.take(x, x.ops.constant(places)), nothing, x.ops.constant(beyond))


def _second_places(windows: int, frames: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], ...]:
    """The frames that each row of the second convolution sees, and where one of them is none: 0, else -1.

    Row i sees the frames 2i - 1, 2i and 2i + 1.
    """
    seen = (np.arange(0, frames, 2)[:, None] + np.arange(-1, 2)).reshape(-1)
    inside = np.clip(seen, 0, frames - 1)
    places = (np.arange(windows)[:, None] * frames + inside).reshape(-1).astype(np.int32)
    beyond = np.where(seen == inside, -1, 0).astype(np.int32)
    return places, np.tile(beyond, windows)


def bands_of(file: File) -> int:
    """Of a log-mel frame. Raises ModelError for more than anybody hears."""
    bands = positive_int(file, "clip.audio.num_mel_bins")
    if bands > _MOST_BANDS:
        raise ModelError(f"{file.path}: clip.audio.num_mel_bins is {bands}", hint="the file is damaged")
    return bands


def hearing_shape(file: File) -> VitShape:
    """What `clip.audio.*` says of a tower's layers. Raises ModelError for numbers that do not go together."""
    width, count = (
        positive_int(file, "clip.audio.embedding_length"),
        positive_int(file, "clip.audio.attention.head_count"),
    )
    if width % count:
        raise ModelError(f"{file.path}: clip.audio.attention.head_count is {count}, of {width} values")
    return VitShape(
        width=width,
        layers=positive_int(file, "clip.audio.block_count"),
        heads=Heads(count, count, width // count, (width // count) ** -0.5),
        patch=1,
        side=1,
        eps=positive_float(file, "clip.audio.attention.layer_norm_epsilon"),
        norm="layer",
        activation="gelu_erf",
    )
