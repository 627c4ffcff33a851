"""The tower and the mergers of MiniCPM-V 4.6 against transformers' class and processor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.models import minicpmv4_6

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from minicpmv4_6_truth import MARKER, MODES, PATCH, TOWERS  # noqa: E402
from vision_mutants import TOWERS as MISTAKES  # noqa: E402
from vision_mutants import patched as replaced  # noqa: E402
from vision_mutants import step, without  # noqa: E402
from vision_truth import MODES as COLOURS  # noqa: E402
from vision_truth import distance, features, opener, patch_rows, picture, spelt  # noqa: E402

# Of one slice and a little more, tall, wide, of many slices, and so long and thin that a side is one square.
SIZES = ((1, 1), (1, 30), (48, 48), (49, 48), (30, 20), (96, 48), (145, 145), (3, 900), (400, 30), (301, 200))


@pytest.fixture(scope="module", params=TOWERS)
def known(request):
    return TOWERS[request.param]


@pytest.fixture(scope="module")
def open_tower(device, known, truth, tmp_path_factory):
    return opener(device, truth, known.write_tower, tmp_path_factory.mktemp("minicpmv"))


@pytest.fixture(scope="module")
def merge(truth):
    return MODES[truth.config.downsample_mode]


def slices(known, image, **options):
    """A picture and its slices as [3, height, width]."""
    made = known.processor().image_processor(image, return_tensors="np", **options)
    values, found, start = made["pixel_values"][0], [], 0
    for high, wide in made["target_sizes"].tolist():
        flat = values[..., start : start + high * wide * PATCH].reshape(3, PATCH, high, wide, PATCH)
        found.append(flat.transpose(0, 2, 1, 3, 4).reshape(3, high * PATCH, wide * PATCH))
        start += high * wide * PATCH
    return found


def rows(pixels):
    """The patches of a slice, as they lie."""
    _, high, wide = pixels.shape
    return patch_rows(pixels, PATCH).reshape(high // PATCH, wide // PATCH, -1)


def packed(pixels):
    """As the class takes it."""
    _, high, wide = pixels.shape
    flat = pixels.reshape(3, high // PATCH, PATCH, wide).transpose(0, 2, 1, 3).reshape(1, 3, PATCH, -1)
    return torch.from_numpy(np.ascontiguousarray(flat)), torch.tensor([[high // PATCH, wide // PATCH]])


def embed(truth, given):
    with torch.inference_mode():
        return np.concatenate([truth.model.get_image_features(*packed(one)).pooler_output[0].numpy() for one in given])


def assert_prepared(known, tower, image, budget=None, **options):
    made = features(tower.layout(open_picture(image).at(budget or PictureBudget())))
    wanted = [rows(one) for one in slices(known, image, **options)]
    assert [one.shape for one in made] == [one.shape for one in wanted]
    assert all(np.abs(one - other).max() <= 1e-5 for one, other in zip(made, wanted, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_all_slices_equal_the_processors(known, tower, size):
    assert_prepared(known, tower, picture(*size))


@pytest.mark.parametrize("mode", COLOURS)
def test_pixels_of_other_modes_equal_the_processors(known, tower, mode):
    assert_prepared(known, tower, picture(93, 61, mode))


@pytest.mark.parametrize("size", SIZES)
def test_markers_and_rows_equal_the_processors(known, tower, size):
    theirs, given = known.processor(), [picture(*size), picture(20, 190, seed=1)]
    text = f"What is {MARKER} and what {MARKER}?"
    first, second, last = text.split(tower.marker)
    layouts = [tower.layout(open_picture(image)) for image in given]
    one, two = (layout.numbered.format(i) + spelt(layout, MARKER) for i, layout in enumerate(layouts))
    ids = theirs(images=given, text=[text])["input_ids"][0].tolist()
    assert theirs.tokenizer(first + one + second + two + last)["input_ids"] == ids


def test_a_picture_is_a_span_for_the_whole_and_one_a_slice(tower, merge):
    patches = tower.layout(open_picture(picture(200, 90)))
    assert len(patches.spans) == 9
    assert all(span.rows == np.prod(span.size) // (PATCH * merge) ** 2 for span in patches.spans)
    assert {span.grid for span in patches.spans} == {None}
    assert patches.spans[6].area == (50.0, 45.0, 100.0, 90.0)
    assert len(patches.rectangles()) == patches.rows


def _tokens(known, given):
    square = PATCH * MODES[known.make().config.downsample_mode]
    return sum(one[0].size // square**2 for one in given)


def test_a_budget_is_the_most_slices_that_it_allows(known, tower):
    image = picture(200, 90)
    most = tower.layout(open_picture(image)).rows // 2
    fewer = tower.layout(open_picture(image).at(PictureBudget(max_image_tokens=most)))
    assert 1 < len(fewer.spans) < 9 and fewer.rows <= most
    allowed = [n for n in range(1, 10) if _tokens(known, slices(known, image, max_slice_nums=n)) <= most]
    assert_prepared(known, tower, image, PictureBudget(max_image_tokens=most), max_slice_nums=allowed[-1])
    assert_prepared(known, tower, image, PictureBudget("low"), slice_mode=False)


def pixels(count, high=32, wide=48):
    return np.random.default_rng(0).standard_normal((count, 3, high, wide)).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 48), (16, 96), (80, 16)])
def test_embeddings_equal_transformers(tower, truth, shape):
    given = pixels(3, *shape)
    assert distance(tower.encode(np.stack([rows(one) for one in given])).numpy(), embed(truth, given)) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    given = pixels(1)
    made = open_tower(half=True).encode(np.stack([rows(one) for one in given])).numpy()
    assert 1e-6 < distance(made, embed(truth, given)) < 5e-3


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = np.stack([rows(one) for one in pixels(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"projector.scale_factor": 3}, "scale_factor is 3"),
        ({"projector.scale_factor": 8}, "scale_factor is 8"),
        ({"wa_layer_indexes": [3]}, r"wa_layer_indexes is \[3\], of 3 layers"),
        ({"wa_layer_indexes": [-1]}, r"wa_layer_indexes is \[-1\]"),
        ({"wa_layer_indexes": [0, 1]}, r"wa_layer_indexes is \[0, 1\]"),
        ({"projection_dim": 63}, "mm.down.weight makes 64 of 192 values, where 63"),
        ({"attention.head_count": 5}, "attn_q|head"),
    ],
)
@pytest.mark.parametrize("known", ["minicpmv4_6"], indirect=True)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys={f"clip.vision.{key}": np.array(value) if isinstance(value, list) else value
                         for key, value in keys.items()})  # fmt: skip


IMAGE = picture(73, 61)


def from_end_to_end(known, encoder, truth):
    """How far the embeddings of a picture are off, from its pixels on."""
    made = [encoder.encode(one[None]).numpy() for one in features(encoder.layout(open_picture(IMAGE)))]
    ours, theirs = np.concatenate(made), embed(truth, slices(known, IMAGE))
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


def merger(part, name, wrong):
    """Of a merger's parts: wrong(right, x, *rest, **options)."""

    def apply(patch, encoder):
        right = getattr(getattr(encoder, part), name)
        patch.setattr(getattr(encoder, part), name, lambda *args, **options: wrong(right, *args, **options))
        return encoder

    return apply


def behind(patch, encoder):
    """It merges a layer later."""
    return replace(encoder, behind=encoder.behind + 1)


MUTANTS = {
    **MISTAKES,
    "squares of squares in raster order": replaced(
        minicpmv4_6, "_order", lambda right, high, wide, twice: right(high, wide, twice=False)
    ),
    "patches in raster order": replaced(
        minicpmv4_6, "_order", lambda right, high, wide, twice: np.arange(high * wide)
    ),
    "merged a layer later": behind,
    "no norm at the end of the tower": without("post_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "nothing is added to the mean": merger("first", "down", lambda right, x, mean: mean),
    "no mean": merger("first", "down", lambda right, x, mean: right(x)),
    "no norm in the first merger": merger("first", "norm", lambda right, x, shape: x),
    "no norm in the last merger": merger("last", "norm", lambda right, x, eps: x),
    "another gelu in the first merger": merger("first", "up", lambda right, x, activation: right(x, activation="silu")),
    "another gelu in the last merger": merger(
        "last", "up", lambda right, x, activation: right(x, activation="gelu_quick")
    ),
    "squares see all": replaced(
        minicpmv4_6, "attention_spans", lambda right, ops, bounds, pictures: right(
            ops, [bounds[0], bounds[-1]], pictures
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("known", ["minicpmv4_6"], indirect=True)
def test_from_pixels_to_embeddings(known, tower, truth):
    assert from_end_to_end(known, tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("known", ["minicpmv4_6"], indirect=True)
def test_mutant_is_seen(monkeypatch, known, open_tower, truth, mutant):
    assert from_end_to_end(known, MUTANTS[mutant](monkeypatch, open_tower()), truth) > 1e-3
