"""What all families do with what is asked of a picture, and how boxes that they see lie in the original."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from opsin.errors import RequestError
from opsin.gguf import File
from opsin.media import steps
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.decode import open_picture
from opsin.media.picture import Picture
from opsin.media.swapping import StepOverrides
from opsin.models import load_encoder
from opsin.nn.meta import MetaReader

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import truths  # noqa: E402
from vision_truth import features, picture  # noqa: E402

BUDGETS = [
    PictureBudget(detail, *bounds)
    for detail, bounds in itertools.product(
        ("auto", "low", "high"),
        ((), (None, 3000), (20_000,), (None, None, None, 40), (None, None, 300), (None, 90_000, None, 90)),
    )
]
# Stretched, cropped, padded, cut into tiles, kept in their shape.
KINDS = (
    "gemma3",
    "llava",
    "llava that pads",
    "idefics3",
    "qwen2.5vl",
    "qwen3vl",
    "internvl",
    "lfm2_vl",
    "minicpmv2.6",
    "minicpmv4_6",
    "mllama_vision",
    "pixtral",
    "mistral small",
)
SIDES = st.integers(1, 900)


def opened(kind, folder):
    with File.open(truths.LAYOUTS[kind].write(folder / "tower.gguf")) as file:
        return load_encoder(file, MetaReader(file))


@pytest.fixture(scope="module", params=truths.LAYOUTS)
def encoder(request, tmp_path_factory):
    return opened(request.param, tmp_path_factory.mktemp("towers"))


@settings(max_examples=60, deadline=None)
@given(width=SIDES, height=SIDES, number=st.integers(0, len(BUDGETS) - 1))
def test_each_budget_is_met_or_nothing_smaller_is_there(encoder, width, height, number):
    given, budget = Picture(Image.new("L", (width, height)), None, b"unseen"), BUDGETS[number]
    try:
        usual, asked, least = (encoder.layout(given.at(b)) for b in (USUAL, budget, PictureBudget("low")))
    except RequestError:
        return
    if budget == USUAL:
        assert asked == usual
    if budget.max_image_tokens is not None and asked.rows > budget.max_image_tokens:
        assert asked.rows <= usual.rows and asked.rows <= max(least.rows, 4)
    if budget.detail == "low" and not (budget.min_pixels or budget.min_image_tokens):
        assert asked.rows <= usual.rows
    assert len(asked.rectangles()) == asked.rows
    assert asked.original == (width, height)
    assert len({(span.digest, span.first) for span in asked.spans}) == len(asked.spans)


@pytest.mark.parametrize("size", [(301, 200), (90, 700), (1100, 330), (50, 50)])
def test_equal_digests_are_equal_features_whatever_was_asked(encoder, size):
    known, image = {}, open_picture(picture(*size))
    for budget in BUDGETS:
        patches = encoder.layout(image.at(budget))
        for span, made in zip(patches.spans, features(patches), strict=True):
            before = known.setdefault(span.digest, made)
            assert np.array_equal(made, before), budget
    assert len(known) >= len({span.digest for span in encoder.layout(image).spans})


def seen(encoder, given):
    """A picture as it is processed: one image, or the tiles of a sheet."""
    images = []

    def watched(image, *args, **options):
        images.append(image)
        return steps.normalise(image, *args, **options)

    overrides = StepOverrides({"normalise": watched})
    patches = encoder.layout(given)
    with overrides.active():
        features(patches)
    if patches.whole is None:
        return patches, images[0].crop((0, 0, *patches.size))  # what is on a canvas lies in its corner
    sheet = Image.new("RGB", patches.whole)
    for span, image in zip(patches.spans, images, strict=True):
        left, top, right, bottom = span.area
        if (right - left, bottom - top) != patches.original or len(images) == 1:  # no overview of many
            place = (left / patches.original[0] * sheet.width, top / patches.original[1] * sheet.height)
            sheet.paste(image, tuple(map(round, place)))
    return patches, sheet


@pytest.mark.parametrize(("size", "box"), [
    ((400, 300), (150, 100, 250, 200)), ((640, 200), (290, 60, 360, 130)), ((210, 500), (60, 200, 140, 300)),
])  # fmt: skip
@pytest.mark.parametrize("detail", ["auto", "low"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_that_is_seen_maps_back_to_the_original(tmp_path, kind, size, box, detail):
    encoder = opened(kind, tmp_path)
    image = Image.new("RGB", size, "black")
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill="white")
    patches, processed = seen(encoder, open_picture(image).at(PictureBudget(detail)))
    assert processed.size == patches.size
    bright = np.asarray(processed.convert("L")) > 127
    xs, ys = np.flatnonzero(bright.any(0)), np.flatnonzero(bright.any(1))
    found = (float(xs[0]), float(ys[0]), float(xs[-1]) + 1, float(ys[-1]) + 1)
    (x0, y0, x1, y1), (wide, high) = patches.area, patches.size
    off = 1.01 * max((x1 - x0) / wide, (y1 - y0) / high)  # a pixel of what is processed
    assert np.abs(np.subtract(patches.to_original(found), box)).max() <= off
    thousandths = tuple(1000 * value / side for value, side in zip(found, (wide, high, wide, high), strict=True))
    assert patches.to_original(thousandths, (1000, 1000)) == pytest.approx(patches.to_original(found))
    if not patches.rows:
        return
    # The rows that show it: their rectangles are where the box is.
    rows = [r for r in patches.rectangles() if r[0] < box[2] and r[2] > box[0] and r[1] < box[3] and r[3] > box[1]]
    assert rows and min(r[0] for r in rows) <= box[0] and max(r[3] for r in rows) >= box[3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_cut_at_the_edges_of_the_original(tmp_path, kind):
    patches = opened(kind, tmp_path).layout(open_picture(picture(300, 200)))
    assert patches.to_original((-1e9, -1e9, 1e9, 1e9)) == (0, 0, 300, 200)
