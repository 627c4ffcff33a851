"""Llama 3.2 Vision's tower against transformers' class and processor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.models import mllama_vision as family

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mllama_vision_truth import (  # noqa: E402
    GLOBAL,
    HEADS,
    LAYERS,
    PATCH,
    ROWS,
    SIDE,
    TAKEN,
    TILES,
    WIDTH,
    mllama_truth,
    processor,
    write_tower,
)
from vision_mutants import TOWERS as COMMON  # noqa: E402
from vision_mutants import operation, patched, shape, step, without  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

SIZES = ((1, 1), (1, 30), (30, 1), (24, 24), (25, 24), (24, 25), (48, 24), (24, 48), (47, 25), (60, 44), (301, 200),
         (640, 361), (20, 90), (90, 20), (8, 700), (700, 8), (48, 48), (13, 9))  # fmt: skip
GRIDS = {(1, 1): (20, 22), (2, 1): (46, 20), (1, 2): (20, 46), (3, 1): (70, 21), (1, 3): (21, 70), (4, 1): (90, 20),
         (1, 4): (20, 90), (2, 2): (60, 44)}  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    return mllama_truth()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("mllama"))


def prepare(image, tiles=TILES):
    """transformers' pixels of all tiles, and what it says of them."""
    return processor().image_processor([[image]], return_tensors="pt", max_image_tiles=tiles)


def tiles_of(made, tiles=TILES):
    """Our features of transformers' pixels."""
    wide, high = family.sizes.tile_grids(tiles)[int(made["aspect_ratio_ids"][0, 0]) - 1]
    pixels = made["pixel_values"][0, 0, : wide * high].numpy()
    return np.stack([patch_rows(tile, PATCH) for tile in pixels]).reshape(high, wide, ROWS - 1, -1)


def aspect(grid):
    return family.sizes.tile_grids(TILES).index(grid) + 1


def embed(truth, made):
    """What the text model is given for a picture: rows of its real tiles."""
    with torch.inference_mode():
        named = {name: made[name] for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}
        states = truth.model.vision_model(**named).last_hidden_state
        rows = truth.model.multi_modal_projector(states)[0, 0]
    return rows[: made["num_tiles"][0][0]].flatten(0, 1).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, size):
    made, wanted = features(tower.layout(open_picture(picture(*size))))[0], tiles_of(prepare(picture(*size)))
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("budget", "most"), [
    (PictureBudget(max_image_tokens=3 * ROWS), 3), (PictureBudget(max_image_tokens=2 * ROWS + 1), 2),
    (PictureBudget("low"), 1), (PictureBudget("high"), TILES),
])  # fmt: skip
def test_a_budget_is_the_processors_number_of_tiles(tower, size, budget, most):
    layout = tower.layout(open_picture(picture(*size)).at(budget))
    (made,), wanted = features(layout), tiles_of(prepare(picture(*size), most), most)
    assert made.shape == wanted.shape and layout.embedded <= most * ROWS
    assert np.abs(made - wanted).max() <= 1e-5
    assert layout.to_original((0, 0, *layout.size)) == (0, 0, *size)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    made = features(tower.layout(open_picture(picture(93, 61, mode))))[0]
    assert np.abs(made - tiles_of(prepare(picture(93, 61, mode)))).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_one_marker_and_the_rows_of_its_tiles_beside_the_text(tower, size):
    layout, made = tower.layout(open_picture(picture(*size))), prepare(picture(*size))
    (span,) = layout.spans
    assert layout.parts == (span, "<|image|>")
    assert (span.rows, span.positions, span.marker, layout.rows) == (0, 0, 1, 0)
    assert span.memory == layout.embedded == made["num_tiles"][0][0] * ROWS
    assert spelt(layout, "") == "<|image|>"
    assert layout.original == size


@pytest.mark.parametrize("grid", GRIDS)
def test_embeddings_equal_transformers(tower, truth, grid):
    made = prepare(picture(*GRIDS[grid]))
    given = tiles_of(made)
    assert given.shape[:2] == grid[::-1]
    assert distance(tower.encode(given[None]).numpy(), embed(truth, made)) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth):
    made = prepare(picture(60, 44))
    assert 1e-6 < distance(open_tower(half=True).encode(tiles_of(made)[None]).numpy(), embed(truth, made)) < 5e-3


def test_attention_of_the_tower_is_peaked(truth):
    made = prepare(picture(60, 44))
    seen = []
    for layer in truth.model.vision_model.transformer.layers:
        layer.self_attn.register_forward_hook(lambda module, given, output: seen.append(output[1]))
    embed(truth, made)
    assert len(seen) == LAYERS
    assert all(float(weights.amax(-1).mean()) > 0.02 for weights in seen)  # of 160 rows


@pytest.mark.parametrize("grid", GRIDS)
def test_a_batch_equals_its_pictures_one_by_one(tower, grid):
    given = [features(tower.layout(open_picture(picture(*GRIDS[grid], seed=i)))) for i in range(3)]
    alone = [tower.encode(one[0][None]).numpy() for one in given]
    assert np.array_equal(tower.encode(np.stack([one[0] for one in given])).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.block_count": 3}, "holds 4 of its 3 layers"),
        ({"clip.vision.global.block_count": 3}, "holds 2 of its 3 global layers"),
        ({"clip.vision.global.block_count": 0}, "global.block_count is 0"),
        ({"clip.vision.max_num_tiles": 3}, "tile_position_embd.weight is"),
        ({"clip.vision.max_num_tiles": 1 << 20}, "max_num_tiles is 1048576"),
        ({"clip.vision.intermediate_layers_indices": np.int32([3, 1])}, r"intermediate_layers_indices is \[3, 1\]"),
        ({"clip.vision.intermediate_layers_indices": np.int32([1, 4])}, r"intermediate_layers_indices is \[1, 4\]"),
        ({"clip.vision.intermediate_layers_indices": np.int32([-1, 1])}, r"intermediate_layers_indices is \[-1, 1\]"),
        ({"clip.vision.intermediate_layers_indices": np.int32([1])}, "mm.0.weight is no 64 x 2 times 48"),
        ({"clip.vision.projection_dim": 65}, "mm.0.weight is no 65 x 3 times 48"),
        ({"clip.vision.image_size": 28}, "position_embd.weight is"),
        ({"clip.vision.image_size": 25}, "image_size is 25"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


GATES = [
    "v.position_embd.gate", "v.tile_position_embd.gate", "v.pre_tile_position_embd.gate",
    "v.post_tile_position_embd.gate", "v.global.blk.1.attn_gate", "v.global.blk.0.ffn_gate",
]  # fmt: skip


@pytest.mark.parametrize("name", GATES)
def test_a_gate_that_is_stored_raw_is_refused_by_its_name(open_tower, name):
    values = np.float32([2.5 if "v.position_embd" in name else -1.2])
    with pytest.raises(OpsinError, match=rf"{name} is .*no hyperbolic tangent") as caught:
        open_tower(tensors={name: values})
    assert "converted later" in caught.value.hint


def from_end_to_end(encoder, truth):
    """How far the embeddings of two pictures of one shape are off, from their pixels on."""
    images = [picture(120, 58), picture(120, 58, seed=1)]  # on three tiles of four
    given = np.stack([features(encoder.layout(open_picture(image)))[0] for image in images])
    try:
        ours = encoder.encode(given).numpy()
    except (OpsinError, ValueError, AssertionError):
        return 1.0
    theirs = np.concatenate([embed(truth, prepare(image)) for image in images])
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


def of_tables(**changes):
    def apply(patch, encoder):
        made = {name: change(getattr(encoder.tables, name)) for name, change in changes.items()}
        return replace(encoder, tables=replace(encoder.tables, **made))

    return apply


def gate(name, value):
    def apply(patch, encoder):
        patch.setattr(getattr(encoder.weights, name), "value", value)
        return encoder

    return apply


def spans(change):
    return patched(family, "AttentionSpans", lambda right, first, last, pictures: right(
        first, first.ops.constant(change(last.numpy())), pictures
    ))  # fmt: skip


WHOLE = TILES * (ROWS + -ROWS % 8)
MUTANTS = {
    **COMMON,
    "the last layer is left out": lambda patch, encoder: patch.setattr(
        encoder.tower.weights, "blk", encoder.tower.weights.blk[:-1]
    ) or encoder,
    "no norm at the beginning of the tower": without("pre_ln"),
    "no norm after the ordinary layers": without("post_ln"),
    "gelu in its tanh form": shape(activation="gelu"),
    "valid rows see valid ones alone": spans(lambda last: np.minimum(last, 3 * ROWS).astype(np.int32)),
    "all rows see all": spans(lambda last: np.full_like(last, WHOLE)),
    "what fills tiles up is not cleared": operation("put", lambda right, ops, x, y, places: x),
    "states that layers give": lambda patch, encoder: replace(
        encoder, taken=tuple(min(layer + 1, LAYERS - 1) for layer in encoder.taken)
    ),
    "states before the one that is meant": lambda patch, encoder: replace(
        encoder, taken=tuple(layer - 1 for layer in encoder.taken)
    ),
    "states are exchanged": lambda patch, encoder: replace(
        encoder, projector=replace(encoder.projector, weights=(
            encoder.projector.weights[0], *encoder.projector.weights[:0:-1]
        ))
    ),
    "rows and columns of the canvas are exchanged": patched(
        family.sizes, "tile_grids", lambda right, most: [grid[::-1] for grid in right(most)]
    ),
    "no tile embeddings before": of_tables(before=np.zeros_like),
    "no tile embeddings between": of_tables(after=np.zeros_like),
    "tile embeddings between of the tile before": of_tables(after=lambda after: np.roll(after, 1, 1)),
    "no positions in tiles": of_tables(tiles=np.zeros_like),
    "no common positions": of_tables(rows=np.zeros_like),
    "no class embedding": of_tables(start=np.zeros_like),
    "positions of the patch before": of_tables(rows=lambda rows: np.roll(rows, 1, 0)),
    "the gate of positions is one": gate("position", 1.0),
    "the gate of tiles is one": gate("tile_position", 1.0),
    "no gates of global layers": patched(
        family.GlobalBlock, "__call__", lambda right, block, *args: family.VitBlock.__call__(block, *args)
    ),
    "no global layers": lambda patch, encoder: patch.setattr(encoder.weights, "blk", []) or encoder,
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bicubic")),
    "stretched over the canvas": patched(
        family.sizes, "onto_tiles", lambda right, size, grid, tile: (grid[0] * tile, grid[1] * tile)
    ),
    "pictures are exchanged": patched(
        family.MllamaVision, "_embed", lambda right, encoder, patches, *more: right(encoder, patches[::-1], *more)
    ),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, open_tower, truth, mutant):
    wrong = MUTANTS[mutant](monkeypatch, open_tower())
    assert from_end_to_end(wrong or open_tower(), truth) > 3e-5


def test_the_tiny_model_has_what_shows_mistakes():
    assert ROWS % 8
    assert LAYERS > max(TAKEN) >= 1
    assert GLOBAL > 1
    assert WIDTH % HEADS == 0
    assert SIDE // PATCH > 4
