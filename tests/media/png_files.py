"""PNGs of every colour type, depth and order, written from samples by zlib and NumPy alone, and what they show."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from made import PNG_SIGNATURE, chunk

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@dataclass
class Drawn:
    """Samples [height, width, channels], and what is transparent in their values."""

    colour: int
    depth: int
    samples: np.ndarray
    palette: np.ndarray | None = None
    key: np.ndarray | None = None

    def file(self, *, interlaced: bool = False, before: bytes = b"", between: bytes = b"", after: bytes = b"") -> bytes:
        """With chunks before, between and behind those of the pixels."""
        height, width, _ = self.samples.shape
        head = struct.pack(">IIBBBBB", width, height, self.depth, self.colour, 0, 0, interlaced)
        chunks = chunk(b"IHDR", head) + before
        if self.palette is not None:
            chunks += chunk(b"PLTE", self.palette.astype(np.uint8).tobytes())
        if self.key is not None:
            chunks += chunk(b"tRNS", self.key.astype(np.uint8 if self.palette is not None else ">u2").tobytes())
        pixels = zlib.compress(self._rows(interlaced))
        half = len(pixels) // 2
        chunks += chunk(b"IDAT", pixels[:half]) + between + chunk(b"IDAT", pixels[half:])
        return PNG_SIGNATURE + chunks + after + chunk(b"IEND", b"")

    def _rows(self, interlaced: bool) -> bytes:
        pieces = [self.samples[y::down, x::across] for x, y, across, down in _PASSES] if interlaced else [self.samples]
        packed = [row for piece in pieces if piece.size for row in self._packed(piece)]
        return b"".join(b"\0" + row.tobytes() for row in packed)

    def _packed(self, samples: np.ndarray) -> np.ndarray:
        rows = samples.reshape(samples.shape[0], -1)
        if self.depth == 16:
            return rows.astype(">u2").view(np.uint8)
        bits = (rows[..., None] >> np.arange(self.depth - 1, -1, -1)) & 1
        return np.packbits(bits.reshape(rows.shape[0], -1).astype(np.uint8), axis=1)

    def colours(self) -> np.ndarray:
        """[height, width, 3] in 8 bits: fewer are stretched over 0 to 255, of more the upper ones count."""
        if self.palette is not None:
            return self.palette[self.samples[..., 0]]
        return np.broadcast_to(self._eight()[..., : 1 if self.colour in (GREY, GREY_ALPHA) else 3],
                               (*self.samples.shape[:2], 3))  # fmt: skip

    def alpha(self) -> np.ndarray:
        """[height, width], 255 where nothing is said."""
        if self.colour in (GREY_ALPHA, RGBA):
            return self._eight()[..., -1]
        if self.key is None:
            return np.full(self.samples.shape[:2], 255)
        if self.palette is not None:
            alphas = np.full(256, 255)
            alphas[: len(self.key)] = self.key
            return alphas[self.samples[..., 0]]
        return np.where((self.samples == self.key).all(-1), 0, 255)

    def _eight(self) -> np.ndarray:
        return self.samples >> 8 if self.depth == 16 else self.samples * 255 // ((1 << self.depth) - 1)


def draw_png(
    colour: int, depth: int, *, with_key: bool = False, size: tuple[int, int] = (13, 11), seed: int = 0
) -> Drawn:
    """Noise. Some pixels have the transparent colour, and in 16 bits some differ from it in the last bit alone."""
    dice = np.random.default_rng([seed, colour, depth])
    samples = dice.integers(0, 1 << depth, (size[1], size[0], CHANNELS[colour]))
    drawn = Drawn(colour, depth, samples)
    if colour == PALETTE:
        drawn.palette = dice.integers(0, 256, (1 << depth, 3))
        drawn.key = dice.integers(0, 256, max(1, (1 << depth) // 2)) if with_key else None
    elif with_key:
        drawn.key = samples[-1, -1].copy()
        samples[0, :2] = drawn.key
        samples[-1, 0] = drawn.key
        samples[-1, 0, -1] ^= 1
    return drawn
