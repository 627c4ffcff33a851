"""The towers of Qwen2-VL and Qwen2.5-VL against transformers' classes and processor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError, RequestError
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.models import qwen2vl as family

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from qwen2vl_truth import (  # noqa: E402
    LEAST,
    MERGE,
    MOST,
    PAD,
    PATCH,
    WINDOW,
    first_truth,
    processor,
    second_truth,
    write_tower,
)  # fmt: skip
from transformers.vision_utils import get_vision_window_index  # noqa: E402
from vision_mutants import TOWERS, operation, patched, step, without  # noqa: E402
from vision_mutants import tower as tower_of  # noqa: E402
from vision_truth import MODES, distance, features, opener, picture, plane_positions, spelt  # noqa: E402

TRUTHS = {"qwen2vl": first_truth, "qwen2.5vl": second_truth}
SIZES = ((1, 1), (3, 3), (1, 30), (30, 1), (8, 8), (9, 8), (64, 64), (65, 64), (64, 65), (160, 160), (161, 160),
         (301, 200), (640, 361), (20, 400), (400, 20))  # fmt: skip


@pytest.fixture(scope="module", params=TRUTHS)
def truth(request):
    return TRUTHS[request.param]()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("qwen2vl"))


def has_windows(truth):
    return "fullatt_block_indexes" in truth.config.vision_config.to_dict()


def rows(truth, patches, grid):
    """transformers' patches [n, 3 * 2 * patch * patch] as ours: one moment, in the order of windows."""
    once = patches.reshape(len(patches), 3, 2, -1)
    assert np.array_equal(once[:, :, 0], once[:, :, 1])
    squares = once[:, :, 0].reshape(len(patches) // MERGE**2, MERGE**2, -1)
    if has_windows(truth):
        squares = squares[get_vision_window_index(torch.tensor(grid), MERGE, WINDOW, PATCH)[0].numpy()]
    return squares.reshape(*grid[0][1:], -1)


def prepare(images):
    made = processor().image_processor(images, return_tensors="np")
    ends = np.cumsum(made["image_grid_thw"].prod(-1))
    return np.split(made["pixel_values"], ends[:-1]), made["image_grid_thw"]


def embed(truth, patches, grids):
    with torch.inference_mode():
        found = truth.model.get_image_features(torch.from_numpy(np.concatenate(patches)), torch.from_numpy(grids))
    return [one.numpy() for one in found.pooler_output]


def assert_prepared(tower, truth, image):
    (made,) = features(tower.layout(open_picture(image)))
    (patches,), grids = prepare([image])
    wanted = rows(truth, patches, grids)
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, truth, size):
    assert_prepared(tower, truth, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, truth, mode):
    assert_prepared(tower, truth, picture(93, 61, mode))


@pytest.mark.parametrize("size", [(201, 1), (3, 800)])
def test_a_size_that_the_processor_refuses_is_refused(tower, size):
    with pytest.raises(ValueError, match="aspect ratio"):
        prepare([picture(*size)])
    with pytest.raises(RequestError, match="more than 200 times as long") as caught:
        tower.layout(open_picture(picture(*size)))
    assert caught.value.status == 400
    assert tower.layout(open_picture(picture(200, 1))).rows > 0


@pytest.mark.parametrize("size", SIZES)
def test_rows_and_positions_equal_the_processors_and_the_classs(tower, truth, size):
    theirs, given = processor(), [picture(*size), picture(50, 90, seed=1), picture(90, 50, seed=2)]
    text = "A <|vision_start|><|image_pad|><|vision_end|> and <|vision_start|><|image_pad|><|vision_end|>, then" \
           "<|vision_start|><|image_pad|><|vision_end|>?"  # fmt: skip
    made = theirs(images=given, text=[text], return_tensors="pt")
    layouts = [tower.layout(open_picture(image)) for image in given]
    parts = text.split(tower.marker)
    spelling = "".join(part + spelt(layout, "<|image_pad|>") for part, layout in zip(parts, layouts, strict=False))
    spelling += parts[-1]
    assert theirs.tokenizer(spelling)["input_ids"] == made["input_ids"][0].tolist()
    positions, _ = truth.model.get_rope_index(made["input_ids"], made["mm_token_type_ids"], made["image_grid_thw"])
    assert plane_positions(made["input_ids"][0].tolist(), layouts, PAD) == positions[:, 0].T.tolist()


def test_a_picture_is_one_span_of_its_own_size(tower):
    patches = tower.layout(open_picture(picture(100, 64)))
    (span,) = patches.spans
    assert patches.markers == ()
    assert (span.size, span.grid, span.rows, span.positions, span.atomic) == ((96, 64), (8, 12), 96, 12, False)
    assert patches.rectangles()[13] == (100 / 12, 8.0, 200 / 12, 16.0)
    assert len({tower.layout(open_picture(picture(*size))).spans[0].digest for size in SIZES}) == len(SIZES)


@pytest.mark.parametrize("size", [(64, 48), (301, 200), (20, 300), (9, 8)])
@pytest.mark.parametrize(("budget", "bounds"), [
    (PictureBudget(min_pixels=50 * 50, max_pixels=90 * 90), (50 * 50, 90 * 90)),
    (PictureBudget(min_pixels=200 * 200), (200 * 200, 200 * 200)),
    (PictureBudget(max_pixels=400 * 400), (LEAST, 400 * 400)),
    (PictureBudget(min_image_tokens=30, max_image_tokens=60), (30 * 64, 60 * 64)),
    (PictureBudget(max_pixels=5000, max_image_tokens=60), (LEAST, 60 * 64)),
    (PictureBudget("low"), (LEAST, 256 * 64)), (PictureBudget("high"), (LEAST, MOST)),
])  # fmt: skip
def test_a_budget_is_the_processors_bounds(tower, truth, size, budget, bounds):
    least, most = bounds
    layout = tower.layout(open_picture(picture(*size)).at(budget))
    made = processor().image_processor(
        picture(*size), return_tensors="np", size={"shortest_edge": least, "longest_edge": most}
    )
    high, wide = (made["image_grid_thw"][0, 1:] * PATCH).tolist()
    assert layout.size == (wide, high)
    (ours,) = features(layout)
    assert np.abs(ours - rows(truth, made["pixel_values"], made["image_grid_thw"])).max() <= 1e-5


def test_nobody_gets_more_than_the_tower_can(tower):
    asked = PictureBudget(min_pixels=1 << 31)
    layout = tower.layout(open_picture(picture(8, 8)).at(asked))
    assert layout.size[0] * layout.size[1] == tower.tower.shape.most_pixels


def test_files_without_bounds_have_those_of_transformers(open_tower):
    bare = open_tower(keys={"clip.vision.image_min_pixels": 56 * 56, "clip.vision.image_max_pixels": 28 * 28 * 1280})
    assert (bare.least, bare.most) == (family.LEAST, family.MOST)
    defaults = processor().image_processor.__class__().size
    assert (defaults["shortest_edge"], defaults["longest_edge"]) == (family.LEAST, family.MOST)


GRIDS = ((64, 64), (72, 40), (8, 120), (40, 72), (32, 32), (96, 160))


@pytest.mark.parametrize("size", GRIDS)
def test_embeddings_equal_transformers(tower, truth, size):
    (patches,), grids = prepare([picture(*size)])
    ours = tower.encode(rows(truth, patches, grids)[None]).numpy()
    assert distance(ours, embed(truth, [patches], grids)[0]) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    (patches,), grids = prepare([picture(72, 40)])
    ours = open_tower(half=True).encode(rows(truth, patches, grids)[None]).numpy()
    assert 1e-6 < distance(ours, embed(truth, [patches], grids)[0]) < 5e-3


def test_attention_of_the_tower_is_peaked(truth):
    (patches,), grids = prepare([picture(64, 64)])
    with torch.inference_mode():
        seen = truth.model.visual(torch.from_numpy(patches), torch.from_numpy(grids), output_attentions=True).attentions
    assert len(seen) == 4
    assert all(float(weights.amax(-1).mean()) > 0.1 for weights in seen)  # of 256 patches, or 64


@pytest.mark.parametrize("size", GRIDS)
def test_a_batch_equals_its_pictures_one_by_one(tower, size):
    given = np.stack([features(tower.layout(open_picture(picture(*size, seed=i))))[0] for i in range(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.image_min_pixels": MOST + 1}, f"image_min_pixels is {MOST + 1}, image_max_pixels {MOST}"),
        ({"clip.vision.image_max_pixels": 1 << 60}, "image_max_pixels is|image_min_pixels is"),
        ({"clip.vision.spatial_merge_size": 3}, "mm.0.weight makes 192 of 192 values, where 192 of 432"),
        ({"clip.vision.attention.head_count": 8}, "a head of 6 values does not turn"),
        ({"clip.vision.projection_dim": 65}, "mm.2.weight makes 64 of 192 values, where 65"),
        ({"clip.vision.image_min_pixels": 0}, "image_min_pixels is 0"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def from_end_to_end(encoder, truth):
    """How far the embeddings of two pictures are off, from their pixels on."""
    images = [picture(73, 41), picture(73, 41, seed=1)]
    given = np.stack([features(encoder.layout(open_picture(image)))[0] for image in images])
    ours = encoder.encode(given).numpy()
    theirs = np.concatenate(embed(truth, *prepare(images)))
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


def order(**changes):
    """Of the order in which patches stand: a change of what `Order.of` makes."""

    def wrong(right, *args):
        made = right(*args)
        return replace(made, **{name: change(made) for name, change in changes.items()})

    return patched(family.Order, "of", wrong)


MUTANTS = {
    **TOWERS,
    "no 2-D RoPE": operation("rope", lambda right, ops, x, table, pairing: x),
    "rows and columns are exchanged": order(places=lambda right: right.places[:, ::-1].copy()),
    "positions in raster order": order(places=lambda right: right.places[np.lexsort(right.places.T[::-1])]),
    "pairs are neighbours": operation("rope", lambda right, ops, x, table, pairing: right(ops, x, table, "neighbours")),
    "frequencies of a whole head": operation(
        "rope_table",
        lambda right, ops, places, turns, axis: right(
            ops, places, ops.constant((10000.0 ** (-np.arange(6) / 6)).astype(np.float32)), axis=axis
        ),
    ),
    "one base for all families": operation(
        "rope_table",
        lambda right, ops, places, turns, axis: right(ops, places, ops.constant(turns.numpy() ** 1.5), axis=axis),
    ),
    "one moment of the kernel": tower_of(
        weights=lambda right: _without_second(right.weights)
    ),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "no norm at the end of the tower": without("post_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "bars instead of stretching": step(
        "resize", lambda right, image, size, kind: right(image.crop((0, 0, 80, 45)), size, kind)
    ),
    "the tanh form of gelu": operation(
        "linear", lambda right, ops, x, w, bias=None, residual=None, activation=None: right(
            ops, x, w, bias, residual, activation="gelu_quick" if activation == "gelu_erf" else activation
        )
    ),
    "pictures are exchanged": operation(
        "fold", lambda right, ops, x, k: right(ops, ops.take(x, ops.constant(np.roll(np.arange(x.shape[0]), 180))), k)
    ),
}  # fmt: skip
WINDOWS = {
    "no windows": order(windows=lambda right: [0, right.windows[-1]]),
    "windows end one square late": order(windows=lambda right: [right.windows[0], *(n + 4 for n in right.windows[1:-1]),
                                                                right.windows[-1]]),
    "rows stay in the order of windows": order(rows=lambda right: np.arange(len(right.rows), dtype=np.int32)),
    "another layer sees everything": lambda patch, encoder: replace(encoder, whole=3),
    "windows half as large": lambda patch, encoder: replace(encoder, window=2),
}  # fmt: skip


def _without_second(weights):
    embedding = weights.patch_embd.__class__.__new__(weights.patch_embd.__class__)
    vars(embedding).update({**vars(weights.patch_embd), "second": None})
    other = weights.__class__.__new__(weights.__class__)
    vars(other).update({**vars(weights), "patch_embd": embedding})
    return other


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", {**MUTANTS, **WINDOWS})
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    if mutant in WINDOWS and not has_windows(truth):
        pytest.skip("has no windows")
    assert from_end_to_end({**MUTANTS, **WINDOWS}[mutant](monkeypatch, tower), truth) > 1e-3
