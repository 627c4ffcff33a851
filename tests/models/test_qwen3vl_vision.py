"""The tower of Qwen3-VL against transformers' class, and the processor of Qwen2-VL, which it has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.decode import open_picture
from opsin.models import qwen3vl as family

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from qwen3vl_truth import (  # noqa: E402
    DEEP,
    LAYERS,
    LEAST,
    MOST,
    PAD,
    SIDE,
    TURN,
    processor,
    third_truth,
    write_tower,
)  # fmt: skip
from vision_mutants import TOWERS, one_moment, operation, patched, step, without  # noqa: E402
from vision_truth import MODES, distance, features, opener, picture, plane_positions, spelt  # noqa: E402

SIZES = ((1, 1), (3, 3), (1, 30), (30, 1), (8, 8), (9, 8), (64, 64), (65, 64), (64, 65), (160, 160), (161, 160),
         (301, 200), (640, 361), (20, 400), (400, 20))  # fmt: skip
# Of the table's own grid, less than it in both ways, in one, and much more.
GRIDS = ((64, 64), (72, 40), (8, 120), (120, 8), (40, 72), (32, 32), (96, 160), (160, 160))


@pytest.fixture(scope="module")
def truth():
    return third_truth()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("qwen3vl"))


def rows(patches, grid):
    """transformers' patches [n, 3 * 2 * patch * patch] as ours, of one moment."""
    once = patches.reshape(len(patches), 3, 2, -1)
    assert np.array_equal(once[:, :, 0], once[:, :, 1])
    return once[:, :, 0].reshape(*grid[0][1:], -1)


def prepare(images, **options):
    made = processor().image_processor(images, return_tensors="np", **options)
    ends = np.cumsum(made["image_grid_thw"].prod(-1))
    return np.split(made["pixel_values"], ends[:-1]), made["image_grid_thw"]


def embed(truth, patches, grids):
    """For each picture its embeddings and, beside them, its parts for later layers."""
    with torch.inference_mode():
        found = truth.model.get_image_features(torch.from_numpy(np.concatenate(patches)), torch.from_numpy(grids))
    parts = [found.pooler_output, *found.deepstack_features]
    return [torch.cat(of_one, 1).numpy() for of_one in zip(*parts, strict=True)]


def assert_prepared(tower, image, budget=USUAL, **options):
    (made,) = features(tower.layout(open_picture(image).at(budget)))
    (patches,), grids = prepare([image], **options)
    wanted = rows(patches, grids)
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size))


@pytest.mark.parametrize("size", [(64, 48), (301, 200), (20, 300)])
@pytest.mark.parametrize(("budget", "bounds"), [
    (PictureBudget(min_pixels=50 * 50, max_pixels=90 * 90), (50 * 50, 90 * 90)),
    (PictureBudget(max_image_tokens=60), (LEAST, 60 * 64)), (PictureBudget("low"), (LEAST, 256 * 64)),
])  # fmt: skip
def test_a_budget_is_the_processors_bounds(tower, size, budget, bounds):
    assert_prepared(
        tower, picture(*size), budget, size=dict(zip(("shortest_edge", "longest_edge"), bounds, strict=True))
    )


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    assert_prepared(tower, picture(93, 61, mode))


@pytest.mark.parametrize("size", SIZES)
def test_rows_and_positions_equal_the_processors_and_the_classs(tower, truth, size):
    theirs, given = processor(), [picture(*size), picture(50, 90, seed=1), picture(90, 50, seed=2)]
    text = f"A {TURN} and {TURN}, then{TURN}?"
    made = theirs(images=given, text=[text], return_tensors="pt")
    layouts = [tower.layout(open_picture(image)) for image in given]
    parts = text.split(tower.marker)
    spelling = "".join(part + spelt(layout, "<|image_pad|>") for part, layout in zip(parts, layouts, strict=False))
    ids = made["input_ids"][0].tolist()
    assert theirs.tokenizer(spelling + parts[-1])["input_ids"] == ids
    positions, _ = truth.model.get_rope_index(made["input_ids"], made["mm_token_type_ids"], made["image_grid_thw"])
    assert plane_positions(ids, layouts, PAD) == positions[:, 0].T.tolist()


def test_a_picture_is_one_span_of_its_own_size(tower):
    patches = tower.layout(open_picture(picture(100, 64)))
    (span,) = patches.spans
    assert patches.markers == ()
    assert (span.size, span.grid, span.rows, span.positions, span.atomic) == ((96, 64), (8, 12), 96, 12, False)
    assert len({tower.layout(open_picture(picture(*size))).spans[0].digest for size in SIZES}) == len(SIZES)


def test_a_file_without_bounds_has_those_of_published_models(open_tower):
    keys = {"clip.vision.image_min_pixels": None, "clip.vision.image_max_pixels": None}
    with pytest.raises(OpsinError, match="image_min_pixels is 65536, image_max_pixels 16777216"):
        open_tower(keys=keys)  # more rows than are allowed, of patches so small


@pytest.mark.parametrize("size", GRIDS)
def test_embeddings_equal_transformers(tower, truth, size):
    (patches,), grids = prepare([picture(*size)])
    ours, theirs = tower.encode(rows(patches, grids)[None]).numpy(), embed(truth, [patches], grids)[0]
    for part in range(1 + len(DEEP)):  # each by itself: they may be of different sizes
        own = slice(64 * part, 64 * part + 64)
        assert distance(ours[:, own], theirs[:, own]) < 1e-4
    assert tower.width == ours.shape[1] == 64 * (1 + len(DEEP))


def test_embeddings_from_halves_are_near(open_tower, truth):
    (patches,), grids = prepare([picture(72, 40)])
    ours = open_tower(half=True).encode(rows(patches, grids)[None]).numpy()
    assert 1e-6 < distance(ours, embed(truth, [patches], grids)[0]) < 5e-3


def test_attention_of_the_tower_is_peaked(truth):
    (patches,), grids = prepare([picture(64, 64)])
    with torch.inference_mode():
        seen = truth.model.visual(torch.from_numpy(patches), torch.from_numpy(grids), output_attentions=True).attentions
    assert len(seen) == LAYERS
    assert all(float(weights.amax(-1).mean()) > 0.1 for weights in seen)  # of 256 patches


@pytest.mark.parametrize("size", GRIDS)
def test_a_batch_equals_its_pictures_one_by_one(tower, size):
    given = np.stack([features(tower.layout(open_picture(picture(*size, seed=i))))[0] for i in range(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


def test_a_tower_without_parts_for_later_layers_gives_plain_embeddings(open_tower, truth):
    plain = open_tower(keys={"clip.vision.is_deepstack_layers": None})
    (patches,), grids = prepare([picture(72, 40)])
    assert plain.width == 64
    assert distance(plain.encode(rows(patches, grids)[None]).numpy(), embed(truth, [patches], grids)[0][:, :64]) < 1e-4


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.image_min_pixels": MOST + 1}, f"image_min_pixels is {MOST + 1}, image_max_pixels {MOST}"),
        ({"clip.vision.spatial_merge_size": 3}, "mm.0.weight makes 192 of 192 values, where 192 of 432"),
        ({"clip.vision.attention.head_count": 8}, "a head of 6 values does not turn"),
        ({"clip.vision.projection_dim": 65}, "mm.2.weight makes 64 of 192 values, where 65"),
        ({"clip.vision.image_size": 24}, r"v.position_embd.weight is \(25, 48\), where \(36, 48\) is needed"),
        ({"clip.vision.is_deepstack_layers": [True] * 3}, "is_deepstack_layers tells of 3 layers, of 4"),
        ({"clip.vision.is_deepstack_layers": [True] * 4}, "has no tensor v.deepstack.1.norm.weight"),
        ({"clip.vision.is_deepstack_layers": [2, 0, 0, 1]}, "is_deepstack_layers"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def from_end_to_end(encoder, truth):
    """How far the embeddings of two pictures are off, from their pixels on: the worst of their parts."""
    images = [picture(73, 41), picture(73, 41, seed=1)]
    given = np.stack([features(encoder.layout(open_picture(image)))[0] for image in images])
    ours, theirs = encoder.encode(given).numpy(), np.concatenate(embed(truth, *prepare(images)))
    if ours.shape != theirs.shape:
        return 1.0
    parts = zip(np.split(ours, 1 + len(DEEP), 1), np.split(theirs, 1 + len(DEEP), 1), strict=True)
    return max(distance(one, other) for one, other in parts)


def table(change):
    """Of the table of positions, [side, side, width]."""

    def apply(patch, encoder):
        square = encoder.positions.reshape(SIDE, SIDE, -1)
        return replace(encoder, positions=np.ascontiguousarray(change(square)).reshape(SIDE**2, -1))

    return apply


def stretched(wrong):
    """Of how the table is stretched, which is told as float places along a side."""

    def apply(patch, encoder):
        right = np.linspace
        patch.setattr(np, "linspace", lambda first, last, count: wrong(right(first, last, count), last, count))
        return encoder

    return apply


def mergers(change):
    return lambda patch, encoder: replace(encoder, mergers=change(encoder.mergers))


def parts(change):
    """Of the parts of an embedding, a list of arrays."""

    def apply(patch, encoder):
        right = np.concatenate

        def wrong(arrays, axis=0):
            return right(change(list(arrays)) if axis else arrays, axis)

        patch.setattr(np, "concatenate", wrong)
        return encoder

    return apply


MUTANTS = {
    **TOWERS,
    "no 2-D RoPE": operation("rope", lambda right, ops, x, table, pairing: x),
    "pairs are neighbours": operation("rope", lambda right, ops, x, table, pairing: right(ops, x, table, "neighbours")),
    "no table of positions": table(np.zeros_like),
    "rows and columns of the table are exchanged": table(lambda square: square.swapaxes(0, 1)),
    "positions in raster order": patched(
        family, "block_order", lambda right, high, wide, block: np.arange(high * wide)
    ),
    "the nearest position": stretched(lambda right, last, count: np.round(right)),
    "pixels' middles instead of corners": stretched(
        lambda right, last, count: np.clip((np.arange(count) + 0.5) * (last + 1) / count - 0.5, 0, last)
    ),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "one moment of the kernel": one_moment,
    "no norm at the end of the tower": without("post_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "the tanh form of gelu in mergers": operation(
        "linear", lambda right, ops, x, w, bias=None, residual=None, activation=None: right(
            ops, x, w, bias, residual, activation="gelu_quick" if activation == "gelu_erf" else activation
        )
    ),
    "states of the layer after": mergers(lambda right: {layer + 1: merger for layer, merger in right.items()}),
    "mergers are exchanged": mergers(lambda right: dict(zip(right, reversed(right.values()), strict=True))),
    "one merger is left out": mergers(lambda right: {DEEP[0]: right[DEEP[0]]}),
    "the last part first": parts(lambda right: right[-1:] + right[:-1]),
    "parts of a picture are exchanged": parts(lambda right: [right[0], *right[:0:-1]]),
    "pictures are exchanged": operation(
        "fold", lambda right, ops, x, k: right(ops, ops.take(x, ops.constant(np.roll(np.arange(x.shape[0]), 180))), k)
    ),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 1e-3
