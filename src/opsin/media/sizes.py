"""Sizes that pictures are given: pure functions on whole numbers, which several families share.

All sizes are (width, height), all grids (columns, rows). Rounding is that of the processors in transformers, of which
each function names the one that it follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from opsin.errors import RequestError
from opsin.media.limits import Size

Grid = tuple[int, int]  # columns, rows
Area = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the original
MOST_STRETCHED = 200  # longer side over shorter one


def fit_pixels(size: Size, factor: int, least: int, most: int, *, frames: int = 1, thin: bool = False) -> Size:
    """Sides that are multiples of `factor`, with least to most pixels in all, and nearly the same shape.

    The `smart_resize` of many processors. Some let pictures be `thin`: a side that is less than half of `factor` need
    not grow further than to `factor`. Raises RequestError for a picture more than 200 times as long as wide.
    """
    width, height = size
    check_shape(size)
    wide, high = (round(side / factor) * factor for side in size)  # round half to even, and perhaps to 0
    if thin:
        wide, high = max(wide, factor), max(high, factor)
    if frames * wide * high > most:
        shrink = math.sqrt(frames * width * height / most)
        wide, high = (max(factor, math.floor(side / shrink / factor) * factor) for side in size)
    elif frames * wide * high < least:
        grow = math.sqrt(least / (frames * width * height))
        wide, high = (math.ceil(side * grow / factor) * factor for side in size)
    return wide, high


def check_shape(size: Size) -> None:
    """Raises RequestError for a picture more than 200 times as long as wide."""
    if max(size) / min(size) > MOST_STRETCHED:
        raise RequestError(
            f"a picture of {size[0]} x {size[1]} is more than {MOST_STRETCHED} times as long as it is wide",
            hint="cut it into pieces that are less long and thin",
        )


def at_least(size: Size, side: int) -> Size:
    """First the height, then the width grows to `side` where it is less, and the other with it.

    The `smart_resize` of some processors begins with it.
    """
    width, height = size
    if height < side:
        width, height = round(width * side / height), side
    if width < side:
        width, height = side, round(height * side / width)
    return width, height


def both_at_least(size: Size, side: int) -> Size:
    """Both sides grow by one factor, rounded down, where one is less than `side`. Others begin so."""
    if min(size) >= side:
        return size
    factor = max(side / size[1], side / size[0])
    width, height = (int(edge * factor) for edge in size)
    return width, height


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


def edges(size: Size, most: int) -> range:
    """What `within` may be given: from `most` down to where the shorter side is left a pixel."""
    return range(most, min(most, -(-max(size) // min(size))) - 1, -1)


def pan_and_scan(size: Size, most: int, *, least: int = 256, ratio: float = 1.2) -> list[Area]:
    """At most so many crops, one beside the other along the longer side, of pictures that are long and large enough.

    The `pan_and_scan` of transformers, with its defaults: crops have `least` pixels a side, pictures this `ratio`.
    """
    long, short = max(size), min(size)
    if long / short < ratio:
        return []
    count = min(most, max(2, min(long // least, math.floor(long / short + 0.5))))
    step = math.ceil(long / count)
    if min(step, short) < least:
        return []
    spans = [(i * step, min((i + 1) * step, long)) for i in range(count)]
    return [(a, 0, b, short) if size[0] >= size[1] else (0, a, short, b) for a, b in spans]


def most_squares(size: Size, side: int, most: int) -> Size:
    """The largest sides that are multiples of `side` and nearly of the same shape, with at most so many squares.

    Small pictures grow. A side that would vanish is one square long, and the other as often as long as it was.
    `get_aspect_ratio_preserving_size` of Gemma 4.
    """
    width, height = size
    factor = math.sqrt(most * side**2 / (width * height))
    wide, high = (math.floor(factor * length / side) for length in size)
    if not high:
        wide, high = min(width // height, most), 1
    elif not wide:
        wide, high = 1, min(height // width, most)
    return wide * side, high * side


def tile_grids(most: int) -> list[Grid]:
    """All of at most so many tiles, fewer rows first. `get_all_supported_aspect_ratios`."""
    return [(wide, high) for high in range(1, most + 1) for wide in range(1, most + 1) if wide * high <= most]


def tile_grid(size: Size, tile: int, most: int) -> Grid:
    """The grid of tiles onto which a picture is scaled: up by least, else down by least, and then with fewest tiles.

    `get_optimal_tiled_canvas`.
    """
    width, height = size
    scales = {grid: min(grid[0] * tile / width, grid[1] * tile / height) for grid in tile_grids(most)}
    growing = [scale for scale in scales.values() if scale >= 1]
    best = min(growing) if growing else max(scales.values())
    return min((grid for grid, scale in scales.items() if scale == best), key=lambda grid: grid[0] * grid[1])


def onto_tiles(size: Size, grid: Grid, tile: int) -> Size:
    """The size of a picture on a grid of tiles; it grows to one tile at most. `get_image_size_fit_to_canvas`."""
    width, height = size
    wide, high = (min(max(side, tile), tile * count) for side, count in zip(size, grid, strict=True))
    if wide / width < high / height:
        return wide, min(math.floor(height * (wide / width)) or 1, high)
    return min(math.floor(width * (high / height)) or 1, wide), high


def closest_grid(size: Size, tile: int, least: int, most: int) -> Grid:
    """Of the grids of least to most tiles the one whose shape is the nearest. GOT-OCR 2's `get_optimal_tiled_canvas`.

    Of two that are as near, the one with more tiles counts where the picture has more than half as many pixels.
    """
    width, height = size
    grids = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    best, nearest = (1, 1), math.inf
    for columns, rows in sorted(grids, key=math.prod):
        distance, tiles = abs(width / height - columns / rows), columns * rows
        alike = distance == nearest and width * height > 0.5 * tile**2 * tiles
        if tiles >= least and (distance < nearest or alike):
            best, nearest = (columns, rows), distance
    return best


def best_canvas(size: Size, canvases: Sequence[Size]) -> Size:
    """Of some sizes the one that shows most pixels of a picture, and of those the smallest. `select_best_resolution`.

    Where several are alike, it is the first of them.
    """

    def shown(canvas: Size) -> int:
        scale = min(canvas[0] / size[0], canvas[1] / size[1])
        return min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])

    return max(canvases, key=lambda canvas: (shown(canvas), -canvas[0] * canvas[1]))


def inside(size: Size, canvas: Size) -> Size:
    """As large as a canvas allows, in its own shape, rounded up. `get_patch_output_size`."""
    across, down = canvas[0] / size[0], canvas[1] / size[1]
    if across < down:
        return canvas[0], min(math.ceil(size[1] * across), canvas[1])
    return min(math.ceil(size[0] * down), canvas[0]), canvas[1]


def unpadded(size: Size, grid: Grid) -> Grid:
    """What is left of a grid over a canvas when cells beside the picture, or above and below, go. `unpad_image`.

    As many go on both sides. A very thin picture leaves none.
    """
    (width, height), (columns, rows) = size, grid
    if width / height > columns / rows:
        return columns, rows - (rows - int(round(height * (columns / width), 7))) // 2 * 2
    return columns - (columns - int(round(width * (rows / height), 7))) // 2 * 2, rows


def areas(size: Size, grid: Grid) -> list[Area]:
    """What the tiles of a grid show of a picture that was stretched over it, row by row."""
    columns, rows = grid
    width, height = size
    return [
        (width * x / columns, height * y / rows, width * (x + 1) / columns, height * (y + 1) / rows)
        for y in range(rows)
        for x in range(columns)
    ]


def slice_grid(size: Size, side: int, most: int) -> Grid:
    """A grid for slices of about side x side pixels, nearest to the picture's shape; (1, 1): it needs none.

    `get_sliced_grid`. Of grids that are equally near, the first one: fewer slices, then fewer columns.
    """
    width, height = size
    wanted = min(math.ceil(width * height / (side * side)), most)
    if wanted <= 1:
        return 1, 1
    counts = [count for count in (wanted - 1, wanted, wanted + 1) if 1 < count <= most]
    grids = [(columns, count // columns) for count in counts for columns in range(1, count + 1) if not count % columns]
    shape = math.log(width / height)
    return min(grids, key=lambda grid: abs(shape - math.log(grid[0] / grid[1])))


def near_area(size: tuple[float, float], side: int, factor: int, *, grow: bool) -> Size:
    """Sides that are multiples of `factor`, nearly of the same shape, with about side * side pixels.

    A smaller picture keeps its size, but for the factor, where it may not grow. `find_best_resize`.
    """
    width, height = size
    if grow or width * height > side * side:
        ratio = width / height
        height = int(side / math.sqrt(ratio))
        width = int(height * ratio)
    return _near(width, factor), _near(height, factor)


def slice_size(size: Size, grid: Grid, side: int, factor: int) -> Size:
    """The size of each slice of a grid: `near_area` of its share of the picture. `get_refine_size`."""
    wide, high = (_near(length, count) / count for length, count in zip(size, grid, strict=True))
    return near_area((wide, high), side, factor, grow=True)


def _near(length: float, factor: int) -> int:
    return max(round(length / factor) * factor, factor)
