"""Gemma 3's tower against transformers' class and processor."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media import steps
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.nn.vit import block_order

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma3_truth import PATCH, POOL, ROWS, SIDE, SOFT, gemma3_truth, processor, write_tower  # noqa: E402
from vision_mutants import PLACES, TOWERS, moved, operation, step, without  # noqa: E402
from vision_mutants import tower as tower_of  # noqa: E402
from vision_truth import MODES, SIZES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402


@pytest.fixture(scope="module")
def truth():
    return gemma3_truth()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("gemma3"))


def pixels(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def embed(truth, given):
    with torch.inference_mode():
        return truth.model.get_image_features(torch.from_numpy(given)).pooler_output.flatten(0, 1).numpy()


def rows(given):
    return np.stack([patch_rows(one, PATCH, POOL) for one in given])


def assert_prepared(tower, image):
    (made,) = features(tower.layout(open_picture(image)))
    theirs = processor().image_processor(image, return_tensors="np")["pixel_values"]
    wanted = rows(theirs)[0]
    assert np.abs(made.reshape(wanted.shape) - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    assert_prepared(tower, picture(93, 61, mode))


def test_markers_and_rows_equal_the_processors(tower):
    theirs = processor()
    given = [picture(64, 48), picture(20, 90, seed=1)]
    text = "What is <start_of_image> and what <start_of_image>?"
    ids = theirs(images=given, text=text)["input_ids"]
    parts = text.split(tower.marker)
    spelling = parts[0] + "".join(
        spelt(tower.layout(open_picture(image)), SOFT) + part for image, part in zip(given, parts[1:], strict=True)
    )
    assert [theirs.tokenizer(spelling)["input_ids"]] == ids
    assert theirs.tokenizer.decode(ids[0]) == spelling


SCAN = {"pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2}


@pytest.mark.parametrize(("size", "crops"), [
    ((800, 300), 3), ((300, 800), 3), ((2000, 301), 4), ((601, 500), 2), ((599, 500), 0), ((500, 500), 0),
    ((400, 255), 0),
])  # fmt: skip
@pytest.mark.parametrize("most", [4, 2, 1])
def test_at_high_detail_it_pans_and_scans(tower, size, crops, most):
    image, theirs = picture(*size), processor()
    budget = PictureBudget("high", max_image_tokens=ROWS * (1 + most))
    patches = tower.layout(open_picture(image).at(budget if most < 4 else PictureBudget("high")))
    scan = most > 1 and {"do_pan_and_scan": True, **SCAN, "pan_and_scan_max_num_crops": most}
    made = theirs(images=[image], text="So <start_of_image>?", images_kwargs=scan or {}, return_tensors="np")
    assert len(patches.spans) == 1 + (min(crops, most) if most > 1 else 0) == len(made["pixel_values"])
    assert theirs.tokenizer(f"So {spelt(patches, SOFT)}?")["input_ids"] == made["input_ids"][0].tolist()
    wanted = rows(made["pixel_values"])
    for ours, right in zip(features(patches), wanted, strict=True):
        assert np.abs(ours.reshape(right.shape) - right).max() <= 1e-5


def test_each_crop_says_what_it_shows(tower):
    patches = tower.layout(open_picture(picture(800, 301)).at(PictureBudget("high")))
    assert [span.area for span in patches.spans[1:]] == [(0, 0, 267, 301), (267, 0, 534, 301), (534, 0, 800, 301)]
    assert all(span.atomic and span.grid == (4, 4) for span in patches.spans)
    assert (patches.area, patches.size) == ((0, 0, 800, 301), (SIDE, SIDE))
    assert len({span.digest for span in patches.spans}) == 4


def test_a_picture_is_one_span_whose_rows_see_each_other(tower):
    patches = tower.layout(open_picture(picture(64, 48)))
    (span,) = patches.spans
    assert (span.rows, span.positions, span.grid, span.atomic) == (ROWS, ROWS, (4, 4), True)
    assert (span.size, patches.size, patches.original) == ((SIDE, SIDE), (SIDE, SIDE), (64, 48))
    assert patches.rectangles()[5] == (16.0, 12.0, 32.0, 24.0)


def test_equal_digests_mean_equal_pixels_and_preparation(tower, open_tower):
    def digest(encoder, image):
        return encoder.layout(open_picture(image)).spans[0].digest

    assert digest(tower, picture(64, 48)) == digest(tower, picture(64, 48))
    assert digest(tower, picture(64, 48)) != digest(tower, picture(64, 48, seed=1))
    assert digest(tower, picture(64, 48)) != digest(open_tower(mean=0.4), picture(64, 48))


def test_embeddings_equal_transformers(tower, truth):
    given = pixels(3)
    assert distance(tower.encode(rows(given)).numpy(), embed(truth, given)) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    given = pixels(1)
    found = distance(open_tower(half=True).encode(rows(given)).numpy(), embed(truth, given))
    assert 1e-6 < found < 5e-3


def test_attention_of_the_tower_is_peaked(truth):
    with torch.inference_mode():
        seen = truth.model.vision_tower(torch.from_numpy(pixels(1)), output_attentions=True).attentions
    assert len(seen) == 3
    assert all(float(weights.amax(-1).mean()) > 0.15 for weights in seen)  # of 64 patches


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = rows(pixels(3))
    together = tower.encode(given).numpy()
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(together, np.concatenate(alone))


def test_exchanged_names_of_the_feed_forward_part_are_understood(tower, open_tower):
    given = rows(pixels(1))
    assert np.array_equal(open_tower(exchanged=True).encode(given).numpy(), tower.encode(given).numpy())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": 3}, "8 patches a side are not averaged by 3"),
        ({"keys": {"clip.vision.image_size": 57}}, "image_size is 57 and clip.vision.patch_size 7"),
        ({"keys": {"clip.vision.image_size": 63}, "pool": 3}, r"v.position_embd.weight is \(64, 48\); \(81, 48\)"),
        ({"keys": {"clip.vision.patch_size": 14}}, r"v.patch_embd.weight is \(48, 147\)"),
        ({"keys": {"clip.vision.block_count": 4}}, "holds 3 of its 4 layers"),
        ({"keys": {"clip.vision.projection_dim": 65}}, "mm.input_projection.weight makes 64 of 48 values"),
        ({"keys": {"clip.vision.image_std": np.float32([1, 0, 1])}}, "image_std"),
        ({"keys": {"clip.vision.attention.layer_norm_epsilon": -1.0}}, "layer_norm_epsilon is -1"),
        ({"keys": {"clip.use_silu": True}}, "use_gelu and clip.use_silu"),
        (
            {"keys": {"clip.vision.embedding_length": (1 << 31) - 1}},
            "mm.soft_emb_norm.weight has 48 values, where 2147483647",
        ),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, options, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(**options)


def from_end_to_end(encoder, truth):
    """How far the embeddings of two pictures are off, from their pixels on."""
    images = [picture(93, 61), picture(40, 80, seed=1)]
    given = [features(encoder.layout(open_picture(image)))[0] for image in images]
    theirs = processor().image_processor(images, return_tensors="np")["pixel_values"]
    return distance(encoder.encode(np.stack(given)).numpy(), embed(truth, theirs))


def raster(count):
    return np.argsort(block_order(8, 8, POOL))


MUTANTS = {
    **TOWERS,
    **PLACES,
    "positions in raster order": tower_of(position_embeddings=lambda right: moved(right, raster)),
    "neighbours of a row are averaged": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "no norm at the end of the tower": without("post_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bicubic")),
    "bars instead of stretching": step(
        "resize", lambda right, image, size, kind: right(steps.pad_to_square(image, (0, 0, 0)), size, kind)
    ),
    "one patch of a square instead of their mean": operation(
        "mean_rows", lambda right, ops, x, k: ops.take(x, ops.constant(np.arange(0, x.shape[0], k)))
    ),
    "no norm before the projection": operation(
        "rms_norm", lambda right, ops, x, w, eps: right(ops, x, ops.constant(np.ones(x.width, np.float32)), eps)
    ),
    "pictures are exchanged": operation(
        "mean_rows", lambda right, ops, x, k: ops.take(right(ops, x, k), ops.constant(np.roll(np.arange(32), 16)))
    ),
}


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 1e-3
