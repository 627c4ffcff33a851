"""The towers of InternVL against transformers' class and processor."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from opsin.errors import OpsinError
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.nn.parts import LayerNorm
from opsin.nn.vit import block_order

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from internvl_truth import (  # noqa: E402
    FOLD,
    MARKER,
    MOST,
    PATCH,
    ROWS,
    SIDE,
    TOWERS,
    processor,
)
from vision_mutants import PLACES, moved, operation, patched, shape, step  # noqa: E402
from vision_mutants import TOWERS as MISTAKES  # noqa: E402
from vision_mutants import tower as tower_of  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

# Of one tile, of a shape between two grids, of several tiles of one shape, tall and wide, long and thin.
SIZES = ((1, 1), (1, 30), (30, 1), (24, 24), (25, 24), (48, 48), (17, 17), (100, 100), (60, 48), (30, 24), (24, 30),
         (72, 48), (30, 400), (301, 200), (640, 361), (500, 499))  # fmt: skip
GRID = SIDE // PATCH


@pytest.fixture(scope="module", params=TOWERS)
def known(request):
    return TOWERS[request.param]


@pytest.fixture(scope="module")
def open_tower(device, known, truth, tmp_path_factory):
    return opener(device, truth, known.write_tower, tmp_path_factory.mktemp("internvl"))


def prepare(image, **options):
    return processor().image_processor(image, return_tensors="np", crop_to_patches=True, **options)["pixel_values"]


def rows(given):
    return np.stack([patch_rows(one, PATCH, FOLD) for one in given])


def embed(truth, given):
    with torch.inference_mode():
        found = truth.model.get_image_features(torch.from_numpy(np.asarray(given))).pooler_output
        return found.numpy().reshape(-1, found.shape[-1])


def assert_prepared(tower, image, **options):
    made = np.stack(features(tower.layout(open_picture(image))))
    wanted = rows(prepare(image, **options))
    made = made.reshape(len(made), -1, made.shape[-1])
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_all_tiles_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    assert_prepared(tower, picture(93, 61, mode))


@pytest.mark.parametrize("bounds", [(1, 1), (1, 12), (4, 9), (5, 5)])
@pytest.mark.parametrize("size", [(24, 24), (100, 100), (301, 200)])
def test_files_say_how_many_tiles_there_are(open_tower, bounds, size):
    names = ("clip.vision.preproc_min_tiles", "clip.vision.preproc_max_tiles")
    limited = open_tower(keys=dict(zip(names, bounds, strict=True)))
    assert_prepared(limited, picture(*size), min_patches=bounds[0], max_patches=bounds[1])


@pytest.mark.parametrize("size", SIZES)
def test_markers_and_rows_equal_the_processors(tower, size):
    theirs, given = processor(), [picture(*size), picture(20, 90, seed=1)]
    text = f"What is {MARKER} and what {MARKER}?"
    ids = theirs([text], given)["input_ids"]
    first, second, last = text.split(tower.marker)
    ours = [spelt(tower.layout(open_picture(image)), MARKER) for image in given]
    spelling = first + ours[0] + second + ours[1] + last
    assert [theirs.tokenizer(spelling)["input_ids"]] == ids
    assert theirs.tokenizer.decode(ids[0]) == spelling


def test_a_picture_is_a_span_a_tile_and_one_for_the_whole(tower):
    patches = tower.layout(open_picture(picture(150, 90)))
    assert patches.markers == ("<img>", "</img>")
    assert patches.whole == patches.size == (72, 48)
    assert [span.rows for span in patches.spans] == [ROWS] * 7
    assert not any(span.atomic for span in patches.spans)
    assert {span.grid for span in patches.spans} == {(3, 3)}
    assert patches.spans[4].area == (50.0, 45.0, 100.0, 90.0)
    assert patches.spans[6].area == (0.0, 0.0, 150.0, 90.0)
    assert len({span.digest for span in patches.spans}) == 7
    assert len(patches.rectangles()) == patches.rows == 7 * ROWS


@pytest.mark.parametrize("size", [(150, 90), (30, 400), (25, 24)])
@pytest.mark.parametrize("budget", [
    PictureBudget(max_image_tokens=5 * ROWS), PictureBudget(max_pixels=3 * SIDE**2), PictureBudget("low"),
    PictureBudget("high"), PictureBudget(max_image_tokens=1),
])  # fmt: skip
def test_a_budget_is_the_number_of_tiles_that_it_allows(tower, size, budget):
    image = picture(*size)
    made = np.stack(features(tower.layout(open_picture(image).at(budget))))
    for most in range(MOST, 0, -1):
        wanted = prepare(image, max_patches=most)
        tiles = max(1, len(wanted) - 1)
        if most == 1 or (budget.detail != "low" and budget.fits((SIDE, tiles * SIDE), ROWS * len(wanted))):
            break
    assert np.abs(made.reshape(len(made), ROWS * FOLD**2, -1) - rows(wanted)).max() <= 1e-5


def test_the_overview_of_many_tiles_is_what_one_tile_shows(open_tower):
    """Equal digests: it is encoded once."""
    image, one = picture(150, 90), open_tower(keys={"clip.vision.preproc_max_tiles": 1})
    alone, last = one.layout(open_picture(image)), open_tower().layout(open_picture(image)).spans[-1]
    assert [span.digest for span in alone.spans] == [last.digest]


def test_a_picture_is_resized_once_for_all_its_tiles(tower, monkeypatch):
    seen = []
    mutant = step("resize", lambda right, image, size, kind: seen.append(size) or right(image, size, kind))
    mutant(monkeypatch, tower)
    patches = tower.layout(open_picture(picture(150, 90)))
    assert not seen
    first = features(patches)
    assert sorted(seen) == [(24, 24), (72, 48)]
    assert all(np.array_equal(a, b) for a, b in zip(first, features(patches), strict=True))


def pixels(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def test_embeddings_equal_transformers(tower, truth):
    given = pixels(3)
    assert distance(tower.encode(rows(given)).numpy(), embed(truth, given)) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    given = pixels(1)
    assert 1e-6 < distance(open_tower(half=True).encode(rows(given)).numpy(), embed(truth, given)) < 5e-3


def test_attention_of_the_tower_is_peaked(truth):
    with torch.inference_mode():
        seen = truth.model.vision_tower(torch.from_numpy(pixels(1)), output_attentions=True).attentions
    assert len(seen) == 3
    assert all(float(weights.amax(-1).mean()) > 0.15 for weights in seen)  # of 37 rows


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = rows(pixels(3))
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.projector.scale_factor": 4}, "6 patches a side are no squares of 4"),
        ({"clip.vision.projector.scale_factor": 3}, "mm.model.mlp.0.weight has 192 values, where 432 are needed"),
        ({"clip.vision.projection_dim": 63}, "mm.model.mlp.3.weight makes 64 of 64 values, where 63 of 64"),
        ({"clip.vision.preproc_max_tiles": 1 << 20}, "preproc_max_tiles 1048576"),
        ({"clip.vision.preproc_min_tiles": 7}, "preproc_min_tiles is 7, preproc_max_tiles 6"),
        ({"clip.vision.preproc_min_tiles": 0}, "preproc_min_tiles is 0"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


IMAGE = picture(150, 90)  # 3 x 2 tiles


def from_end_to_end(encoder, truth):
    """How far the embeddings of a picture are off, from its pixels on."""
    given = np.stack(features(encoder.layout(open_picture(IMAGE))))
    ours, theirs = encoder.encode(given).numpy(), embed(truth, prepare(IMAGE))
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


def raster(count):
    """The class row's position, and those of patches row by row."""
    return np.append(0, 1 + np.argsort(block_order(GRID, GRID, FOLD)))


def across(count):
    """Columns of a square before its rows."""
    return np.arange(count).reshape(-1, FOLD, FOLD).swapaxes(1, 2).reshape(-1)


def channels_first(values, patches):
    return values.reshape(len(values), patches, -1).swapaxes(1, 2).reshape(values.shape)


def blocks(change):
    """Of each layer of the tower, `change(patch, block)`."""

    def apply(patch, encoder):
        for block in encoder.tower.weights.blk:
            change(patch, block)
        return encoder

    return apply


def exchanged(one, other):
    def change(patch, block):
        first, second = getattr(block, one), getattr(block, other)
        patch.setattr(block, one, second)
        patch.setattr(block, other, first)

    return blocks(change)


def row_behind(patch, encoder):
    """The row behind the patches is dropped, not the one before them."""
    right = encoder.tower.without_class
    patch.setattr(type(encoder.tower), "without_class", lambda self, x, given: right(x.ops.take(x, _turned(x)), given))
    return encoder


def _turned(x):
    numbers = np.arange(x.shape[0], dtype=np.int32).reshape(-1, GRID**2 + 1)
    return x.ops.constant(np.roll(numbers, 1, axis=1).reshape(-1))


MUTANTS = {
    **MISTAKES,
    **PLACES,
    "positions in raster order": tower_of(position_embeddings=lambda right: moved(right, raster)),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "columns before rows in a square": operation(
        "fold", lambda right, ops, x, k: right(ops, ops.take(x, ops.constant(across(x.shape[0]))), k)
    ),
    "channels before patches in a square": operation(
        "fold", lambda right, ops, x, k: ops.constant(channels_first(right(ops, x, k).numpy(), k))
    ),
    "the last row is dropped": row_behind,
    "another class row": tower_of(
        position_embeddings=lambda right: moved(right, lambda n: np.append(1, np.arange(1, n)))
    ),
    "attention is not scaled by the layer": blocks(lambda patch, block: patch.setattr(block, "scale1", None)),
    "the FFN is not scaled by the layer": blocks(lambda patch, block: patch.setattr(block, "scale2", None)),
    "the scales of a layer are exchanged": exchanged("scale1", "scale2"),
    "the norms of a layer are exchanged": exchanged("ln1", "ln2"),
    "another eps of the projector's norm": patched(
        LayerNorm, "__call__",
        lambda right, norm, x, eps: right(norm, x, 0.05),
    ),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "tiles hang one row too high": patched(
        Image.Image, "crop", lambda right, image, box: right(image, (box[0], box[1] - 1, box[2], box[3] - 1))
    ),
    "the overview is made of the tiles": step(
        "resize", lambda right, image, size, kind: right(
            right(image, (72, 48), kind) if size == (SIDE, SIDE) else image, size, kind
        )
    ),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 1e-3


def test_the_gelu_is_the_exact_one(monkeypatch, tower, truth):
    """That of tanh, which llama.cpp takes, is so near that no other test sees it."""
    by_tanh = shape(activation="gelu")(monkeypatch, tower)
    assert from_end_to_end(tower, truth) < 1e-5 < from_end_to_end(by_tanh, truth) / 3


@pytest.mark.parametrize("names", [("attn_q_norm", "attn_k_norm"), ("attn_q_norm",)])
def test_norms_of_q_and_k_matter(monkeypatch, tower, truth, names):
    if tower.tower.weights.blk[0].attn.attn_q_norm is None:
        assert truth.config.vision_config.use_qk_norm is False
        return
    right = from_end_to_end(tower, truth)
    for block in tower.tower.weights.blk:
        for name in names:
            monkeypatch.setattr(block.attn, name, None)
    assert from_end_to_end(tower, truth) > 1e-3 > right


def test_more_tiles_than_the_processor_takes_are_seen(open_tower, truth):
    assert from_end_to_end(open_tower(keys={"clip.vision.preproc_max_tiles": MOST - 1}), truth) == 1.0
