"""Compositions of the steps equal the PIL processors of transformers, pixel for pixel, and refuse what they refuse.

Families compose the same steps in their own files. Each composition here is the shortest way to say what one does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from drawn import MODES, SIZES, draw
from PIL import Image
from transformers import BatchFeature
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.media import sizes, steps
from opsin.media.decode import open_picture
from opsin.media.picture import Picture

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
CASES = [*((size, "RGB") for size in SIZES), *(((321, 200), mode) for mode in MODES if mode != "I;16")]
cases = pytest.mark.parametrize(("size", "mode"), CASES, ids=lambda value: str(value).replace(", ", "x"))


def both(size: tuple[int, int], mode: str) -> tuple[Image.Image, Picture]:
    """What the processor is given, and what we are."""
    image = draw(size, mode)
    return image, open_picture(image)


def planes(values: Floats) -> Floats:
    """Channels first, as the processors have them."""
    return np.moveaxis(values, -1, 0)


def check(got: list[Floats], want: npt.NDArray[np.float32]) -> None:
    """Within 1e-6, and the same number of pictures."""
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-6


@cases
def test_stretched_to_a_square(size: tuple[int, int], mode: str) -> None:
    image, picture = both(size, mode)
    want = Gemma3ImageProcessorPil(size={"height": 448, "width": 448})(image)["pixel_values"]
    stretched = steps.resize(steps.flatten(picture), (448, 448), "bilinear")
    check([planes(steps.normalise(stretched, HALF, HALF))], want)


@cases
def test_shortest_edge_and_the_middle(size: tuple[int, int], mode: str) -> None:
    image, picture = both(size, mode)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    resized = steps.resize(steps.flatten(picture), sizes.shortest_edge(picture.size, 336), "bicubic")
    cut = steps.centre_crop(resized, (336, 336))
    check([planes(steps.normalise(cut, MEAN, STD))], processor(image)["pixel_values"])


@cases
@pytest.mark.parametrize("Processor", [Idefics3ImageProcessorPil, SmolVLMImageProcessorPil])
@pytest.mark.parametrize(("edge", "tile"), [(1024, 256), (364, 364)])
def test_tiles_and_an_overview(Processor: type, edge: int, tile: int, size: tuple[int, int], mode: str) -> None:  # noqa: N803
    image, picture = both(size, mode)
    processor = Processor(size={"longest_edge": edge}, max_image_size={"longest_edge": tile})
    said: BatchFeature = processor(image, return_row_col_info=True)
    resized = steps.resize(steps.flatten(picture), sizes.longest_edge(picture.size, edge), "lanczos")
    whole = steps.resize(resized, sizes.whole_tiles(resized.size, tile), "lanczos")
    parts, grid = [whole], (0, 0)
    if whole.size != (tile, tile):
        grid = (whole.width // tile, whole.height // tile)
        corners = [(x * tile, y * tile) for y in range(grid[1]) for x in range(grid[0])]
        parts = [whole.crop((x, y, x + tile, y + tile)) for x, y in corners]
        parts.append(steps.resize(whole, (tile, tile), "lanczos"))
    assert grid == (said["cols"][0][0], said["rows"][0][0])
    check([planes(steps.normalise(part, HALF, HALF)) for part in parts], said["pixel_values"][0])


@cases
def test_any_size_in_blocks_of_patches(size: tuple[int, int], mode: str) -> None:
    image, picture = both(size, mode)
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 300)
    fitted = sizes.fit_pixels(picture.size, 28, 56 * 56, 28 * 28 * 300)
    values = steps.normalise(steps.resize(steps.flatten(picture), fitted, "bicubic"), MEAN, STD)
    said = processor(image)
    assert said["image_grid_thw"].tolist() == [[1, fitted[1] // 14, fitted[0] // 14]]
    check([steps.patchify(values, 14, block=2, frames=2)], said["pixel_values"][None])


@pytest.mark.parametrize("size", [(201, 1), (1, 500), (3_000, 14)])
def test_where_the_processor_refuses_so_do_we(size: tuple[int, int]) -> None:
    image, picture = both(size, "RGB")
    with pytest.raises(ValueError, match="absolute aspect ratio"):
        Qwen2VLImageProcessorPil()(image)
    with pytest.raises(RequestError, match=rf"{size[0]} x {size[1]} is more than 200 times as long"):
        sizes.fit_pixels(picture.size, 28, 56 * 56, 28 * 28 * 300)


@cases
def test_shrunk_within_an_edge(size: tuple[int, int], mode: str) -> None:
    image, picture = both(size, mode)
    processor = PixtralImageProcessorPil(size={"longest_edge": 512}, patch_size={"height": 16, "width": 16})
    resized = steps.resize(steps.flatten(picture), sizes.within(picture.size, 512, 16), "bicubic")
    check([planes(steps.normalise(resized, MEAN, STD))], processor(image)["pixel_values"])


def test_sixteen_bits_are_scaled_where_the_processor_cuts_them_off() -> None:
    deep = draw((320, 200), "I;16")
    shallow = Image.fromarray((np.asarray(deep) >> 8).astype(np.uint8))
    processor = Gemma3ImageProcessorPil(size={"height": 64, "width": 64})
    stretched = steps.resize(steps.flatten(open_picture(deep)), (64, 64), "bilinear")
    check([planes(steps.normalise(stretched, HALF, HALF))], processor(shallow)["pixel_values"])
    assert np.abs(planes(steps.normalise(stretched, HALF, HALF)) - processor(deep)["pixel_values"][0]).max() > 0.5
