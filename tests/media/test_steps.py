"""Each step equals what transformers' PIL processors do, and leaves what it was given as it was."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import MODES, SIZES, draw
from PIL import Image
from transformers import image_transforms as hf
from transformers.image_utils import ChannelDimension

from opsin.errors import RequestError
from opsin.media import steps
from opsin.media.decode import open_picture

LAST = ChannelDimension.LAST
NONE = [0, 0, 0], [1, 1, 1]  # mean and deviation that change nothing
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "I;16"])
@pytest.mark.parametrize("size", [(320, 240), (1, 1), (31, 700)])
def test_flattened_on_white_equals_the_processors(mode: str, size: tuple[int, int]) -> None:
    image = draw(size, mode)
    want = hf.convert_to_rgb(image, return_numpy=True)
    assert np.array_equal(np.asarray(steps.flatten(open_picture(image))), want)


def test_without_a_background_transparent_pixels_keep_their_colour() -> None:
    image = draw((40, 30), "RGBA")
    flat = steps.flatten(open_picture(image), None)
    assert np.array_equal(np.asarray(flat), np.asarray(image)[..., :3])
    assert not np.array_equal(np.asarray(flat), np.asarray(steps.flatten(open_picture(image))))


def test_half_a_black_pixel_on_a_colour_is_half_that_colour() -> None:
    picture = open_picture(Image.new("RGBA", (3, 600), (0, 0, 0, 128)))
    flat = steps.flatten(picture, (200, 100, 0))
    assert np.array_equal(np.unique(np.asarray(flat).reshape(-1, 3), axis=0), [(100, 50, 0)])
    assert not picture.pixels.any()


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("size", [(50, 20), (320, 240), (640, 481), (1, 1)])
def test_resizing_equals_the_processors(filter: steps.Filter, size: tuple[int, int]) -> None:
    image = draw((320, 240))
    resample = Image.Resampling[filter.upper()]
    want = hf.resize(np.asarray(image), size[::-1], resample=resample, input_data_format=LAST)
    assert np.array_equal(np.asarray(steps.resize(image, size, filter)), want)


def test_a_thread_of_a_picture_is_refused_before_it_grows_without_bounds() -> None:
    with pytest.raises(RequestError, match=r"picture of 1 x 30000 would have to become 336 x 10080000"):
        steps.resize(Image.new("RGB", (1, 30_000)), (336, 10_080_000), "bicubic")


@pytest.mark.parametrize("crop", [(224, 224), (10, 400), (321, 239), (333, 500), (1, 1)])
@pytest.mark.parametrize("size", [(320, 240), (225, 223), (7, 400)])
def test_cropping_the_middle_equals_the_processors(size: tuple[int, int], crop: tuple[int, int]) -> None:
    image = draw(size)
    want = hf.center_crop(np.asarray(image), crop[::-1], input_data_format=LAST)
    assert np.array_equal(np.asarray(steps.centre_crop(image, crop)), want)


def test_padding_leaves_the_picture_and_colours_the_rest() -> None:
    image = draw((20, 10))
    padded = np.asarray(steps.pad(image, (33, 21), at=(3, 4), colour=(1, 2, 3)))
    assert np.array_equal(padded[4:14, 3:23], np.asarray(image))
    outside = np.ones((21, 33), bool)
    outside[4:14, 3:23] = False
    assert (padded[outside] == (1, 2, 3)).all()


@pytest.mark.parametrize("size", [(30, 7), (7, 30), (8, 8), (7, 8)])
def test_padding_to_a_square_equals_the_processor(size: tuple[int, int]) -> None:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    image = draw(size)
    want = LlavaImageProcessorPil().pad_to_square(np.moveaxis(np.asarray(image), -1, 0), (122, 116, 104))
    got = np.asarray(steps.pad_to_square(image, (122, 116, 104)))
    assert np.array_equal(np.moveaxis(got, -1, 0), want)


@pytest.mark.parametrize("scale", [1 / 255, 1 / 127.5, 0.00392156862745098])
def test_values_are_bit_for_bit_those_of_the_processors(scale: float) -> None:
    image = draw((61, 33))
    scaled = hf.rescale(np.asarray(image), scale, input_data_format=LAST)
    assert np.array_equal(steps.normalise(image, *NONE, scale=scale), scaled)
    want = hf.normalize(scaled, CLIP_MEAN, CLIP_STD, input_data_format=LAST)
    got = steps.normalise(image, CLIP_MEAN, CLIP_STD, scale=scale)
    assert got.dtype == np.float32 and np.array_equal(got, want)


def test_patches_are_what_a_convolution_sees() -> None:
    import torch

    values = steps.normalise(draw((42, 28)), *NONE)
    weight = np.random.default_rng(1).normal(size=(5, 3, 14, 14)).astype(np.float32)
    planes = torch.from_numpy(values).permute(2, 0, 1)[None]
    want = torch.nn.functional.conv2d(planes, torch.from_numpy(weight), stride=14)[0].flatten(1).T
    got = steps.patchify(values, 14) @ weight.reshape(5, -1).T
    assert np.abs(got - want.numpy()).max() < 1e-4


@pytest.mark.parametrize(("block", "frames"), [(1, 1), (2, 2), (2, 1), (3, 2)])
def test_blocks_of_patches_equal_the_processor(block: int, frames: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    values = steps.normalise(draw((84, 168)), *NONE)
    want, _, _ = Qwen2VLImageProcessorPil().patchify(np.moveaxis(values, -1, 0), 14, block, frames)
    assert np.array_equal(steps.patchify(values, 14, block=block, frames=frames), want)


def test_no_step_changes_the_picture() -> None:
    for size in SIZES[:5]:
        picture = open_picture(draw(size, "RGBA"))
        before = picture.pixels.copy()
        image = steps.flatten(picture)
        kept = np.asarray(image).copy()
        steps.resize(image, (30, 40), "bicubic")
        steps.centre_crop(image, (9, 9))
        steps.pad(image, (1700, 1700))
        steps.normalise(image, CLIP_MEAN, CLIP_STD)
        assert np.array_equal(picture.pixels, before) and np.array_equal(np.asarray(image), kept)
