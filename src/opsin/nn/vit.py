"""Towers: transformers whose rows are patches of pictures (Dosovitskiy et al. 2021), as GGUF's `v.*` tensors.

A family says in which order a picture's patches stand, and gives positions in the same order: attention asks nothing
of the order, so patches that are merged later stand together from the start. This module knows no pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads, Projection
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear, RmsNorm
from opsin.ops import Activation, Array, Ops, Pairing, Weight

NormKind = Literal["layer", "rms"]
MOST_ROWS = 1 << 16  # of one picture; a file that asks for more is damaged, or means harm
MOST_PIXELS = 1 << 24  # of one picture, likewise


@dataclass(frozen=True)
class VitShape:
    """What a file's `clip.vision.*` keys say of a tower; its family says the norm, and which values turn together."""

    width: int
    layers: int
    heads: Heads
    patch: int
    side: int
    eps: float
    norm: NormKind
    activation: Activation
    pairing: Pairing = "halves"

    @property
    def grid(self) -> int:
        """Patches along one side of a picture of `side` x `side` pixels."""
        return self.side // self.patch

    @property
    def values(self) -> int:
        """Numbers of one patch."""
        return 3 * self.patch**2

    @property
    def most_pixels(self) -> int:
        """Of one picture, whatever a file or a person asks for."""
        return min(MOST_ROWS * self.patch**2, MOST_PIXELS)


def vit_shape(
    file: File, norm: NormKind = "layer", pairing: Pairing = "halves", *, margin: bool = False, sized: bool = True
) -> VitShape:  # fmt: skip
    """Raises ModelError for numbers that do not go together, naming their keys.

    `margin`: a side may be longer than its patches; what is over at the right and at the bottom is not seen. `sized`:
    a size is the tower's own; else files may say 0.
    """
    width = positive_int(file, "clip.vision.embedding_length")
    count = positive_int(file, "clip.vision.attention.head_count")
    head = positive_int(file, "clip.vision.attention.head_dim", max(1, width // count))
    patch = positive_int(file, "clip.vision.patch_size")
    side = positive_int(file, "clip.vision.image_size") if sized or file.get_int("clip.vision.image_size", 0) else patch
    whole = side >= patch and (margin or side % patch == 0)
    if not whole or (side // patch) ** 2 > MOST_ROWS or side**2 > MOST_PIXELS or patch > 1024:
        raise ModelError(
            f"{file.path}: clip.vision.image_size is {side} and clip.vision.patch_size {patch}",
            hint="a side is a whole number of patches; the file is damaged",
        )
    gelu, silu = file.get_bool("clip.use_gelu", False), file.get_bool("clip.use_silu", False)
    if gelu and silu:
        raise ModelError(f"{file.path}: clip.use_gelu and clip.use_silu are both true", hint="the file is damaged")
    return VitShape(
        width=width,
        layers=positive_int(file, "clip.vision.block_count"),
        heads=Heads(count, count, head, head**-0.5),
        patch=patch,
        side=side,
        eps=positive_float(file, "clip.vision.attention.layer_norm_epsilon"),
        norm=norm,
        activation="gelu" if gelu else "silu" if silu else "gelu_quick",
        pairing=pairing,
    )


class Norm(Module):
    """A norm of the tower's kind."""

    weight: Array
    bias: Array | None

    def check(self, width: int) -> None:
        """Raises ModelError where it is made for another width."""
        _check_widths(self, width, weight=self.weight, bias=self.bias)

    def __call__(self, x: Array, shape: VitShape) -> Array:
        if shape.norm == "layer":
            return x.ops.layer_norm(x, self.weight, self.bias, shape.eps)
        return x.ops.rms_norm(x, self.weight, shape.eps)


def _check_widths(part: Module, width: int, **vectors: Array | None) -> None:
    for name, values in vectors.items():
        if values is not None and values.shape != (width,):
            raise ModelError(f"{part.tensor(name)} has {values.width} values, where {width} are needed")


class PatchEmbedding(Module):
    """A convolution whose steps are as long as its kernel: a matrix over the patches.

    A kernel for a second moment, where there is one, sees the same still picture, or the next frame of a film.
    """

    weight: Weight
    second: Annotated[Weight | None, at("weight.1")]
    bias: Array | None

    def check(self, shape: VitShape) -> None:
        """Raises ModelError where a kernel is not of the shape's patches."""
        needed = (shape.width, shape.values)
        for name, kernel in (("weight", self.weight), ("weight.1", self.second)):
            if kernel is not None and kernel.shape != needed:
                raise ModelError(
                    f"{self.tensor(name)} is {kernel.shape}; patches of {shape.patch} x {shape.patch} need {needed}"
                )
        _check_widths(self, shape.width, bias=self.bias)

    def __call__(self, patches: Array, residual: Array | None, later: Array | None = None) -> Array:
        """patches [rows, values] -> [rows, width], with `residual` added; `later` are those of the second moment."""
        x = patches.ops.linear(patches, self.weight, self.bias, residual)
        return (
            x if self.second is None else patches.ops.linear(patches if later is None else later, self.second, None, x)
        )


@dataclass(frozen=True, eq=False)
class AttentionSpans:
    """The rows of its own picture that each row sees: first <= row < last, int32 [pictures * rows]."""

    first: Array
    last: Array
    pictures: int


def attention_spans(ops: Ops, bounds: Sequence[int], pictures: int) -> AttentionSpans:
    """Rows of a picture between two of its bounds see each other; all pictures have the same."""
    lengths = np.diff(bounds)
    first, last = (np.tile(np.repeat(edges, lengths), pictures) for edges in (bounds[:-1], bounds[1:]))
    return AttentionSpans(ops.constant(first.astype(np.int32)), ops.constant(last.astype(np.int32)), pictures)


class VitAttention(Projection):
    """`attn_q_norm` and `attn_k_norm`, where there are any, see heads, or all heads of a row as one vector."""

    attn_q_norm: RmsNorm | None
    attn_k_norm: RmsNorm | None
    attn_out: Linear

    def check_in(self, shape: VitShape) -> None:
        """Raises ModelError where a matrix or a norm is not of the shape's heads and width."""
        wide = shape.heads.query * shape.heads.width
        for matrix in self.check(shape.heads):
            matrix.check(shape.width, matrix.outputs)
        for norm in (self.attn_q_norm, self.attn_k_norm):
            if norm is not None:
                norm.check(shape.heads.width if norm.weight.shape == (shape.heads.width,) else wide)
        self.attn_out.check(wide, shape.width)

    def __call__(
        self, x: Array, spans: AttentionSpans, table: Array | None, shape: VitShape, residual: Array | None
    ) -> Array:
        heads, (q, k, v) = shape.heads, self.project(x, shape.heads)
        if self.attn_q_norm is not None and self.attn_k_norm is not None:
            whole, seen = heads.query * heads.width, self.attn_q_norm.weight.width
            q, k = (
                norm(rows.reshape(whole // seen, seen), shape.eps).reshape(heads.query, heads.width)
                for norm, rows in ((self.attn_q_norm, q), (self.attn_k_norm, k))
            )
        if table is not None:
            q, k = x.ops.rope(q, table, shape.pairing), x.ops.rope(k, table, shape.pairing)
        out = x.ops.attend_dense(
            q, k, v, spans.first, spans.last, scale=heads.scale, parts=spans.pictures, like=self.attn_out.weight
        )
        return self.attn_out(out.reshape(heads.query * heads.width), residual)


class VitFfn(Module):
    """down(activation(up x)), or gated. Old converters exchanged the names up and down: the shapes tell."""

    ffn_up: Linear
    ffn_down: Linear
    ffn_gate: Linear | None

    def check(self, width: int) -> None:
        """Raises ModelError where the matrices do not follow one another."""
        up, down = self._parts(width)
        up.check(width, down.inputs)
        down.check(up.outputs, width)
        if self.ffn_gate is not None:
            self.ffn_gate.check(width, up.outputs)

    def _parts(self, width: int) -> tuple[Linear, Linear]:
        exchanged = self.ffn_up.inputs != width and self.ffn_down.inputs == width
        return (self.ffn_down, self.ffn_up) if exchanged else (self.ffn_up, self.ffn_down)

    def __call__(self, x: Array, kind: Activation, residual: Array | None) -> Array:
        up, down = self._parts(x.width)
        if self.ffn_gate is not None:
            return down(x.ops.glu(self.ffn_gate(x), up(x), kind), residual)
        return down(up(x, activation=kind), residual)


class VitBlock(Module):
    ln1: Norm
    attn: Annotated[VitAttention, at("")]
    scale1: Annotated[Array | None, at("ls1.weight")]
    ln2: Norm
    ffn: Annotated[VitFfn, at("")]
    scale2: Annotated[Array | None, at("ls2.weight")]

    def check(self, shape: VitShape) -> None:
        """Raises ModelError, naming the tensor, where something does not fit the shape."""
        for norm in (self.ln1, self.ln2):
            norm.check(shape.width)
        self.attn.check_in(shape)
        self.ffn.check(shape.width)
        _check_widths(self, shape.width, ls1=self.scale1, ls2=self.scale2)

    def __call__(self, x: Array, spans: AttentionSpans, table: Array | None, shape: VitShape) -> Array:
        inner = self.ln1(x, shape)
        if self.scale1 is None:
            x = self.attn(inner, spans, table, shape, x)
        else:
            x = x + self.attn(inner, spans, table, shape, None) * self.scale1
        inner = self.ln2(x, shape)
        if self.scale2 is None:
            return self.ffn(inner, shape.activation, x)
        return x + self.ffn(inner, shape.activation, None) * self.scale2


class VitWeights(Module):
    patch_embd: PatchEmbedding
    class_embd: Array | None
    pre_ln: Norm | None
    blk: list[VitBlock]
    post_ln: Norm | None


@dataclass(frozen=True, eq=False)
class Vit:
    """A tower.

    Attributes:
        position_embeddings: [rows of a picture, width], added to the patches; None where positions only turn.
    """

    ops: Ops
    weights: VitWeights
    shape: VitShape
    position_embeddings: Array | None = None

    @classmethod
    def load(cls, file: File, source: Reader, shape: VitShape, order: Ints | None = None) -> Vit:
        """Read `v.*`. `order` names, for each patch as it will stand, its position in the file's table.

        A class embedding gets the row before the patches, and the first of the positions.
        """
        weights = VitWeights.read(source, "v")
        if len(weights.blk) != shape.layers:
            held = f"{len(weights.blk)} of its {shape.layers} layers"
            raise ModelError(f"{file.path} holds {held}", hint="the file is incomplete")
        _check_alike(source, shape.layers)
        weights.patch_embd.check(shape)
        for norm in (weights.pre_ln, weights.post_ln):
            if norm is not None:
                norm.check(shape.width)
        for block in weights.blk:
            block.check(shape)
        table = None if order is None else source.ops.constant(_position_embeddings(source, weights, shape, order))
        return cls(source.ops, weights, shape, table)

    @property
    def extra(self) -> int:
        """Rows of a picture before its patches."""
        return 0 if self.weights.class_embd is None else 1

    def embed(self, features: Floats, positions: Array | None = None) -> Array:
        """Patches [pictures, ..., values] on the host -> [pictures * rows, width], the tower's first state.

        `positions` [rows of a picture, width] are added instead of `position_embeddings`. Patches of two moments
        have the values of one before those of the other.
        """
        pictures, rows = len(features), self.rows(features)
        given = features.reshape(pictures, rows - self.extra, -1)
        given = np.pad(given, ((0, 0), (self.extra, 0), (0, 0))) if self.extra else given
        positions = self.position_embeddings if positions is None else positions
        if positions is not None:
            which = np.tile(np.arange(rows, dtype=np.int32), pictures)
            positions = self.ops.take(positions, self.ops.constant(which))
        moments = np.split(given.reshape(pictures * rows, -1), max(1, given.shape[2] // self.shape.values), axis=1)
        first, *later = (self.ops.constant(np.ascontiguousarray(part)) for part in moments)
        return self.begin(self.weights.patch_embd(first, positions, *later))

    def begin(self, x: Array) -> Array:
        """The norm before the first layer, where the tower has one."""
        return x if self.weights.pre_ln is None else self.weights.pre_ln(x, self.shape)

    def rows(self, features: Floats) -> int:
        """Rows that each of the pictures gets."""
        return math.prod(features.shape[1:-1]) + self.extra

    def run(self, x: Array, spans: Sequence[AttentionSpans], table: Array | None = None) -> Array:
        """As many layers as `spans` has entries. `table` is one of `Ops.rope_table`."""
        for state in self.states(x, spans, table):
            x = state
        return x

    def states(self, x: Array, spans: Sequence[AttentionSpans], table: Array | None = None) -> Iterator[Array]:
        """The same, layer by layer: what stands after each."""
        for block, visible in zip(self.weights.blk, spans, strict=False):
            x = block(x, visible, table, self.shape)
            yield x

    def finish(self, x: Array) -> Array:
        """The norm after the last layer, where the tower has one."""
        return x if self.weights.post_ln is None else self.weights.post_ln(x, self.shape)

    def whole(self, features: Floats, table: Array | None = None) -> Array:
        """All of a tower in which all patches of a picture see each other: [pictures * rows, width]."""
        spans = attention_spans(self.ops, [0, self.rows(features)], len(features))
        return self.finish(self.run(self.embed(features), [spans] * self.shape.layers, table))

    def without_class(self, x: Array, features: Floats) -> Array:
        """The rows of patches alone: [pictures * rows, width] -> [pictures * patches, width]."""
        if not self.extra:
            return x
        rows = self.rows(features)
        kept = np.arange(len(features))[:, None] * rows + np.arange(self.extra, rows)
        return self.ops.take(x, self.ops.constant(kept.reshape(-1).astype(np.int32)))


def _check_alike(source: Reader, layers: int) -> None:
    """Raises ModelError, naming a tensor, where a layer lacks what others have, or one of a pair."""
    for pair in (("ls1", "ls2"), ("attn_q_norm", "attn_k_norm")):
        names = [f"v.blk.{layer}.{part}.weight" for layer in range(layers) for part in pair]
        missing = [name for name in names if not source.has(name)]
        if missing and len(missing) < len(names):
            raise ModelError(f"there is no tensor {missing[0]}", hint="the file is incomplete")


def _position_embeddings(source: Reader, weights: VitWeights, shape: VitShape, order: Ints) -> Floats:
    """What is added to each row of a picture. The class row is no patch: its embedding comes in here."""
    name = "v.position_embd.weight"
    table = source.values(name)
    extra = 0 if weights.class_embd is None else 1
    if table.shape != (len(order) + extra, shape.width):
        raise ModelError(f"{name} is {table.shape}; {(len(order) + extra, shape.width)} is needed")
    made = np.concatenate([table[:extra], table[extra + order]])
    if weights.class_embd is not None:
        made[0] += _vector(source, "v.class_embd", shape)
        if weights.patch_embd.bias is not None:  # which every row gets
            made[0] -= _vector(source, "v.patch_embd.bias", shape)
    return made


def _vector(source: Reader, name: str, shape: VitShape) -> Floats:
    values = source.values(name).reshape(-1)
    if len(values) != shape.width:
        raise ModelError(f"{name} has {len(values)} values, where {shape.width} are needed")
    return values


def plane(high: int, wide: int, block: int, pictures: int) -> Ints:
    """[pictures * high * wide, 2] the row and the column of each patch, block after block as `block_order` has them."""
    places = np.stack(np.divmod(block_order(high, wide, block), wide), 1)
    return np.tile(places.astype(np.int32), (pictures, 1))


def block_order(high: int, wide: int, block: int) -> Ints:
    """Places in a raster [high, wide], block after block of block x block, in raster order inside and out."""
    raster = np.arange(high * wide, dtype=np.int32)
    return raster.reshape(high // block, block, wide // block, block).swapaxes(1, 2).reshape(-1)
