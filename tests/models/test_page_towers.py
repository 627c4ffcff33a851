"""Towers that read pages, which took that of Qwen2-VL on: against transformers' classes and processors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media import sizes
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.decode import open_picture
from opsin.models import dotsocr, glm4v, paddleocr
from opsin.nn import position_tables

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import dotsocr_truth  # noqa: E402
import glm4v_truth  # noqa: E402
import paddleocr_truth  # noqa: E402
from vision_mutants import TOWERS, one_moment, operation, patched, step, without  # noqa: E402
from vision_truth import MODES, distance, features, opener, picture, plane_positions, spelt  # noqa: E402

SIZES = ((1, 1), (3, 3), (1, 30), (30, 1), (7, 30), (8, 8), (9, 8), (64, 64), (65, 64), (64, 65), (120, 120),
         (301, 200), (640, 361), (20, 400), (400, 20))  # fmt: skip
# Of the table's own grid and nearly, less than it in both ways, in one, and much more.
GRIDS = ((56, 56), (64, 40), (16, 104), (104, 16), (40, 72), (24, 24), (96, 112))
TRUTHS = {"paddleocr": paddleocr_truth, "glm4v": glm4v_truth, "glm_ocr": glm4v_truth, "dots.ocr": dotsocr_truth}


@pytest.fixture(scope="module", params=TRUTHS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def known(name):
    return TRUTHS[name]


@pytest.fixture(scope="module")
def truth(known, name):
    return known.TOWERS[name].make()


@pytest.fixture(scope="module")
def open_tower(device, known, truth, tmp_path_factory):
    return opener(device, truth, known.write_tower, tmp_path_factory.mktemp("pages"))


@pytest.fixture
def tower(open_tower):
    return open_tower()


def prepare(known, images, **options):
    made = known.processor().image_processor(images, return_tensors="np", **options)
    ends = np.cumsum(made["image_grid_thw"].prod(-1))
    return np.split(made["pixel_values"], ends[:-1]), made["image_grid_thw"]


def embed(truth, patches, grids):
    with torch.inference_mode():
        found = truth.model.get_image_features(torch.from_numpy(np.concatenate(patches)), torch.from_numpy(grids))
    made = found.pooler_output if hasattr(found, "pooler_output") else found
    return torch.cat(list(made)).numpy() if isinstance(made, list | tuple) else made.numpy()


def assert_prepared(known, tower, image, budget=USUAL, **options):
    (made,) = features(tower.layout(open_picture(image).at(budget)))
    (patches,), grids = prepare(known, [image], **options)
    wanted = known.as_ours(patches, grids[0])
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(known, tower, size):
    assert_prepared(known, tower, picture(*size))


@pytest.mark.parametrize("size", [(64, 48), (301, 200), (20, 300)])
def test_a_budget_is_the_processors_bounds(known, tower, size):
    for budget, bounds in (
        (PictureBudget(min_pixels=50 * 50, max_pixels=90 * 90), (50 * 50, 90 * 90)),
        (PictureBudget(max_image_tokens=60), (known.LEAST, 60 * 64)),
    ):
        told = dict(zip(("shortest_edge", "longest_edge"), (known.FRAMES * bound for bound in bounds), strict=True))
        assert_prepared(known, tower, picture(*size), budget, size=told)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(known, tower, mode):
    assert_prepared(known, tower, picture(93, 61, mode))


@pytest.mark.parametrize("size", SIZES)
def test_rows_and_positions_equal_the_processors_and_the_classs(known, tower, truth, size):
    theirs, given = known.processor(), [picture(*size), picture(50, 90, seed=1), picture(90, 50, seed=2)]
    text = f"A {known.TURN} and {known.TURN}, then{known.TURN}?"
    made = theirs(images=given, text=[text], return_tensors="pt")
    layouts = [tower.layout(open_picture(image)) for image in given]
    parts = text.split(tower.marker)
    spelling = "".join(part + spelt(layout, tower.marker) for part, layout in zip(parts, layouts, strict=False))
    ids = made["input_ids"][0].tolist()
    assert theirs.tokenizer(spelling + parts[-1])["input_ids"] == ids
    if not hasattr(truth.model, "get_rope_index"):
        assert all(span.positions == span.rows for layout in layouts for span in layout.spans)
        return
    positions, _ = truth.model.get_rope_index(made["input_ids"], made["mm_token_type_ids"], made["image_grid_thw"])
    placeholder = theirs.tokenizer.convert_tokens_to_ids(tower.marker)
    assert plane_positions(ids, layouts, placeholder) == positions[:, 0].T.tolist()


@pytest.mark.parametrize("size", GRIDS)
def test_embeddings_equal_transformers(known, tower, truth, size):
    (patches,), grids = prepare(known, [picture(*size)])
    ours = tower.encode(known.as_ours(patches, grids[0])[None]).numpy()
    assert tower.width == ours.shape[1]
    assert distance(ours, embed(truth, [patches], grids)) < 1e-4


def test_embeddings_from_halves_are_near(known, open_tower, truth):
    (patches,), grids = prepare(known, [picture(72, 40)])
    ours = open_tower(half=True).encode(known.as_ours(patches, grids[0])[None]).numpy()
    assert 1e-6 < distance(ours, embed(truth, [patches], grids)) < 5e-3


@pytest.mark.parametrize("size", GRIDS[:3])
def test_a_batch_equals_its_pictures_one_by_one(tower, size):
    given = np.stack([features(tower.layout(open_picture(picture(*size, seed=i))))[0] for i in range(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


def test_a_file_whose_numbers_do_not_go_together_is_refused(known, open_tower):
    for key, value in (
        ("image_min_pixels", 1 << 20), ("spatial_merge_size|projector.scale_factor", 3),
        ("attention.head_count", 8), ("projection_dim", 65),
    ):  # fmt: skip
        with pytest.raises(OpsinError, match="clip.vision|makes|a head of"):
            open_tower(keys={f"clip.vision.{name}": value for name in key.split("|")})


def from_end_to_end(known, encoder, truth):
    """How far the embeddings of two pictures are off, from their pixels on, and those of a small one."""
    worst = 0.0
    for images in ([picture(73, 41), picture(73, 41, seed=1)], [picture(2, 50)]):
        given = np.stack([features(encoder.layout(open_picture(image)))[0] for image in images])
        ours, theirs = encoder.encode(given).numpy(), embed(truth, *prepare(known, images))
        worst = max(worst, distance(ours, theirs) if ours.shape == theirs.shape else 1.0)
    return worst


def table(change):
    """Of the table of positions, [side, side, width]."""

    def apply(patch, encoder):
        side = int(len(encoder.positions) ** 0.5)
        square = encoder.positions.reshape(side, side, -1)
        return replace(encoder, positions=np.ascontiguousarray(change(square)).reshape(side**2, -1))

    return apply


def constant(module, name, value):
    def apply(patch, encoder):
        patch.setattr(module, name, value)
        return encoder

    return apply


def unnormed(patch, encoder):
    """The heads of q and k as they are."""
    for layer in encoder.tower.weights.blk:
        patch.setattr(layer.attn, "attn_q_norm", None)
        patch.setattr(layer.attn, "attn_k_norm", None)
    return encoder


SHARED = {
    **TOWERS,
    "no 2-D RoPE": operation("rope", lambda right, ops, x, table, pairing: x),
    "pairs are neighbours": operation("rope", lambda right, ops, x, table, pairing: right(ops, x, table, "neighbours")),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "pictures are exchanged": operation(
        "fold", lambda right, ops, x, k: right(ops, ops.take(x, ops.constant(np.roll(np.arange(x.shape[0]), 180))), k)
    ),
}  # fmt: skip
TABLE = {
    "no table of positions": table(np.zeros_like),
    "rows and columns of the table are exchanged": table(lambda square: square.swapaxes(0, 1)),
}
GLM = {
    "one moment of the kernel": one_moment,
    "no norm at the end of the tower": without("post_ln"),
    "small pictures are not enlarged first": patched(sizes, "both_at_least", lambda right, size, side: size),
    "another smallest number of the merger's norm": constant(glm4v, "EPS", 1e-2),
    "the tanh form of gelu in the merger": operation(
        "activate", lambda right, ops, x, kind: right(ops, x, "gelu_quick" if kind == "gelu_erf" else kind)
    ),
}  # fmt: skip
MUTANTS = {
    "paddleocr": {
        **SHARED,
        **TABLE,
        "positions in raster order": patched(
            paddleocr, "block_order", lambda right, high, wide, block: np.arange(high * wide)
        ),
        "a table for the cubics": patched(
            paddleocr, "stretched", lambda right, table, high, wide, kind: right(table, high, wide, "cubic")
        ),
        "no norm at the end of the tower": without("post_ln"),
        "small pictures are not enlarged first": patched(sizes, "at_least", lambda right, size, side: size),
        "another smallest number of the projector's norm": constant(paddleocr, "EPS", 1e-2),
    },
    "glm4v": {
        **SHARED,
        **GLM,
        **TABLE,
        "no norm behind the patches' kernel": lambda patch, encoder: replace(encoder, norm=None),
        "positions in raster order": patched(
            glm4v, "block_order", lambda right, high, wide, block: np.arange(high * wide)
        ),
        "positions by straight lines": patched(
            glm4v, "stretched", lambda right, table, high, wide, kind: right(table, high, wide, "linear")
        ),
        "softer cubics": constant(position_tables, "SHARP", -0.5),
    },
    "glm_ocr": {**SHARED, **GLM, "no norms of q and k": unnormed},
    "dots.ocr": {
        **SHARED,
        "no norm behind the patches": without("pre_ln"),
        "no norm at the end of the tower": lambda patch, encoder: (
            patch.setattr(encoder.projector, "last", lambda x, eps: x), encoder
        )[1],
        "another smallest number of the projector's norm": constant(dotsocr, "EPS", 1e-2),
        "up stands before gate": operation(
            "glu", lambda right, ops, gate, up, kind: right(ops, up, gate, kind)
        ),
    },
}  # fmt: skip
CASES = [(family, mutant) for family, mutants in MUTANTS.items() for mutant in mutants]


def test_from_pixels_to_embeddings(known, tower, truth):
    assert from_end_to_end(known, tower, truth) < 1e-4


@pytest.mark.parametrize(("name", "mutant"), CASES, indirect=["name"])
def test_mutant_is_seen(monkeypatch, name, known, open_tower, truth, mutant):
    assert from_end_to_end(known, MUTANTS[name][mutant](monkeypatch, open_tower()), truth) > 1e-3
