"""Sizes that pictures are given: pure functions on whole numbers, which several families share.

All sizes are (width, height), all grids (columns, rows). Rounding is that of the processors in transformers, of which
each function names the one that it follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from opsin.errors import RequestError
from opsin.media.limits import Size

Grid = tuple[int, int]  # columns, rows
Area = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the original
MOST_STRETCHED = 200  # longer side over shorter one


def fit_pixels(size: Size, factor: int, least: int, most: int, *, frames: int = 1) -> Size:
    """Sides that are multiples of `factor`, with least to most pixels in all, and nearly the same shape.

    The `smart_resize` of many processors. Raises RequestError for a picture more than 200 times as long as wide.
    """
    width, height = size
    if max(size) / min(size) > MOST_STRETCHED:
        raise RequestError(
            f"a picture of {width} x {height} is more than {MOST_STRETCHED} times as long as it is wide",
            hint="cut it into pieces that are less long and thin",
        )
    wide, high = (round(side / factor) * factor for side in size)  # round half to even, and perhaps to 0
    if frames * wide * high > most:
        shrink = math.sqrt(frames * width * height / most)
        wide, high = (max(factor, math.floor(side / shrink / factor) * factor) for side in size)
    elif frames * wide * high < least:
        grow = math.sqrt(least / (frames * width * height))
        wide, high = (math.ceil(side * grow / factor) * factor for side in size)
    return wide, high


def shortest_edge(size: Size, edge: int) -> Size:
    """The shorter side becomes `edge`, the longer one keeps the shape, rounded down. `get_resize_output_image_size`."""
    short, long = min(size), max(size)
    other = int(edge * long / short)
    return (edge, other) if size[0] <= size[1] else (other, edge)


def longest_edge(size: Size, edge: int, most: int = 4096) -> Size:
    """The longer side becomes `edge`, the other one is made even; then both at most `most`."""
    width, height = size
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
        height += height % 2
    else:
        width, height = int(edge * ratio), edge
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    ratio = width / height
    if width >= height and width > most:
        width, height = most, int(most / ratio)
    elif height > width and height > most:
        width, height = int(most * ratio), most
    return max(width, 1), max(height, 1)


def whole_tiles(size: Size, tile: int) -> Size:
    """The longer side grown to a multiple of a tile's, then the other one, for the shape that this gives."""
    width, height = size
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * ratio) / tile) * tile
    return width, height


def within(size: Size, most: int, factor: int) -> Size:
    """Shrunk, where a side is larger than `most`, and then grown to multiples of `factor`.

    Raises RequestError for a picture so thin that nothing would be left of its shorter side.
    """
    ratio = max(side / most for side in size)
    width, height = (math.floor(side / ratio) for side in size) if ratio > 1 else size
    if not min(width, height):
        raise RequestError(
            f"a picture of {size[0]} x {size[1]} would vanish when its longer side becomes {most}",
            hint="cut it into pieces that are less long and thin",
        )
    return ((width - 1) // factor + 1) * factor, ((height - 1) // factor + 1) * factor


def closest_grid(size: Size, tile: Size, least: int, most: int) -> Grid:
    """The grid of least to most tiles whose shape is nearest to the picture's.

    Among equals the larger, while the picture has more than half its pixels. `get_optimal_tiled_canvas` of those
    processors that stretch a picture over its tiles.
    """
    ratio, area = size[0] / size[1], size[0] * size[1]
    best, nearest = (1, 1), math.inf
    grids = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most + 1)]
    for columns, rows in sorted((g for g in grids if least <= g[0] * g[1] <= most), key=lambda g: g[0] * g[1]):
        distance = abs(ratio - columns / rows)
        is_tie = distance == nearest and area > 0.5 * tile[0] * tile[1] * columns * rows
        if distance < nearest or is_tie:
            best, nearest = (columns, rows), distance
    return best


def best_canvas(size: Size, canvases: Iterable[Size]) -> Size:
    """The canvas on which most of the picture's pixels survive; among equals the one that is filled best.

    `select_best_resolution`, whose pairs are (height, width); the first wins where all is equal.
    """
    width, height = size
    best, most, least_waste = None, 0, math.inf
    for canvas in canvases:
        scale = min(canvas[0] / width, canvas[1] / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas[0] * canvas[1] - pixels
        if pixels > most or (pixels == most and waste < least_waste):
            best, most, least_waste = canvas, pixels, waste
    if best is None:
        raise RequestError(
            f"a picture of {width} x {height} would vanish on every canvas of this model",
            hint="cut it into pieces that are less long and thin",
        )
    return best


def fit_inside(size: Size, canvas: Size) -> Size:
    """As large as a canvas allows, with the same shape; rounded up. `get_patch_output_size`."""
    width, height = size
    across, down = canvas[0] / width, canvas[1] / height
    if across < down:
        return canvas[0], min(math.ceil(height * across), canvas[1])
    return min(math.ceil(width * down), canvas[0]), canvas[1]


def smallest_canvas(size: Size, tile: int, most: int) -> Size:
    """The grid of at most `most` tiles that enlarges a picture least, or shrinks it least where all must shrink it.

    As a size in pixels. `get_optimal_tiled_canvas` of those processors that pad.
    """
    grids = [(columns, rows) for rows in range(1, most + 1) for columns in range(1, most + 1) if columns * rows <= most]
    canvases = [(columns * tile, rows * tile) for columns, rows in grids]
    scales = [min(canvas[0] / size[0], canvas[1] / size[1]) for canvas in canvases]
    enlarging = [scale for scale in scales if scale >= 1]
    chosen = min(enlarging) if enlarging else max(scales)
    return min((c for c, scale in zip(canvases, scales, strict=True) if scale == chosen), key=lambda c: c[0] * c[1])


def fit_canvas(size: Size, canvas: Size, tile: int) -> Size:
    """A picture's size on a canvas: no side below a tile's unless the shape asks for it; rounded down.

    `get_image_size_fit_to_canvas`.
    """
    width, height = size
    wide, high = (min(max(side, tile), most) for side, most in zip(size, canvas, strict=True))
    across, down = wide / width, high / height
    if across < down:
        return wide, min(math.floor(height * across) or 1, high)
    return min(math.floor(width * down) or 1, wide), high


def areas(size: Size, grid: Grid) -> list[Area]:
    """What the tiles of a grid show of a picture that was stretched over it, row by row."""
    columns, rows = grid
    width, height = size
    return [
        (width * x / columns, height * y / rows, width * (x + 1) / columns, height * (y + 1) / rows)
        for y in range(rows)
        for x in range(columns)
    ]
