"""Sizes equal those of transformers, whole number for whole number."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from drawn import SIZES
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import ChannelDimension
from transformers.models.glm4v import image_processing_pil_glm4v as glm4v
from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as got_ocr2
from transformers.models.idefics3 import image_processing_pil_idefics3 as idefics3
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil
from transformers.models.mllama import image_processing_pil_mllama as mllama
from transformers.models.paddleocr_vl import image_processing_pil_paddleocr_vl as paddleocr_vl
from transformers.models.pixtral import image_processing_pil_pixtral as pixtral
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as qwen2_vl

from opsin.errors import RequestError
from opsin.media import sizes

side = st.one_of(st.integers(1, 60), st.integers(1, 5000), st.sampled_from([27, 28, 336, 364, 512, 1024, 1456, 2048]))


def many_sizes() -> Iterator[tuple[int, int]]:
    """The usual ones and many more."""
    yield from SIZES
    dice = random.Random(5)
    for _ in range(400):
        yield (math.ceil(math.exp(dice.uniform(0, 8.6))), math.ceil(math.exp(dice.uniform(0, 8.6))))


class Shape:
    """What the processors ask of an array: its shape, channels first."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.shape = (3, size[1], size[0])
        self.ndim = 3


@given(side, side, st.sampled_from([(28, 56 * 56, 28 * 28 * 1280), (32, 4096, 1 << 20), (28, 3136, 12845056)]))
def test_pixels_within_bounds(width: int, height: int, rule: tuple[int, int, int]) -> None:
    factor, least, most = rule
    try:
        want = qwen2_vl.smart_resize(height, width, factor, least, most)
    except ValueError:
        with pytest.raises(RequestError, match=f"{width} x {height} is more than 200 times as long"):
            sizes.fit_pixels((width, height), factor, least, most)
        return
    assert sizes.fit_pixels((width, height), factor, least, most) == want[::-1]


@given(side, side)
@example(3, 500)
@example(9000, 27)
def test_pixels_within_bounds_of_films(width: int, height: int) -> None:
    """Of two moments, and as families count them, of one and half of the pixels: thin ones are enlarged first."""
    least, most = 112 * 112, 28 * 28 * 1500
    size = sizes.both_at_least((width, height), 28)
    try:
        want = glm4v.smart_resize(2, height, width, 2, 28, least, most)
    except ValueError:
        with pytest.raises(RequestError, match="more than 200 times as long"):
            sizes.fit_pixels(size, 28, least, most, frames=2)
        return
    assert sizes.fit_pixels(size, 28, least, most, frames=2) == want[::-1]
    assert sizes.fit_pixels(size, 28, least // 2, most // 2) == want[::-1]


@given(side, side)
@example(3, 500)
@example(5000, 20)
def test_pixels_within_bounds_where_each_side_is_enlarged_first(width: int, height: int) -> None:
    least, most = 384 * 384, 1536 * 1536
    size = sizes.at_least((width, height), 28)
    try:
        want = paddleocr_vl.smart_resize(height, width, 28, least, most)
    except ValueError:
        with pytest.raises(RequestError, match="more than 200 times as long"):
            sizes.fit_pixels(size, 28, least, most)
        return
    assert sizes.fit_pixels(size, 28, least, most) == want[::-1]


def test_two_hundred_times_as_long_is_taken_and_a_pixel_more_is_not() -> None:
    assert sizes.fit_pixels((6000, 30), 28, 3136, 10**7) == (5992, 28)
    with pytest.raises(RequestError, match="200 times"):
        sizes.fit_pixels((6001, 30), 28, 3136, 10**7)


@pytest.mark.parametrize("edge", [224, 336, 17])
def test_shortest_edge(edge: int) -> None:
    for size in many_sizes():
        shape = np.empty((size[1], size[0], 0))
        want = get_resize_output_image_size(shape, edge, False, input_data_format=ChannelDimension.LAST)
        assert sizes.shortest_edge(size, edge) == want[::-1]


@pytest.mark.parametrize("edge", [1456, 2048, 5000])
def test_longest_edge_and_whole_tiles(edge: int) -> None:
    class Asked(idefics3.Idefics3ImageProcessorPil):
        """Says to which size it would resize. (Its own count of patches rounds otherwise than it resizes.)"""

        def resize(self, image: Shape, size: object, **_: object) -> tuple[int, int]:
            return size.width, size.height

    for size in many_sizes():
        want = idefics3.get_resize_output_image_size(Shape(size), edge)
        assert sizes.longest_edge(size, edge) == want[::-1]
        assert sizes.whole_tiles(want[::-1], 364) == Asked().resize_for_vision_encoder(Shape(want[::-1]), 364)


@pytest.mark.parametrize(("most", "factor"), [(1024, 16), (1540, 28), (100, 14)])
def test_within(most: int, factor: int) -> None:
    for size in many_sizes():
        shape = np.empty((size[1], size[0], 0))
        if min(size) * most < max(size):
            with pytest.raises(
                RequestError, match=f"{size[0]} x {size[1]} would vanish"
            ):  # theirs is a side of nothing
                sizes.within(size, most, factor)
            continue
        want = pixtral.get_resize_output_image_size(shape, most, factor, ChannelDimension.LAST)
        assert sizes.within(size, most, factor) == want[::-1]


@pytest.mark.parametrize(("tile", "least", "most"), [(448, 1, 12), (24, 1, 6), (448, 4, 9), (448, 1, 1), (384, 3, 40)])
def test_closest_grid(tile: int, least: int, most: int) -> None:
    halves = [(tile * a, tile * b) for a in range(1, 8) for b in range(1, 8)]  # as near to one grid as to another
    for width, height in [*many_sizes(), *halves, *((3 * a, 2 * b) for a, b in halves)]:
        want = got_ocr2.get_optimal_tiled_canvas((height, width), (tile, tile), least, most)
        assert sizes.closest_grid((width, height), tile, least, most) == want


def test_areas_cover_the_picture_without_gaps() -> None:
    tiles = sizes.areas((100, 60), (4, 3))
    assert tiles[0] == (0, 0, 25, 20) and tiles[1] == (25, 0, 50, 20) and tiles[-1] == (75, 40, 100, 60)
    assert sum((right - left) * (bottom - top) for left, top, right, bottom in tiles) == 6000


@given(side, side, st.integers(2, 4))
@example(2500, 1000, 4)  # halves are rounded up
def test_crops_of_long_pictures(width: int, height: int, most: int) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    whole = np.broadcast_to(np.stack(np.mgrid[:height, :width]).astype(np.int32), (2, height, width))
    theirs = Gemma3ImageProcessorPil().pan_and_scan(whole, 256, most, 1.2)
    made = sizes.pan_and_scan((width, height), most)
    assert [(int(x0), int(y0), int(x1) - 1, int(y1) - 1) for x0, y0, x1, y1 in made] == [
        (*crop[::-1, 0, 0].tolist(), *crop[::-1, -1, -1].tolist()) for crop in theirs
    ]


@given(side, side, st.integers(1, 2000))
def test_edges_leave_something_of_each_side(width: int, height: int, most: int) -> None:
    edges = sizes.edges((width, height), most)
    assert edges[0] == most
    if max(width, height) > most * min(width, height):
        assert len(edges) == 1  # too thin for any
        return
    areas = [math.prod(sizes.within((width, height), edge, 14)) for edge in edges]
    assert areas == sorted(areas, reverse=True) and areas[-1] > 0


@given(side, side, st.sampled_from([(560, 4), (448, 4), (24, 4), (336, 6), (100, 1)]))
def test_canvases_of_tiles(width: int, height: int, rule: tuple[int, int]) -> None:
    tile, most = rule
    canvas = mllama.get_optimal_tiled_canvas(height, width, most, tile)
    wide, high = sizes.tile_grid((width, height), tile, most)
    assert (high * tile, wide * tile) == canvas
    want = mllama.get_image_size_fit_to_canvas(height, width, *canvas, tile)
    assert sizes.onto_tiles((width, height), (wide, high), tile) == want[::-1]


@pytest.mark.parametrize("most", [1, 4, 7])
def test_grids_of_tiles_stand_in_the_order_of_their_numbers(most: int) -> None:
    assert [grid[::-1] for grid in sizes.tile_grids(most)] == mllama.get_all_supported_aspect_ratios(most)


def test_slices() -> None:
    theirs, ties = MiniCPMV4_6ImageProcessorPil(), 0
    for size in many_sizes():
        grid = theirs.get_sliced_grid(size[::-1], 9, 448)
        columns, rows = sizes.slice_grid(size, 448, 9)
        assert [rows, columns] == (grid or [1, 1])
        ties += size[0] == size[1] and grid is not None
        # They take sides of 28 pixels for what ours are.
        near = theirs.find_best_resize(size[::-1], 448, 14, "4x", allow_upscale=grid is None)
        assert sizes.near_area(size, 448, 28, grow=grid is None) == near[::-1]
        if grid is not None:
            wide, high = sizes.slice_size(size, (columns, rows), 448, 28)
            refined = theirs.get_refine_size(size[::-1], grid, 448, 14, "4x", allow_upscale=True)
            assert (columns * wide, rows * high) == refined[::-1]
    assert ties


@given(side, side, st.sampled_from([(448, 9), (60, 4), (336, 1), (100, 2)]))
def test_slice_grids(width: int, height: int, rule: tuple[int, int]) -> None:
    columns, rows = sizes.slice_grid((width, height), *rule)
    assert [rows, columns] == (
        MiniCPMV4_6ImageProcessorPil().get_sliced_grid((height, width), rule[1], rule[0]) or [1, 1]
    )


CANVASES = [
    [(2, 1), (1, 2), (2, 2), (1, 3), (3, 1)],
    [(across, down) for down in range(1, 7) for across in range(1, 7)],
]


@pytest.mark.parametrize("tiles", CANVASES)
@pytest.mark.parametrize("tile", [336, 384, 30])
def test_a_canvas_the_size_on_it_and_what_is_left_of_its_cells(tiles: list[tuple[int, int]], tile: int) -> None:
    canvases = [(across * tile, down * tile) for across, down in tiles]
    pinpoints = [canvas[::-1] for canvas in canvases]
    for size in [*many_sizes(), (30_000, 1), (1, 30_000), (672, 336), (337, 336)]:
        canvas = sizes.best_canvas(size, canvases)
        assert canvas == select_best_resolution(size[::-1], pinpoints)[::-1]
        channels_first = Shape(size)
        want = get_patch_output_size(channels_first, canvas[::-1], ChannelDimension.FIRST)
        assert sizes.inside(size, canvas) == want[::-1]
        across, down = canvas[0] // tile * 27, canvas[1] // tile * 27
        left = unpad_image(torch.zeros(1, down, across), size[::-1])
        assert sizes.unpadded(size, (across, down)) == tuple(left.shape[1:])[::-1]
