"""Layouts of pictures of any size: what is promised before anything is computed holds, or the picture is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from opsin.errors import RequestError
from opsin.gguf import File
from opsin.media.picture import Picture
from opsin.models import load_encoder
from opsin.nn.meta import MetaReader

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import truths  # noqa: E402
from vision_truth import features  # noqa: E402

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 1000), st.integers(1, 32_768))


@pytest.fixture(scope="module", params=truths.LAYOUTS)
def encoder(request, tmp_path_factory):
    path = truths.LAYOUTS[request.param].write(tmp_path_factory.mktemp("towers") / "tower.gguf")
    with File.open(path) as file:
        return load_encoder(file, MetaReader(file))


class Unseen:
    """An image of some size that nobody may look at."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height, self.size = width, height, (width, height)


@settings(max_examples=150, deadline=None)
@given(width=SIDES, height=SIDES)
@example(width=32_768, height=1)
@example(width=1, height=32_768)
@example(width=200, height=1)
@example(width=4097, height=4096)
def test_a_layout_touches_no_pixel_and_its_numbers_agree(encoder, width, height):
    try:
        patches = encoder.layout(Picture(Unseen(width, height), None, b"unseen"))
    except RequestError as error:
        assert error.status == 400 and error.hint and f"{width} x {height}" in str(error)
        return
    assert patches.original == (width, height)
    assert len(patches.rectangles()) == patches.rows == sum(span.rows for span in patches.spans)
    assert patches.embedded > 0
    assert len({(span.digest, span.first) for span in patches.spans}) == len(patches.spans)
    for span in patches.spans:
        assert 0 < np.prod(span.features.shape) * 4 < 1 << 28
        if span.memory:
            assert (span.rows, span.positions) == (0, 0)
            continue
        high, wide = span.grid or (1, span.rows)
        assert high * wide == span.rows
        assert span.positions >= max(high, wide) or span.canvas is not None


@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 9))
def test_features_have_the_promised_shape(encoder, width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    try:
        patches = encoder.layout(Picture(Image.fromarray(pixels), None, b"seen"))
    except RequestError:
        return
    assert all(np.isfinite(made).all() for made in features(patches))
