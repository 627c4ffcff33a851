"""Steps of preparation that a person swaps, and where parts of a model are computed, in the Python surface."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_api_pictures import OPTIONS, ask, model, pair, picture, png, tiled  # noqa: F401 - fixtures

import opsin
from opsin.media import steps

PICTURE = picture(90, 50)


def features(patches):
    return [span.features.make() for span in patches.spans]


def nearest(image, size, filter):
    return steps.resize(image, size, "nearest")


def test_another_filter_is_used_wherever_the_family_resizes(model, tiled):  # noqa: F811
    (span,) = model.prepare(PICTURE, steps={"resize": nearest}).spans
    by_hand = model.prepare(PICTURE.resize(span.size, Image.Resampling.NEAREST))
    assert np.array_equal(span.features.make(), features(by_hand)[0])
    assert not np.array_equal(span.features.make(), features(model.prepare(PICTURE))[0])
    told = []

    def watched(image, size, filter):
        told.append((size, filter))
        return steps.resize(image, size, filter)

    patches = tiled.prepare(PICTURE, steps={"resize": watched})
    assert [filter for _, filter in told] == ["lanczos"] * 3  # to the sheet, to whole tiles, and the whole to one tile
    assert told[1][0] == patches.whole
    for ours, usual in zip(features(patches), features(tiled.prepare(PICTURE)), strict=True):
        assert np.array_equal(ours, usual)


def test_the_picture_may_be_changed_before_all_else(model):  # noqa: F811
    def turned(given, background=steps.WHITE):
        return ImageOps.mirror(steps.flatten(given, background))

    patches = model.prepare(PICTURE, steps={"flatten": turned})
    assert np.array_equal(features(patches)[0], features(model.prepare(ImageOps.mirror(PICTURE)))[0])


def test_numbers_may_be_scaled_otherwise(model):  # noqa: F811
    def halved(image, mean, std, **options):
        return steps.normalise(image, mean, std, **options) / 2

    made = features(model.prepare(PICTURE, steps={"normalise": halved}))[0]
    assert np.array_equal(made, features(model.prepare(PICTURE))[0] / 2)
    assert made.dtype == np.float32


def test_a_picture_with_own_steps_is_another_picture_to_all_caches(model):  # noqa: F811
    plain, own = model.prepare(PICTURE), model.prepare(PICTURE, steps={"resize": nearest})
    again = model.prepare(PICTURE, steps={"resize": nearest})
    assert own.spans[0].digest == again.spans[0].digest != plain.spans[0].digest
    assert not np.allclose(model.encode(plain).values, model.encode(own).values)
    by_hand = model.prepare(PICTURE.resize(own.size, Image.Resampling.NEAREST))
    assert np.array_equal(model.encode(own).values, model.encode(by_hand).values)
    told = [model.chat(ask(one, "What is this?"), **OPTIONS).text for one in (plain, own, by_hand)]
    assert told[1] == told[2] != told[0]


def test_what_a_step_raises_is_told_as_it_is(model):  # noqa: F811
    def fail(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.prepare(PICTURE, steps={"resize": fail})


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"sharpen": nearest}, "'sharpen' is no step"),
        ({"centre_crop": steps.centre_crop}, "no step 'centre_crop'"),
        ({"resize": lambda image, size, filter: image}, "'resize' gave RGB (90, 50)"),
        ({"resize": lambda image, size, filter: image.resize(size).convert("L")}, "'resize' gave L"),
        ({"flatten": lambda given: None}, "'flatten' gave NoneType"),
        ({"normalise": lambda image, *_: np.zeros(5)}, "'normalise' gave float64 of shape [5]"),
        ({"normalise": lambda image, *_: np.full((32, 32, 3), np.nan)}, "'normalise' gave float64"),
        ({"patchify": lambda values, *_, **__: values}, "'patchify' gave float32"),
    ],
)
def test_a_step_that_does_not_do_its_part_is_named(model, own, said):  # noqa: F811
    with pytest.raises(opsin.OpsinError) as caught:
        model.prepare(PICTURE, steps=own)
    assert said in str(caught.value)


def test_a_prepared_picture_has_no_steps_before_it(model):  # noqa: F811
    with pytest.raises(opsin.OpsinError, match="prepared already"):
        model.prepare(model.prepare(PICTURE), steps={"resize": nearest})


def test_each_part_says_where_it_is_computed(pair):  # noqa: F811
    for device in ("cpu", {"vision": "cpu"}, {"text": "cpu", "vision": "cpu"}):
        with opsin.load(pair[0], threads=1, context=128, sequences=1, device=device) as made:
            assert made.has_vision


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", "there is no device 'cuda' for text (there is cpu)"),
        ({"vision": "cuda:0"}, "there is no device 'cuda:0' for vision (there is cpu)"),
        ({"text": "cpu", "vision": None}, "there is no device None for vision"),
        ({"sound": "cpu"}, "parts are text, vision"),
    ],
)
def test_a_device_that_is_not_there_names_the_part_and_what_exists(device, said):
    with pytest.raises(opsin.OpsinError) as caught:
        opsin.load("never-read.gguf", device=device)
    assert said in str(caught.value)
