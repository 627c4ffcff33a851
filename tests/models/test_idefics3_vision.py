"""Idefics3's tower, which is SmolVLM's, against transformers' class and processors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from opsin.errors import OpsinError
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.nn.vit import block_order

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from idefics3_truth import FOLD, LONGEST, PATCH, ROWS, SIDE, idefics3_truth, processor, write_tower  # noqa: E402
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig  # noqa: E402
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionEmbeddings  # noqa: E402
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil  # noqa: E402
from vision_mutants import PLACES, TOWERS, moved, operation, patched, step, without  # noqa: E402
from vision_mutants import tower as tower_of  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

# Of exact tiles, one pixel more, tall, wide, and so long and thin that it is one row of tiles.
SIZES = ((1, 1), (1, 30), (30, 1), (48, 48), (49, 48), (48, 49), (96, 48), (192, 192), (193, 192), (192, 193), (64, 48),
         (30, 400), (301, 200), (640, 361), (500, 499))  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    return idefics3_truth()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("idefics3"))


def rows(given):
    return np.stack([patch_rows(one, PATCH, FOLD) for one in given])


def embed(truth, given):
    with torch.inference_mode():
        (found,) = truth.model.get_image_features(torch.from_numpy(given)[None]).pooler_output
        return found.numpy()


def assert_prepared(tower, image, theirs):
    assert_equal(tower.layout(open_picture(image)), theirs(image, return_tensors="np"))


def assert_equal(patches, theirs):
    made, wanted = np.stack(features(patches)), rows(theirs["pixel_values"][0])
    made = made.reshape(len(made), -1, made.shape[-1])
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_all_tiles_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size), processor().image_processor)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    assert_prepared(tower, picture(93, 61, mode), processor().image_processor)


@pytest.mark.parametrize("size", [(301, 200), (48, 48), (30, 400)])
def test_the_processor_of_smolvlm_prepares_alike(tower, size):
    theirs = SmolVLMImageProcessorPil(
        size={"longest_edge": LONGEST}, max_image_size={"longest_edge": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    assert_prepared(tower, picture(*size), theirs)


@pytest.mark.parametrize("size", SIZES)
def test_markers_and_rows_equal_the_processors(tower, size):
    theirs, given = processor(), [picture(*size), picture(20, 90, seed=1)]
    text = "What is <image> and what <image>?"
    ids = theirs(images=given, text=text)["input_ids"]
    first, second, last = text.split(tower.marker)
    ours = [spelt(tower.layout(open_picture(image)), "<image>") for image in given]
    spelling = first + ours[0] + second + ours[1] + last
    assert [theirs.tokenizer(spelling)["input_ids"]] == ids
    assert theirs.tokenizer.decode(ids[0]) == spelling


def other(**options):
    """The processor with other settings."""
    return processor().image_processor.__class__(**{
        "size": {"longest_edge": LONGEST}, "max_image_size": {"longest_edge": SIDE}, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, **options,
    })  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_at_low_detail_a_picture_is_not_cut(tower, size):
    patches = tower.layout(open_picture(picture(*size)).at(PictureBudget("low")))
    assert patches.markers == ("<fake_token_around_image><global-img>", "<fake_token_around_image>")
    assert (patches.rows, patches.size) == (ROWS, (SIDE, SIDE))
    assert_equal(patches, other(do_image_splitting=False)(picture(*size), return_tensors="np"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("budget", [
    PictureBudget(max_image_tokens=10 * ROWS), PictureBudget(max_image_tokens=5 * ROWS),
    PictureBudget(max_pixels=(3 * SIDE) ** 2), PictureBudget("high", max_pixels=2 * SIDE**2),
])  # fmt: skip
def test_a_budget_is_the_longest_edge_that_it_allows(tower, size, budget):
    patches = tower.layout(open_picture(picture(*size)).at(budget))
    settings = [{"size": {"longest_edge": longest}} for longest in range(LONGEST, SIDE, -SIDE)]
    for setting in (*settings, {"do_image_splitting": False}):
        theirs = other(**setting)(picture(*size), return_tensors="np")
        tiles = max(1, theirs["pixel_values"].shape[1] - 1)
        if budget.fits((SIDE, tiles * SIDE), ROWS * theirs["pixel_values"].shape[1]):
            break
    assert patches.size[0] * patches.size[1] == tiles * SIDE**2
    assert patches.rows == ROWS * len(theirs["pixel_values"][0])
    assert_equal(patches, theirs)


def test_one_tile_is_the_whole_picture(open_tower):
    small = open_tower(keys={"clip.vision.preproc_image_size": SIDE})
    patches = small.layout(open_picture(picture(30, 30)))
    assert patches.markers == ("<fake_token_around_image><global-img>", "<fake_token_around_image>")
    theirs = processor().image_processor.__class__(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    assert_prepared(small, picture(30, 30), theirs)
    assert_prepared(small, picture(30, 7), theirs)


def test_a_picture_is_a_span_a_tile_and_one_for_the_whole(tower):
    patches = tower.layout(open_picture(picture(200, 90)))
    assert patches.whole == patches.size == (192, 96)
    assert [span.rows for span in patches.spans] == [ROWS] * 9
    assert not any(span.atomic for span in patches.spans)
    assert {span.grid for span in patches.spans} == {(4, 4)}
    assert patches.spans[5].area == (50.0, 45.0, 100.0, 90.0)
    assert patches.spans[8].area == (0.0, 0.0, 200.0, 90.0)
    assert len({span.digest for span in patches.spans}) == 9
    assert len(patches.rectangles()) == patches.rows == 9 * ROWS


def test_a_picture_is_resized_once_for_all_its_tiles(tower, monkeypatch):
    seen = []
    mutant = step("flatten", lambda right, given: seen.append(given) or right(given))
    mutant(monkeypatch, tower)
    patches = tower.layout(open_picture(picture(200, 90)))
    assert not seen
    first = features(patches)
    assert len(seen) == 1
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


@pytest.mark.parametrize("grid", [8, 26, 27, 32])
def test_positions_of_published_grids_stand_in_the_tables_own_order(grid):
    """transformers finds them by rounding fractions of a tile; of other grids it may take one twice."""
    config = Idefics3VisionConfig(hidden_size=4, image_size=grid, patch_size=1, num_attention_heads=1)
    embeddings = Idefics3VisionEmbeddings(config).eval()
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, grid, grid)
        found = embeddings(pixels, torch.ones(1, grid, grid, dtype=torch.bool)) - embeddings.patch_embedding.bias
        assert torch.allclose(found[0], embeddings.position_embedding.weight, atol=1e-6)


def test_attention_of_the_tower_is_peaked(truth):
    with torch.inference_mode():
        seen = truth.model.vision_model(torch.from_numpy(pixels(1)), output_attentions=True).attentions
    assert len(seen) == 3
    assert all(float(weights.amax(-1).mean()) > 0.15 for weights in seen)  # of 64 patches


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = rows(pixels(3))
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.projector.scale_factor": 3}, "8 patches a side are no squares of 3"),
        ({"clip.vision.preproc_image_size": 1 << 20}, "preproc_image_size is 1048576"),
        ({"clip.vision.projection_dim": 63}, "mm.model.fc.weight makes 64 of 192 values, where 63 of 192"),
        ({"clip.vision.projector.scale_factor": 4}, "mm.model.fc.weight makes 64 of 192 values, where 64 of 768"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def from_end_to_end(encoder, truth):
    """How far the embeddings of a picture are off, from its pixels on."""
    image = picture(200, 90)
    given = np.stack(features(encoder.layout(open_picture(image))))
    theirs = processor().image_processor(image, return_tensors="np")["pixel_values"][0]
    return distance(encoder.encode(given).numpy(), embed(truth, theirs))


def raster(count):
    return np.argsort(block_order(8, 8, FOLD))


def across(count):
    """Columns of a square before its rows."""
    return np.arange(count).reshape(-1, FOLD, FOLD).swapaxes(1, 2).reshape(-1)


def channels_first(values, patches):
    return values.reshape(len(values), patches, -1).swapaxes(1, 2).reshape(values.shape)


MUTANTS = {
    **TOWERS,
    **PLACES,
    "positions in raster order": tower_of(position_embeddings=lambda right: moved(right, raster)),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "columns before rows in a square": operation(
        "fold", lambda right, ops, x, k: right(ops, ops.take(x, ops.constant(across(x.shape[0]))), k)
    ),
    "channels before patches in a square": operation(
        "fold", lambda right, ops, x, k: ops.constant(channels_first(right(ops, x, k).numpy(), k))
    ),
    "no norm at the end of the tower": without("post_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bicubic")),
    "resized once": step(
        "resize", lambda right, image, size, kind: image if size == (192, 86) else right(image, size, kind)
    ),
    "tiles are exchanged": operation("fold", lambda right, ops, x, k: ops.take(
        right(ops, x, k), ops.constant(np.arange(9 * ROWS).reshape(9, ROWS)[[1, 0, 2, 3, 4, 5, 6, 7, 8]].reshape(-1))
    )),
    "tiles hang one row too high": patched(
        Image.Image, "crop", lambda right, image, box: right(image, (box[0], box[1] - 1, box[2], box[3] - 1))
    ),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 1e-3
