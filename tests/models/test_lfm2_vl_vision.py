"""The tower of LFM2-VL against transformers' class and the definition of its processor."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media import sizes
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.models import lfm2_vl

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lfm2_vl_truth import FOLD, MARKER, MOST, PATCH, STEP, TILE, TOWERS, patched, processor  # noqa: E402
from vision_mutants import TOWERS as MISTAKES  # noqa: E402
from vision_mutants import operation, step, without  # noqa: E402
from vision_mutants import patched as replaced  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

# Thin, small, near the most that is not cut, of one and of several shapes of tiles.
SIZES = ((1, 1), (1, 30), (2, 300), (300, 2), (40, 32), (41, 32), (64, 40), (65, 44), (60, 48), (100, 100), (30, 400),
         (301, 200), (640, 361), (500, 499))  # fmt: skip
KEYS = ("image_min_pixels", "image_max_pixels", "preproc_min_tiles", "preproc_max_tiles")


@pytest.fixture(scope="module", params=TOWERS)
def known(request):
    return TOWERS[request.param]


@pytest.fixture(scope="module")
def open_tower(device, known, truth, tmp_path_factory):
    return opener(device, truth, known.write_tower, tmp_path_factory.mktemp("lfm2"))


def shown(image, **options):
    return processor().of(**options).image_processor([image])[1]


def embed(truth, images):
    with torch.inference_mode():
        return torch.cat(truth.model.get_image_features(**patched(images)).pooler_output).numpy()


def assert_prepared(tower, image, budget=None, **options):
    made = features(tower.layout(open_picture(image).at(budget or PictureBudget())))
    wanted = [patch_rows(one, PATCH, FOLD) for one in shown(image, **options)]
    assert [values.reshape(-1, values.shape[-1]).shape for values in made] == [values.shape for values in wanted]
    for ours, theirs in zip(made, wanted, strict=True):
        assert np.abs(ours.reshape(theirs.shape) - theirs).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    image = picture(93, 61, mode)
    flat = image.convert("RGB") if "A" not in mode else open_picture(image).image
    if "A" not in mode:
        assert_prepared(tower, image)
        return
    made = features(tower.layout(open_picture(image)))
    assert len(made) == len(shown(flat))  # on white; the published code leaves what is under transparent pixels


@pytest.mark.parametrize("bounds", [(6, 20, 1, 1), (2, 9, 3, 4), (10, 60, 2, 12)])
@pytest.mark.parametrize("size", [(24, 24), (100, 100), (301, 200)])
def test_files_say_how_pictures_are_cut(open_tower, bounds, size):
    least, most, *tiles = bounds
    told = dict(zip((f"clip.vision.{key}" for key in KEYS), (least * STEP**2, most * STEP**2, *tiles), strict=True))
    assert_prepared(
        open_tower(keys=told), picture(*size), least=least, most=most, fewest=tiles[0], tiles=tiles[1]
    )  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_markers_and_rows_equal_the_processors(tower, size):
    theirs, given = processor(), [picture(*size), picture(20, 90, seed=1)]
    text = f"What is {MARKER} and what {MARKER}?"
    ids = theirs([text], given)["input_ids"]
    first, second, last = text.split(tower.marker)
    ours = [spelt(tower.layout(open_picture(image)), MARKER) for image in given]
    assert [theirs.tokenizer(first + ours[0] + second + ours[1] + last)["input_ids"]] == ids


def test_a_large_picture_is_its_tiles_and_the_whole(tower):
    patches = tower.layout(open_picture(picture(150, 100)))
    assert patches.whole == patches.size == (96, 64)
    assert [span.rows for span in patches.spans[:-1]] == [(TILE // STEP) ** 2] * 6
    assert patches.spans[-1].rows <= MOST and patches.spans[-1].area == (0.0, 0.0, 150.0, 100.0)
    assert patches.spans[4].area == (50.0, 50.0, 100.0, 100.0)
    assert not any(span.atomic for span in patches.spans)
    assert len(patches.rectangles()) == patches.rows


def test_a_budget_takes_tiles_away_and_then_pixels(tower):
    image = picture(150, 100)
    rows = [tower.layout(open_picture(image).at(PictureBudget(max_image_tokens=n))) for n in (1000, 60, 40, 15)]
    assert [len(patches.spans) for patches in rows] == [7, 3, 1, 1]
    assert rows[2].rows <= 40 and rows[3].rows <= 15
    assert_prepared(tower, image, PictureBudget(max_image_tokens=15), most=15, tiles=1)
    assert_prepared(tower, image, PictureBudget("low"), tiles=1)


@pytest.mark.parametrize("size", [(30, 27), (2, 90), (33, 50)])
def test_embeddings_equal_transformers(tower, truth, size):
    image = picture(*size)
    (given,) = features(tower.layout(open_picture(image)))
    assert distance(tower.encode(given[None]).numpy(), embed(truth, shown(image))) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    image = picture(33, 50)
    (given,) = features(open_tower().layout(open_picture(image)))
    assert 1e-6 < distance(open_tower(half=True).encode(given[None]).numpy(), embed(truth, shown(image))) < 5e-3


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = np.stack([features(tower.layout(open_picture(picture(33, 50, seed=i))))[0] for i in range(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"projector.scale_factor": 3}, "values, where|makes|inputs|needed"),
        ({"projector.scale_factor": 17}, "scale_factor is 17"),
        ({"projection_dim": 63}, "mm.2.weight makes 64 of 72 values, where 63 of 72"),
        ({"image_min_pixels": 1 << 20}, "image_min_pixels is 1048576, image_max_pixels 1280"),
        ({"image_max_pixels": 1 << 31}, "image_max_pixels"),
        ({"preproc_min_tiles": 7}, "preproc_min_tiles 7, preproc_max_tiles 6"),
        ({"preproc_max_tiles": 1 << 20}, "preproc_max_tiles 1048576"),
        ({"preproc_tile_size": 33}, "preproc_tile_size is 33, in squares of 8"),
        ({"preproc_tile_size": 1 << 20}, "preproc_tile_size is 1048576"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys={f"clip.vision.{key}": value for key, value in keys.items()})


IMAGES = (picture(72, 60), picture(26, 31, seed=1), picture(2, 150, seed=2))  # cut, coarser than the table, thin


def from_end_to_end(encoder, truth):
    """How far the embeddings of pictures are off, from their pixels on."""
    worst = 0.0
    for image in IMAGES:
        made = [encoder.encode(one[None]).numpy() for one in features(encoder.layout(open_picture(image)))]
        ours, theirs = np.concatenate(made), embed(truth, shown(image))
        worst = max(worst, distance(ours, theirs) if ours.shape == theirs.shape else 1.0)
    return worst


def table(kind):
    return replaced(lfm2_vl, "stretched", lambda right, values, high, wide, _: right(values, high, wide, kind))


def constant(name, value):
    def apply(patch, encoder):
        patch.setattr(lfm2_vl, name, value)
        return encoder

    return apply


def another_gelu(patch, encoder):
    right = encoder.projector.up
    patch.setattr(encoder.projector, "up", lambda x, activation: right(x, activation="gelu_quick"))
    return encoder


def across(count):
    """Columns of a square before its rows."""
    return np.arange(count, dtype=np.int32).reshape(-1, FOLD, FOLD).swapaxes(1, 2).reshape(-1)


MUTANTS = {
    **MISTAKES,
    "a table by straight lines": table("linear"),
    "a table by cubics": table("cubic"),
    "rows and columns of the table are exchanged": replaced(
        lfm2_vl, "stretched", lambda right, values, high, wide, kind: right(
            values.reshape(5, 5, -1).swapaxes(0, 1).reshape(25, -1), high, wide, kind
        ),
    ),
    "positions in raster order": replaced(
        lfm2_vl, "block_order", lambda right, high, wide, block: np.arange(high * wide)
    ),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "columns before rows in a square": operation(
        "fold", lambda right, ops, x, k: right(ops, ops.take(x, ops.constant(across(x.shape[0]))), k)
    ),
    "no norm at the end of the tower": without("post_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bicubic")),
    "thin pictures grow at once": replaced(
        sizes, "fit_pixels", lambda right, *given, thin: right(*given)
    ),
    "cut later": constant("TOLERANCE", 4),
    "another gelu in the projector": another_gelu,
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("known", ["lfm2_vl"], indirect=True)
def test_mutant_is_seen(monkeypatch, open_tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, open_tower()), truth) > 1e-3


@pytest.mark.parametrize("known", ["lfm2_vl"], indirect=True)
def test_the_norm_of_the_projector_is_seen(monkeypatch, open_tower, truth):
    encoder = open_tower()
    monkeypatch.setattr(encoder.projector, "norm", None)
    assert from_end_to_end(encoder, truth) > 1e-3
