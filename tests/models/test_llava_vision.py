"""LLaVA's tower against transformers' class and processors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError, RequestError
from opsin.media.decode import open_picture

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from llava_truth import LAYERS, PATCH, ROWS, SIDE, llava_truth, processor, write_tower  # noqa: E402
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil  # noqa: E402
from vision_mutants import PLACES, TOWERS, moved, operation, step, without  # noqa: E402
from vision_mutants import tower as tower_of  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

SIZES = ((1, 1), (1, 30), (30, 1), (2, 2), (100, 3), (3, 100), (48, 48), (49, 48), (48, 49), (96, 48), (64, 48),
         (301, 200), (640, 361))  # fmt: skip
PAD = {"clip.vision.image_aspect_ratio": "pad"}


@pytest.fixture(scope="module")
def truth():
    return llava_truth()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def padding(open_tower):
    return open_tower(keys=PAD)


def pixels(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def rows(given):
    return np.stack([patch_rows(one, PATCH) for one in given])


def embed(truth, given):
    with torch.inference_mode():
        found = truth.model.get_image_features(
            torch.from_numpy(given), vision_feature_layer=-2, vision_feature_select_strategy="default"
        )
        return torch.cat(list(found.pooler_output)).numpy()


def padder():
    return LlavaImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_pad=True)


def assert_prepared(encoder, image, theirs):
    (made,) = features(encoder.layout(open_picture(image)))
    wanted = rows(theirs(image, return_tensors="np")["pixel_values"])[0]
    assert np.abs(made.reshape(wanted.shape) - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size), processor().image_processor)


@pytest.mark.parametrize("size", SIZES)
def test_padded_pixels_equal_the_processors(padding, size):
    assert_prepared(padding, picture(*size), padder())


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, padding, mode):
    assert_prepared(tower, picture(93, 61, mode), processor().image_processor)
    assert_prepared(padding, picture(93, 61, mode), padder())


def test_markers_and_rows_equal_the_processors(tower):
    theirs, given = processor(), [picture(64, 48), picture(20, 90, seed=1)]
    text = "What is <image>\nand what <image>?"
    ids = theirs(images=given, text=text)["input_ids"]
    first, second, last = text.split(tower.marker)
    ours = [spelt(tower.layout(open_picture(image)), "<image>") for image in given]
    assert [theirs.tokenizer(first + ours[0] + second + ours[1] + last)["input_ids"]] == ids


def test_a_picture_is_one_span_that_shows_its_middle(tower, padding):
    (span,) = tower.layout(open_picture(picture(96, 48))).spans
    assert (span.rows, span.positions, span.grid, span.atomic) == (ROWS, ROWS, (8, 8), False)
    assert (span.size, span.area) == ((SIDE, SIDE), (24.0, 0.0, 72.0, 48.0))
    (padded,) = padding.layout(open_picture(picture(96, 48))).spans
    assert (padded.size, padded.area) == ((SIDE, SIDE), (0.0, -24.0, 96.0, 72.0))
    assert padded.digest != span.digest


def test_a_picture_that_would_become_too_large_is_refused_before_anything_is_computed(tower, padding):
    long = open_picture(picture(1, 30_000))
    for encoder, size in ((tower, "48 x 1440000"), (padding, "30000 x 30000")):
        with pytest.raises(RequestError, match=f"would have to become {size}") as caught:
            encoder.layout(long)
        assert caught.value.status == 400


def test_embeddings_equal_transformers(tower, truth):
    given = pixels(3)
    assert distance(tower.encode(rows(given)).numpy(), embed(truth, given)) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    given = pixels(1)
    assert 1e-6 < distance(open_tower(half=True).encode(rows(given)).numpy(), embed(truth, given)) < 5e-3


def test_old_files_give_the_same_embeddings(tower, open_tower):
    given = rows(pixels(2))
    assert np.array_equal(open_tower(old=True).encode(given).numpy(), tower.encode(given).numpy())


@pytest.mark.parametrize("layer", [-2, LAYERS - 1])
def test_a_layer_may_be_counted_from_the_end(open_tower, tower, layer):
    told = open_tower(keys={"clip.vision.feature_layer": [layer]})
    assert told.layers == tower.layers == (LAYERS - 1,)


def test_attention_of_the_tower_is_peaked(truth):
    with torch.inference_mode():
        seen = truth.model.vision_tower(torch.from_numpy(pixels(1)), output_attentions=True).attentions
    assert len(seen) == LAYERS
    assert all(float(weights.amax(-1).mean()) > 0.15 for weights in seen)  # of 65 rows


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = rows(pixels(3))
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.feature_layer": [1, 3]}, "mm.0.weight makes 64 of 48 values, where 64 of 96"),
        ({"clip.vision.feature_layer": [5]}, r"feature_layer is \[5\], of 4 layers"),
        ({"clip.vision.feature_layer": [-5]}, r"feature_layer is \[-5\], of 4 layers"),
        ({"clip.vision.mm_patch_merge_type": "spatial_unpad"}, "has no tensor v.image_newline"),
        ({"clip.vision.embedding_length": 40}, "mm.0.weight makes 64 of 48 values, where 64 of 40"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def from_end_to_end(encoder, truth):
    """How far the embeddings of two pictures are off, from their pixels on."""
    images = [picture(93, 61), picture(40, 80, seed=1)]
    given = np.stack([features(encoder.layout(open_picture(image)))[0] for image in images])
    theirs = processor().image_processor(images, return_tensors="np")["pixel_values"]
    return distance(encoder.encode(given).numpy(), embed(truth, theirs))


def keeping(right, ops, x, rows):
    """`take` of the projector's rows, with the class row and without the last patch."""
    return right(ops, x, rows if x.shape[0] != 130 else ops.constant(rows.numpy() - 1))


MUTANTS = {
    **{name: mutant for name, mutant in TOWERS.items() if name != "the last layer is left out"},
    **PLACES,
    "the class row comes last": tower_of(position_embeddings=lambda t: moved(t, lambda n: np.roll(np.arange(n), -1))),
    "the class row is kept": operation("take", keeping),
    "no class embedding": tower_of(position_embeddings=lambda t: moved(t, lambda n: np.maximum(np.arange(n), 1))),
    "the state before the last layer's end": lambda patch, encoder: replace(encoder, layers=(LAYERS - 2,)),
    "the last state": lambda patch, encoder: replace(encoder, layers=(LAYERS,)),
    "no norm at the beginning of the tower": without("pre_ln"),
    "a norm at the end of the tower": operation(
        "take", lambda right, ops, x, rows: right(ops, x, rows) if x.shape[0] != 130 else right(
            ops, ops.layer_norm(x, ops.constant(np.ones(48)), None, 1e-5), rows
        )
    ),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "stretched": step("resize", lambda right, image, size, kind: right(image, (SIDE, SIDE), kind)),
    "the upper left corner": step("centre_crop", lambda right, image, size: image.crop((0, 0, *size))),
    "the exact form of gelu in the tower": tower_of(
        shape=lambda right: replace(right.shape, activation="gelu_erf")
    ),
    "another activation between": operation(
        "linear", lambda right, ops, x, w, bias=None, residual=None, activation=None: right(
            ops, x, w, bias, residual, activation="gelu_quick" if activation == "gelu_erf" else activation
        )
    ),
    "padded": lambda patch, encoder: replace(encoder, padded=True),
    "pictures are exchanged": operation(
        "take",
        lambda right, ops, x, rows: right(
            ops, x, rows if x.shape[0] != 130 else ops.constant(np.roll(rows.numpy(), ROWS))
        ),
    ),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 1e-3
