"""Pixtral's tower, and Mistral Small's, against transformers' classes and processor."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from opsin.api.vision import Vision
from opsin.errors import OpsinError, RequestError
from opsin.media.budget import LOW_TOKENS, PictureBudget
from opsin.media.decode import open_picture
from opsin.media.fetch import FetchRules
from opsin.media.limits import PictureLimits
from opsin.models import pixtral as family

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pixtral_truth import HEADS, PATCH, SIDE, TOWERS, WIDTH, merges, write_tower  # noqa: E402
from vision_mutants import TOWERS as COMMON  # noqa: E402
from vision_mutants import operation, patched, shape, step, without  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

SIZES = ((1, 1), (3, 3), (1, 30), (30, 1), (4, 4), (5, 4), (96, 96), (97, 96), (96, 97), (192, 96), (301, 200),
         (640, 361), (20, 90), (90, 20), (8, 700))  # fmt: skip


@pytest.fixture(scope="module", params=TOWERS)
def both(request):
    """A model, and its processor."""
    return TOWERS[request.param].make(), TOWERS[request.param].processor()


@pytest.fixture(scope="module")
def truth(both):
    return both[0]


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("pixtral"))


def prepare(both, image):
    """transformers' pixels [1, 3, height, width] and size."""
    made = both[1].image_processor([image], return_tensors="pt", patch_size=PATCH * merges(both[0]))
    return made["pixel_values"], made["image_sizes"]


def embed(truth, pixels, sizes):
    with torch.inference_mode():
        options = {} if merges(truth) > 1 else {"vision_feature_select_strategy": "full"}
        found = truth.model.get_image_features(pixels, image_sizes=sizes, vision_feature_layer=-1, **options)
    return torch.cat(list(found.pooler_output)).numpy()


def rows(truth, pixels):
    """Our features of transformers' pixels."""
    _, _, high, wide = pixels.shape
    return patch_rows(pixels[0].numpy(), PATCH, merges(truth)).reshape(1, high // PATCH, wide // PATCH, -1)


def first_features(layout):
    """Of the one picture that all its spans show."""
    assert len({span.digest for span in layout.spans}) == 1
    return features(layout)[0][None]


def assert_prepared(both, tower, image):
    made, wanted = first_features(tower.layout(open_picture(image))), rows(both[0], prepare(both, image)[0])
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, both, size):
    assert_prepared(both, tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, both, mode):
    assert_prepared(both, tower, picture(93, 61, mode))


BUDGETS = (
    PictureBudget(max_image_tokens=100), PictureBudget(max_image_tokens=30), PictureBudget(max_pixels=2500),
    PictureBudget("low"), PictureBudget("low", max_pixels=1600),
)  # fmt: skip


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [(96, 96), (301, 200), (90, 20), (8, 700)])
def test_a_budget_is_the_largest_edge_that_it_allows(tower, both, size, budget):
    image, factor = picture(*size), PATCH * merges(both[0])
    most = min(budget.max_image_tokens or LOW_TOKENS, LOW_TOKENS if budget.detail == "low" else 1 << 20)
    for edge in range(SIDE, 0, -1):  # as the processor with this setting has it
        theirs = both[1].image_processor(
            [image], return_tensors="pt", patch_size=factor, size={"longest_edge": edge}
        )  # fmt: skip
        high, wide = theirs["image_sizes"][0].tolist()
        if high * wide // factor**2 <= most and high * wide <= (budget.max_pixels or high * wide):
            break
    layout = tower.layout(open_picture(image).at(budget))
    assert layout.size == (wide, high) and layout.rows <= most
    wanted = rows(both[0], theirs["pixel_values"])
    assert np.abs(first_features(layout) - wanted).max() <= 1e-5


def test_a_picture_of_which_nothing_would_be_left_is_refused(tower, both):
    with pytest.raises(ValueError, match="width=0"):
        prepare(both, picture(1, 200))
    with pytest.raises(RequestError, match=r"1 x 200 would vanish") as caught:
        tower.layout(open_picture(picture(1, 200)))
    assert caught.value.status == 400
    assert caught.value.hint


@pytest.mark.parametrize("size", SIZES)
def test_rows_and_markers_equal_the_processors(tower, both, size):
    given = [picture(*size), picture(50, 90, seed=1)]
    text = "What is [IMG]\nand what [IMG]?"
    ids = both[1](images=given, text=[text])["input_ids"]
    first, second, last = text.split(tower.marker)
    ours = [spelt(tower.layout(open_picture(image)), "[IMG]") for image in given]
    assert both[1].tokenizer([first + ours[0] + second + ours[1] + last])["input_ids"] == ids


def test_a_picture_is_a_span_for_each_row_with_text_between(tower, truth):
    layout, block = tower.layout(open_picture(picture(100, 64))), merges(truth)
    wide, high = 96 // PATCH // block, 64 // PATCH // block
    assert layout.markers == ("[IMG_BREAK]",) * (high - 1) + ("[IMG_END]",)
    assert [(s.first, s.rows, s.positions, s.encoded) for s in layout.spans] == [
        (row * wide, wide, wide, high * wide) for row in range(high)
    ]
    assert (layout.grid, layout.size, layout.rows) == ((high, wide), (96, 64), high * wide)
    assert layout.rectangles()[wide + 1] == pytest.approx((100 / wide, 64 / high, 200 / wide, 128 / high))


GRIDS = (
    (96, 96),
    (72, 40),
    (8, 96),
    (40, 72),
    (16, 8),
    (88, 56),
)  # transformers merges to no single row


@pytest.mark.parametrize("size", GRIDS)
def test_embeddings_equal_transformers(tower, both, size):
    pixels, sizes = prepare(both, picture(*size))
    assert distance(tower.encode(rows(both[0], pixels)).numpy(), embed(both[0], pixels, sizes)) < 1e-4
    assert tower.width == 64


def test_embeddings_from_halves_are_near(open_tower, both):
    pixels, sizes = prepare(both, picture(72, 40))
    ours = open_tower(half=True).encode(rows(both[0], pixels)).numpy()
    assert 1e-6 < distance(ours, embed(both[0], pixels, sizes)) < 5e-3


def test_the_row_for_breaks_of_other_files_changes_nothing(tower, open_tower):
    given = first_features(tower.layout(open_picture(picture(72, 40))))
    assert np.array_equal(open_tower(breaks=True).encode(given).numpy(), tower.encode(given).numpy())


def test_attention_of_the_tower_is_peaked(both):
    pixels, sizes = prepare(both, picture(64, 64))
    with torch.inference_mode():
        seen = both[0].model.vision_tower(pixels, image_sizes=sizes, output_attentions=True).attentions
    assert len(seen) == 3
    assert all(float(weights.amax(-1).mean()) > 0.05 for weights in seen)  # of 256 patches


@pytest.mark.parametrize("size", GRIDS)
def test_a_batch_equals_its_pictures_one_by_one(tower, size):
    given = [first_features(tower.layout(open_picture(picture(*size, seed=i)))) for i in range(3)]
    alone = [tower.encode(one).numpy() for one in given]
    assert np.array_equal(tower.encode(np.concatenate(given)).numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.spatial_merge_size": 3}, "spatial_merge_size is 3.*say otherwise|432 are needed|of 432"),
        ({"clip.vision.spatial_merge_size": 25}, "24 patches a side are no squares of 25"),
        ({"clip.vision.spatial_merge_size": 0}, "spatial_merge_size is 0"),
        ({"clip.vision.attention.head_count": 8}, "a head of 6 values does not turn"),
        ({"clip.vision.projection_dim": 65}, "mm.2.weight makes 64 of 64 values, where 65"),
        ({"clip.vision.block_count": 2}, "holds 3 of its 2 layers"),
        ({"clip.vision.image_size": 95}, "image_size is 95"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def test_a_merger_and_its_key_go_together(open_tower, truth):
    other = 1 if merges(truth) > 1 else 2
    with pytest.raises(OpsinError, match=f"spatial_merge_size is {other}, but mm.input_norm and mm.patch_merger"):
        open_tower(keys={"clip.vision.spatial_merge_size": other})


@pytest.mark.parametrize(("missing", "said"), [((), None), (("[IMG_END]",), r"writes '\[IMG_END\]' around pictures")])
def test_a_text_model_without_the_tokens_around_rows_is_another_ones(truth, tmp_path, missing, said):
    path = write_tower(tmp_path / "mmproj.gguf", truth)
    vision = Vision(path, FetchRules(), PictureLimits())
    tokenizer = SimpleNamespace(encode=lambda text, special: [1, 2] if text in missing else [1])
    found = vision.find_misfit(SimpleNamespace(media_width=64, axes=1), tokenizer)
    assert found is None if said is None else re.search(said, found)


def from_end_to_end(encoder, both):
    """How far the embeddings of two pictures are off, from their pixels on."""
    images = [picture(73, 41), picture(73, 41, seed=1)]
    given = np.concatenate([first_features(encoder.layout(open_picture(image))) for image in images])
    ours = encoder.encode(given).numpy()
    theirs = np.concatenate([embed(both[0], *prepare(both, image)) for image in images])
    return distance(ours, theirs) if ours.shape == theirs.shape else 1.0


def turning(change):
    """Of the frequencies of rows and columns, or of the places."""
    return patched(family, "plane_table", lambda right, ops, *parts: right(ops, *change(*parts)))


def linear(change):
    """Of the layers of the projector that have an activation."""
    return operation(
        "linear", lambda right, ops, x, w, bias=None, residual=None, activation=None: right(
            ops, x, w, bias, residual, activation=change(activation) if activation == "gelu_erf" else activation
        )
    )  # fmt: skip


MUTANTS = {
    **COMMON,
    "no 2-D RoPE": operation("rope", lambda right, ops, x, table, pairing: x),
    "rows and columns are exchanged": turning(lambda places, row, column: (places[:, ::-1].copy(), row, column)),
    "columns turn as rows do": turning(lambda places, row, column: (places, row, row)),
    "positions begin at one in rows alone": turning(
        lambda places, row, column: (places * np.int32([2, 1]), row, column)
    ),
    "pairs are halves": shape(pairing="halves"),
    "layer norms": shape(norm="layer"),
    "no norm at the beginning of the tower": without("pre_ln"),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "bars instead of stretching": step(
        "resize", lambda right, image, size, kind: right(image.crop((0, 0, 80, 45)), size, kind)
    ),
    "no gate": operation("glu", lambda right, ops, gate, up, kind: up),
    "the gate is not activated": operation("glu", lambda right, ops, gate, up, kind: ops.multiply(gate, up)),
    "no activation between": linear(lambda activation: None),
    "another activation between": linear(lambda activation: "gelu_quick"),
    "sizes in whole patches, rounded down": patched(
        family.sizes, "within", lambda right, size, most, factor: tuple(n // factor * factor for n in size)
    ),
    "pictures are exchanged": patched(
        family.Vit, "embed", lambda right, tower, features: right(tower, features[::-1])
    ),
}  # fmt: skip
MERGING = {
    "the merger's channels in the file's order": lambda patch, encoder: patch.setattr(
        family.Merger, "reorder", staticmethod(lambda values: values)
    ),
    "no norm before the merger": lambda patch, encoder: replace(
        encoder, projector=_with(encoder.projector, input_norm=lambda x, eps: x)
    ),
    "patches in raster order": step("patchify", lambda right, values, patch, block: right(values, patch)),
}  # fmt: skip


def _with(part, **changes):
    other = part.__class__.__new__(part.__class__)
    vars(other).update({**vars(part), **changes})
    return other


def test_from_pixels_to_embeddings(tower, both):
    assert from_end_to_end(tower, both) < 1e-4


@pytest.mark.parametrize("mutant", {**MUTANTS, **MERGING})
def test_mutant_is_seen(monkeypatch, open_tower, both, mutant):
    if mutant in MERGING and merges(both[0]) == 1:
        pytest.skip("merges nothing")
    wrong = {**MUTANTS, **MERGING}[mutant](monkeypatch, open_tower())
    assert (
        from_end_to_end(wrong or open_tower(), both) > 1e-3
    )  # without one what is read is wrong, not what is computed


def test_the_tiny_models_have_what_shows_mistakes():
    assert WIDTH // HEADS % 4 == 0
    assert SIDE // PATCH == 24
