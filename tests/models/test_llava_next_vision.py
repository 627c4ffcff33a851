"""LLaVA-NeXT's and LLaVA-OneVision's towers against transformers' classes and processors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from opsin.errors import OpsinError
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.decode import open_picture

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import llava_next_truth  # noqa: E402
import llava_onevision_truth  # noqa: E402
from llava_next_truth import GRID, LAYERS, PATCH, write_tower  # noqa: E402
from vision_mutants import PLACES, moved, operation, patched, step, without  # noqa: E402
from vision_mutants import TOWERS as MISTAKES  # noqa: E402
from vision_mutants import tower as tower_of  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

from opsin.media import sizes  # noqa: E402
from opsin.models import llava_next, llava_onevision  # noqa: E402
from opsin.models.llava import LlavaVision  # noqa: E402
from opsin.models.llava_next import LlavaNextVision  # noqa: E402
from opsin.models.llava_onevision import LlavaOneVision  # noqa: E402

TOWERS = llava_next_truth.TOWERS | llava_onevision_truth.TOWERS
SIZES = ((1, 1), (1, 30), (30, 1), (2, 2), (100, 3), (3, 100), (30, 30), (31, 30), (30, 31), (60, 30), (90, 31),
         (64, 48), (96, 96), (301, 200), (200, 301), (640, 361), (300, 700), (1000, 20))  # fmt: skip


@pytest.fixture(scope="module", params=TOWERS)
def kind(request):
    return TOWERS[request.param]


@pytest.fixture(scope="module")
def truth(kind):
    return kind.make()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("llava_next"))


def prepared(kind, images, **options):
    return kind.processor().image_processor(images, return_tensors="np", **options)


def tiles_of(tower, patches):
    """The patches of the overview and of all tiles, [tiles, patches, values]."""
    grid, values = tower.tower.shape.grid, tower.tower.shape.values
    made = features(patches)
    tiles = [made[0].reshape(1, grid**2, values)]
    if len(made) == 2:
        down, across = made[1].shape[:2]
        count = down * across * grid**2 * values
        assert not made[1].reshape(-1)[count:].any()
        tiles.append(made[1].reshape(-1)[:count].reshape(down * across, grid**2, values))
    return np.concatenate(tiles)


def assert_prepared(tower, kind, image, budget=USUAL, **options):
    made, theirs = tiles_of(tower, tower.layout(open_picture(image).at(budget))), prepared(kind, image, **options)
    seen = GRID * PATCH
    wanted = np.stack([patch_rows(tile[:, :seen, :seen], PATCH) for tile in theirs["pixel_values"][0]])
    if len(made) == 1:  # nothing is left of the map
        wanted = wanted[:1]
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_all_tiles_equal_the_processors(tower, kind, size):
    assert_prepared(tower, kind, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, kind, mode):
    assert_prepared(tower, kind, picture(93, 61, mode))


@pytest.mark.parametrize("size", SIZES)
def test_markers_and_rows_equal_the_processors(tower, kind, size):
    theirs, given = kind.processor(), [picture(*size), picture(20, 90, seed=1)]
    text = "What is <image>\nand what <image>?"
    ids = theirs(images=given, text=text)["input_ids"]
    first, second, last = text.split(tower.marker)
    ours = [spelt(tower.layout(open_picture(image)), "<image>") for image in given]
    assert [theirs.tokenizer(first + ours[0] + second + ours[1] + last)["input_ids"]] == ids


def embed(truth, kind, images):
    """Embeddings of pictures, one after another."""
    inputs = kind.processor().image_processor(images, return_tensors="pt")
    told = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
    with torch.inference_mode():
        return torch.cat(list(truth.get_image_features(**told).pooler_output)).numpy()


def encode(tower, *images):
    spans = [span for image in images for span in tower.layout(open_picture(image)).spans]
    return np.concatenate([tower.encode(span.features.make()[None]).numpy() for span in spans])


@pytest.mark.parametrize("size", SIZES)
def test_embeddings_equal_transformers(tower, truth, kind, size):
    image = picture(*size)
    assert distance(encode(tower, image), embed(truth, kind, [image])) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, truth, kind):
    image = picture(93, 61)
    assert 1e-6 < distance(encode(open_tower(half=True), image), embed(truth, kind, [image])) < 5e-3


def test_attention_of_the_tower_is_peaked(truth, kind):
    given = kind.processor().image_processor(picture(93, 61), return_tensors="pt")["pixel_values"][0]
    with torch.inference_mode():
        seen = truth.model.vision_tower(given, output_attentions=True).attentions
    assert len(seen) == LAYERS
    assert all(float(weights.amax(-1).mean()) > 0.15 for weights in seen)  # of 25 or 26 rows


def test_a_batch_equals_its_pictures_one_by_one(tower):
    pictures = [tower.layout(open_picture(picture(93, 61, seed=seed))).spans for seed in range(3)]
    for alike in zip(*pictures, strict=True):
        given = np.stack([span.features.make() for span in alike])
        alone = [tower.encode(one[None]).numpy() for one in given]
        assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


def test_features_of_one_shape_become_equally_many_rows(tower):
    found = {}
    for width in range(20, 140):
        for span in tower.layout(open_picture(picture(width, 60))).spans:
            assert found.setdefault(span.features.shape, span.rows) == span.rows
    assert len(found) > 5


def test_a_picture_is_a_span_for_the_whole_and_one_for_its_map(tower):
    side = tower.tower.shape.side
    patches = replace(tower, canvases=[(2 * side, side)]).layout(open_picture(picture(120, 60)))
    assert patches.whole == patches.size == (2 * side, side)
    whole, tiled = patches.spans
    assert (whole.rows, whole.grid, whole.area) == (GRID**2, (GRID, GRID), (0, 0, 120, 60))
    assert (tiled.rows, tiled.positions, tiled.grid) == (GRID * (2 * GRID + 1), tiled.rows, (GRID, 2 * GRID + 1))
    assert tiled.area == (0, 0, 132, 60)  # newlines lie at the right of it
    assert not whole.atomic and not tiled.atomic
    assert whole.digest != tiled.digest
    assert len(patches.rectangles()) == patches.rows


def unshrunk(tower):
    return replace(tower, most_tiles=99) if isinstance(tower, LlavaOneVision) else tower


def test_borders_are_cut_from_the_map_and_stand_in_its_area(tower):
    side = tower.tower.shape.side
    square = unshrunk(replace(tower, canvases=[(2 * side, 2 * side)]))
    tiled = square.layout(open_picture(picture(120, 60))).spans[1]
    assert tiled.grid == (6, 11)  # of 10 rows 5 would do, and as many go above as below
    assert tiled.area == pytest.approx((0, -6, 132, 66))


def test_nothing_is_left_of_the_map_of_a_very_thin_picture(tower):
    side = tower.tower.shape.side
    square = replace(tower, canvases=[(2 * side, 2 * side)])
    (overview,) = square.layout(open_picture(picture(1000, 2))).spans
    assert overview.rows == GRID**2
    tall = square.layout(open_picture(picture(2, 1000))).spans[1]
    assert (tall.grid, tall.rows) == ((2 * GRID, 1), 2 * GRID)  # its newlines, as theirs


def canvas_of(tower, patches):
    """In whole tiles: rows and columns."""
    return tuple(count * tower.tower.shape.side for count in patches.spans[1].features.shape[:2])


@pytest.mark.parametrize("budget", [
    PictureBudget(max_image_tokens=90), PictureBudget(max_pixels=2100), PictureBudget(detail="low"),
    PictureBudget(max_image_tokens=1), PictureBudget(detail="high"),
])  # fmt: skip
@pytest.mark.parametrize("size", [(200, 180), (93, 61), (70, 200)])
def test_a_budget_is_a_canvas_that_it_allows(tower, kind, budget, size):
    given = open_picture(picture(*size))
    usual, patches = tower.layout(given), tower.layout(given.at(budget))
    assert (patches == usual) == (budget.detail != "low" and budget.fits(usual.size, usual.rows))
    smallest = min(width * height for width, height in tower.canvases)
    high, wide = canvas_of(tower, patches)
    assert budget.fits(patches.size, patches.rows) or wide * high == smallest
    assert budget.detail != "low" or wide * high == smallest
    assert len({span.digest for span in (*usual.spans, *patches.spans)}) == (2 if patches == usual else 3)
    # The processor chooses it of those that are no larger.
    left = [[high, wide] for wide, high in tower.canvases if wide * high <= math.prod(canvas_of(tower, patches))]
    assert_prepared(tower, kind, picture(*size), budget, image_grid_pinpoints=left)


@pytest.mark.parametrize("detail", ["auto", "low"])
@pytest.mark.parametrize(("size", "box"), [((400, 300), (150, 100, 250, 200)), ((210, 500), (60, 200, 140, 300))])
def test_a_box_that_is_seen_maps_back_whatever_borders_the_canvas_has(monkeypatch, tower, size, box, detail):
    seen, pad = [], llava_next.steps.pad
    monkeypatch.setattr(
        llava_next.steps, "pad", lambda image, *given, **options: seen.append(image) or pad(image, *given, **options)
    )
    image = Image.new("RGB", size)
    image.paste("white", box)
    patches = tower.layout(open_picture(image).at(PictureBudget(detail)))
    patches.spans[1].features.make()
    assert seen[0].size == patches.size
    assert patches.to_original(np.asarray(Image.eval(seen[0], lambda value: 255 * (value > 127)).getbbox())) == (
        pytest.approx(box, abs=1.01 * max(size[0] / patches.size[0], size[1] / patches.size[1]))
    )


@pytest.fixture(scope="module")
def mistral(device, tmp_path_factory):
    """The files of a LLaVA-NeXT."""
    return opener(device, TOWERS["llava next of mistral"].make(), write_tower, tmp_path_factory.mktemp("next"))


def test_old_files_give_the_same_embeddings(mistral):
    """Those name neither projector nor canvases nor layers, and call the newline otherwise."""
    image = picture(93, 61)
    old = mistral(old=True)
    assert isinstance(old, LlavaNextVision)
    assert np.array_equal(encode(old, image), encode(mistral(), image))


def test_pinpoints_are_rows_before_columns(mistral):
    wide = mistral(keys={"clip.vision.image_grid_pinpoints": np.int32([30, 90])})
    assert wide.layout(open_picture(picture(10, 20))).whole == (15, 30)


def test_a_file_of_tiles_that_are_not_merged_is_the_other_familys(mistral):
    assert isinstance(mistral(keys={"clip.vision.mm_patch_merge_type": "flat"}), LlavaVision)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mm_patch_merge_type": "spatial"}, "tiles are merged by 'spatial'"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio is 'pad'"),
        ({"image_aspect_ratio": "anyres_max_"}, "image_aspect_ratio is 'anyres_max_'"),
        ({"image_aspect_ratio": "anyres_max_0"}, "image_aspect_ratio is 'anyres_max_0'"),
        ({"image_grid_pinpoints": np.int32([30, 45])}, r"image_grid_pinpoints is \[30, 45\], for tiles of 30 pixels"),
        ({"image_grid_pinpoints": np.int32([30, 30, 60])}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": np.int32([])}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": np.int32([-30, 30])}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": np.int32([30 << 20, 30])}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": np.int32([30, 30] * 5000)}, "image_grid_pinpoints is .{60,80}, for tiles"),
        ({"feature_layer": np.int32([1, 3])}, "mm.0.weight makes 64 of 48 values, where 64 of 96"),
        ({"feature_layer": np.int32([5])}, r"feature_layer is \[5\], of 4 layers"),
        ({"feature_layer": np.int32([])}, r"feature_layer is \[\], of 4 layers"),
        ({"image_size": 3}, "image_size is 3 and clip.vision.patch_size 6"),
        ({"image_size": 34}, "image_grid_pinpoints is"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(mistral, keys, said):
    with pytest.raises(OpsinError, match=said) as caught:
        mistral(keys={f"clip.vision.{name}": value for name, value in keys.items()})
    assert "\n" not in str(caught.value)


IMAGES = [picture(93, 61), picture(40, 80, seed=1), picture(90, 84, seed=2)]


@pytest.fixture(scope="module")
def theirs(truth, kind):
    return embed(truth, kind, IMAGES)


def from_end_to_end(encoder, theirs):
    """How far the embeddings of pictures are off, from their pixels on; far, where there are not as many."""
    ours = encode(encoder, *IMAGES)
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


def test_from_pixels_to_embeddings(tower, theirs):
    assert from_end_to_end(tower, theirs) < 1e-4


def encoder_of(**changes):
    return lambda patch, encoder: replace(encoder, **{name: change(encoder) for name, change in changes.items()})


MUTANTS = {
    **{name: mutant for name, mutant in MISTAKES.items() if name != "the last layer is left out"},
    **PLACES,
    "a layer less": encoder_of(layers=lambda right: tuple(max(1, layer - 1) for layer in right.layers)),
    "a newline of zeros": encoder_of(newline=lambda right: np.zeros_like(right.newline)),
    "newlines before the rows": patched(
        np, "concatenate", lambda right, parts, axis=0: right(parts[::-1] if axis == 2 else parts, axis)
    ),
    "borders stay": patched(sizes, "unpadded", lambda right, size, grid: grid),
    "borders of a row more": patched(
        sizes, "unpadded", lambda right, size, grid: tuple(
            max(1, n - 2 * (n < m)) for n, m in zip(right(size, grid), grid, strict=True)
        )
    ),
    "stretched over the canvas": patched(sizes, "inside", lambda right, size, canvas: canvas),
    "another canvas": patched(sizes, "best_canvas", lambda right, size, canvases: canvases[0]),
    "the picture at the upper left": step("pad", lambda right, image, size, at, **options: right(image, size)),
    "white borders": step("pad", lambda right, image, size, at: right(image, size, at=at, colour=(255, 255, 255))),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "tiles by columns": patched(
        llava_next, "product", lambda right, *axes: right(*axes) if len(axes) == 3 else (
            (y, x) for x in axes[1] for y in axes[0]
        )
    ),
    "another activation between": operation(
        "linear", lambda right, ops, x, w, bias=None, residual=None, activation=None: right(
            ops, x, w, bias, residual, activation="gelu_quick" if activation == "gelu_erf" else activation
        )
    ),
}  # fmt: skip
OF_CLIP = {
    "the class row comes last": tower_of(position_embeddings=lambda t: moved(t, lambda n: np.roll(np.arange(n), -1))),
    "the class row is kept": operation("take", lambda right, ops, x, rows: right(
        ops, x, rows if rows.shape[0] != GRID**2 else ops.constant(rows.numpy() - 1)
    )),
    "no norm at the beginning of the tower": without("pre_ln"),
}  # fmt: skip
OF_MANY = {
    "maps are not shrunk": encoder_of(most_tiles=lambda right: 99),
    "maps are shrunk more": encoder_of(most_tiles=lambda right: 1),
    "corners on corners": patched(
        llava_onevision, "shrunk", lambda right, maps, rows, columns: corners(maps, rows, columns)
    ),
}
OF_LISTS = {
    "states in another order": encoder_of(layers=lambda right: right.layers[::-1]),
}


def corners(maps, rows, columns):
    """As `align_corners` does it."""
    if maps.shape[1:3] == (rows, columns):
        return maps
    given = torch.from_numpy(np.ascontiguousarray(maps)).permute(0, 3, 1, 2)
    made = torch.nn.functional.interpolate(given, [rows, columns], mode="bilinear", align_corners=True)
    return made.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("mutant", MUTANTS | OF_CLIP | OF_MANY | OF_LISTS)
def test_mutant_is_seen(monkeypatch, tower, theirs, mutant):
    clip, many, lists = tower.tower.extra == 1, isinstance(tower, LlavaOneVision), len(tower.layers) > 1
    if (mutant in OF_CLIP and not clip) or (mutant in OF_MANY and not many) or (mutant in OF_LISTS and not lists):
        pytest.skip("nothing is otherwise in this tower")
    mutated = (MUTANTS | OF_CLIP | OF_MANY | OF_LISTS)[mutant](monkeypatch, tower)
    assert from_end_to_end(mutated, theirs) > 1e-3
