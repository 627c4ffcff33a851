"""Squares of pixels as Gemma 4 12B embeds them, against transformers' class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.decode import open_picture
from opsin.models import gemma4_unified

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_unified_truth import SQUARE, TOWERS, as_planes  # noqa: E402
from vision_mutants import patched, step  # noqa: E402
from vision_truth import MODES, distance, features, opener, picture  # noqa: E402

SIZES = ((1, 1), (1, 30), (3, 100), (96, 96), (97, 96), (120, 84), (301, 200), (640, 361), (900, 1))


@pytest.fixture(scope="module")
def known():
    return TOWERS["gemma4_unified"]


@pytest.fixture(scope="module")
def open_tower(device, known, truth, tmp_path_factory):
    return opener(device, truth, known.write_tower, tmp_path_factory.mktemp("squares"))


def prepare(known, image, **options):
    """What transformers makes of a picture, and its squares [high, wide, values] as ours stand."""
    made = known.processor().image_processor([image], return_tensors="np", **options)
    places = made["image_position_ids"][0]
    count = int((places[:, 0] >= 0).sum())
    wide, high = (places[:count].max(0) + 1).tolist()
    return made, as_planes(made["pixel_values"][0][:count]).reshape(high, wide, -1)


def embed(truth, made):
    with torch.inference_mode():
        given = (torch.from_numpy(made[name]) for name in ("pixel_values", "image_position_ids"))
        return torch.cat(truth.model.get_image_features(*given).pooler_output).numpy()


def assert_prepared(known, tower, image, budget=USUAL, **options):
    (made,) = features(tower.layout(open_picture(image).at(budget)))
    wanted = prepare(known, image, **options)[1]
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(known, tower, size):
    assert_prepared(known, tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(known, tower, mode):
    assert_prepared(known, tower, picture(93, 61, mode))


@pytest.mark.parametrize(("budget", "tokens"), [(PictureBudget("high"), 1120), (PictureBudget("low"), 70)])
def test_a_budget_is_the_processors(known, tower, budget, tokens):
    assert_prepared(known, tower, picture(300, 200), budget, max_soft_tokens=tokens)


def from_end_to_end(known, encoder, truth, size=(301, 200)):
    image = picture(*size)
    (given,) = features(encoder.layout(open_picture(image)))
    ours, theirs = encoder.encode(given[None]).numpy(), embed(truth, prepare(known, image)[0])
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


@pytest.mark.parametrize("size", SIZES)
def test_embeddings_equal_transformers(known, tower, truth, size):
    assert from_end_to_end(known, tower, truth, size) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(known, open_tower, truth):
    assert 1e-6 < from_end_to_end(known, open_tower(half=True), truth) < 5e-3


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = np.stack([features(tower.layout(open_picture(picture(96, 60, seed=i))))[0] for i in range(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(("keys", "said"), [
    ({"patch_size": 400}, "squares of 1200 pixels"), ({"patch_size": 3}, "patch_norm.1"),
    ({"image_max_pixels": 7}, "makes 0 tokens"), ({"image_max_pixels": 2**31 - 1}, "tokens"),
    ({"image_max_pixels": 1300 * SQUARE**2}, "v.position_embd.weight"), ({"projection_dim": 63}, "input_projection"),
])  # fmt: skip
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys={f"clip.vision.{key}": value for key, value in keys.items()})


def norm(name):
    def apply(patch, encoder):
        patch.setattr(encoder.weights, name, lambda x, eps: x)
        return encoder

    return apply


def table(change):
    return lambda patch, encoder: replace(encoder, positions=np.ascontiguousarray(change(encoder.positions)))


MUTANTS = {
    **{f"no {name} norm": norm(name) for name in ("first", "second", "third")},
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "no positions": table(np.zeros_like),
    "rows and columns are exchanged": table(lambda values: values[::-1]),
    "another smallest number of the norms": lambda patch, encoder: (
        patch.setattr(gemma4_unified, "EPS", 1e-2), encoder
    )[1],
    "another smallest number of the last norm": lambda patch, encoder: replace(encoder, eps=0.1),
    "squares in another order": patched(
        gemma4_unified, "plane", lambda right, high, wide, block, pictures: right(high, wide, 1, pictures)[::-1]
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, known, open_tower, truth, mutant):
    assert from_end_to_end(known, MUTANTS[mutant](monkeypatch, open_tower()), truth) > 1e-3
