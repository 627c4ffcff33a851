"""Gemma 4's tower against transformers' class and processor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import OpsinError
from opsin.media import sizes
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.decode import open_picture
from opsin.models.gemma4_vision import CAUSAL

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_vision_truth import (  # noqa: E402
    PATCH,
    POOL,
    SPECIALS,
    TOKENS,
    processor,
    seeing_truth,
    sharing_truth,
    write_tower,
)
from vision_mutants import operation, step  # noqa: E402
from vision_truth import MODES, distance, features, opener, picture, spelt  # noqa: E402

from opsin.nn.parts import ClampedLinear  # noqa: E402

SIZES = ((1, 1), (1, 30), (30, 1), (2, 2), (100, 3), (3, 100), (96, 96), (97, 96), (96, 97), (120, 84), (64, 48),
         (301, 200), (640, 361), (1, 900), (900, 1))  # fmt: skip
SIDE = PATCH * POOL
GRIDS = ((24, 24), (12, 12), (84, 120), (12, 300), (300, 12))  # pixels


@pytest.fixture(scope="module")
def truth():
    return seeing_truth()


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("gemma4"))


def prepare(image, **options):
    """transformers' patches of one picture without padding, [high, wide, values] colour by colour; and all it made."""
    made = processor().image_processor([image], return_tensors="np", **options)
    places = made["image_position_ids"][0]
    count = int((places[:, 0] >= 0).sum())
    wide, high = (places[:count].max(0) + 1).tolist()
    flat = made["pixel_values"][0][:count].reshape(count, PATCH, PATCH, 3).transpose(0, 3, 1, 2)
    return flat.reshape(high, wide, -1), made


def in_squares(patches):
    """Patches of a picture [high, wide, values] as ours stand: square after square, told one by one."""
    high, wide, values = patches.shape
    rows = [
        patches[y, x]
        for top in range(0, high, POOL)
        for left in range(0, wide, POOL)
        for y in range(top, top + POOL)
        for x in range(left, left + POOL)
    ]
    return np.stack(rows).reshape(high, wide, values)


def embed(truth, made):
    with torch.inference_mode():
        given = torch.from_numpy(made["pixel_values"]), torch.from_numpy(made["image_position_ids"])
        found = truth.model.get_image_features(*given).pooler_output
    return torch.cat(list(found)).numpy() if isinstance(found, list | tuple) else found.numpy()


def assert_prepared(tower, image, budget=USUAL, **options):
    (made,) = features(tower.layout(open_picture(image).at(budget)))
    wanted = in_squares(prepare(image, **options)[0])
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    assert_prepared(tower, picture(93, 61, mode))


@pytest.mark.parametrize(("budget", "tokens"), [
    (PictureBudget("high"), 1120), (PictureBudget("low"), 70), (PictureBudget("high", max_image_tokens=600), 560),
    (PictureBudget("high", max_image_tokens=150), 140), (PictureBudget(min_image_tokens=200), 280),
])  # fmt: skip
def test_a_budget_is_the_processors(tower, budget, tokens):
    assert_prepared(tower, picture(300, 200), budget, max_soft_tokens=tokens)


def test_the_usual_budget_is_280_tokens(open_tower):
    tower = open_tower(keys={"clip.vision.image_max_pixels": None})
    assert_prepared(tower, picture(300, 200), max_soft_tokens=280)
    asked = {
        n: tower.layout(open_picture(picture(300, 200)).at(PictureBudget(max_image_tokens=n))).rows for n in (280, 100)
    }
    assert 140 < asked[280] <= 280 and 35 < asked[100] <= 70


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (1000, 3), (3, 1000), (640, 480), (12345, 6789), (71, 70)])
@pytest.mark.parametrize("tokens", [70, 280, 1120])
def test_sizes_equal_the_processors(size, tokens):
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    high, wide = get_aspect_ratio_preserving_size(size[1], size[0], 16, tokens * 9, 3)
    assert sizes.most_squares(size, 48, tokens) == (wide, high)
    assert wide * high <= tokens * 48**2


def test_rows_equal_the_processors(tower):
    theirs, given = processor(), [picture(*size) for size in ((60, 44), (40, 90), (120, 41))]
    text = "A <|image|> and <|image|>, then<|image|>?"
    ids = theirs(images=given, text=[text], return_tensors="pt")["input_ids"][0].tolist()
    layouts = [tower.layout(open_picture(image)) for image in given]
    parts = text.split(tower.marker)
    spelling = "".join(part + spelt(layout, SPECIALS[3]) for part, layout in zip(parts, layouts, strict=False))
    assert theirs.tokenizer(spelling + parts[-1])["input_ids"] == ids


def test_a_picture_is_one_span(tower):
    patches = tower.layout(open_picture(picture(100, 64)))
    (span,) = patches.spans
    assert patches.markers == ("<|image>", "<image|>")
    assert (span.grid, span.rows, span.positions, span.atomic) == ((6, 10), 60, 60, True)
    assert span.rows <= TOKENS


@pytest.mark.parametrize(("width", "said", "atomic"), [
    (64, None, True), (64, False, False), (CAUSAL[0], None, False), (CAUSAL[1], None, False), (CAUSAL[0], True, True),
])  # fmt: skip
def test_rows_see_each_other_where_the_width_or_the_file_says_so(open_tower, monkeypatch, width, said, atomic):
    monkeypatch.setattr("opsin.nn.parts.Linear.check", lambda *_: None)
    keys = {"clip.vision.projection_dim": width, "clip.vision.bidirectional": said}
    tower = open_tower(keys={key: value for key, value in keys.items() if value is not None})
    assert tower.layout(open_picture(picture(30, 30))).spans[0].atomic == atomic


@pytest.mark.parametrize("size", GRIDS)
def test_embeddings_equal_transformers(tower, truth, size):
    image = picture(*size)
    patches, made = prepare(image)
    ours = tower.encode(in_squares(patches)[None]).numpy()
    assert distance(ours, embed(truth, made)) < 1e-4
    assert tower.width == ours.shape[1] == 64


def test_embeddings_without_bounds_and_statistics_equal_transformers(device, tmp_path):
    truth = sharing_truth()
    tower = opener(device, truth, write_tower, tmp_path)()
    patches, made = prepare(picture(84, 120))
    assert distance(tower.encode(in_squares(patches)[None]).numpy(), embed(truth, made)) < 1e-4


def test_embeddings_from_halves_are_near(open_tower, truth):
    patches, made = prepare(picture(84, 120))
    ours = open_tower(half=True).encode(in_squares(patches)[None]).numpy()
    assert 1e-6 < distance(ours, embed(truth, made)) < 5e-3


def test_a_batch_gives_the_bits_of_its_pictures(tower):
    given = np.random.default_rng(0).uniform(size=(3, 6, 9, 48)).astype(np.float32)
    alone = np.concatenate([tower.encode(one[None]).numpy() for one in given])
    assert np.array_equal(tower.encode(given).numpy(), alone)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.vision.projector.scale_factor": 17}, "17 patches along a square"),
        ({"clip.vision.attention.head_dim": 18}, "heads of 18"),
        ({"clip.vision.attention.head_dim": 8}, r"attn_q_norm.weight has 16 values, where 8"),
        ({"clip.vision.image_max_pixels": 100}, "0 tokens a picture"),
        ({"clip.vision.image_max_pixels": (1 << 31) - 1}, "tokens a picture"),
        ({"clip.vision.patch_size": 8}, r"v.patch_embd.weight is \(48, 48\)"),
        ({"clip.vision.projector.scale_factor": 4}, r"v.position_embd.weight is \(2, 4000, 48\); \(2, 4480, 48\)"),
        ({"clip.vision.block_count": 4}, "holds 3 of its 4 layers"),
        ({"clip.vision.projection_dim": 65}, "mm.input_projection.weight makes 64 of 48 values"),
        ({"clip.vision.feed_forward_length": 81}, "ffn_gate.weight makes 80 of 48"),
        ({"clip.vision.image_std": np.float32([1, 0, 1])}, "image_std"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def from_end_to_end(encoder, truth):
    """How far the embeddings of two pictures are off, from their pixels on."""
    images = [picture(93, 61), picture(93, 61, seed=1)]
    given = [features(encoder.layout(open_picture(image)))[0] for image in images]
    theirs = [embed(truth, prepare(image)[1]) for image in images]
    return distance(encoder.encode(np.stack(given)).numpy(), np.concatenate(theirs))


def part(name, wrong):
    """Of one part of all layers: wrong(encoder)."""

    def apply(patch, encoder):
        for layer in encoder.tower.blk:
            patch.setattr(layer, name, wrong(layer))
        return encoder

    return apply


def of_encoder(**changes):
    def apply(patch, encoder):
        return replace(encoder, **{name: change(encoder) for name, change in changes.items()})

    return apply


def of_tower(name, value):
    def apply(patch, encoder):
        patch.setattr(encoder.tower, name, value)
        return encoder

    return apply


def unbounded(*names):
    def apply(patch, encoder):
        for layer in encoder.tower.blk:
            for matrix in vars(layer).values():
                if isinstance(matrix, ClampedLinear):
                    for name in names:
                        patch.setattr(matrix, name, None)
        return encoder

    return apply


MUTANTS = {
    "no bounds of what goes in": unbounded("input_min", "input_max"),
    "no bounds of what comes out": unbounded("output_min", "output_max"),
    "least and most are exchanged": operation("clamp", lambda right, ops, x, a, b: right(ops, x, -b, -a)),
    "scores are scaled": operation(
        "attend_dense", lambda right, ops, *args, scale, **more: right(ops, *args, scale=0.25, **more)
    ),
    "values are not normed": operation("rms_norm", lambda right, ops, x, w, eps: x if w is None and x.rank == 3
                                       else right(ops, x, w, eps)),
    "no norm before the projection": operation("rms_norm", lambda right, ops, x, w, eps: x if w is None and x.rank == 2
                                               else right(ops, x, w, eps)),
    "no norm of queries": part("q_norm", lambda layer: lambda x, eps: x),
    "no norm of keys": part("k_norm", lambda layer: lambda x, eps: x),
    "no norm behind attention": part("attn_post_norm", lambda layer: lambda x, eps: x),
    "no norm behind the feed-forward": part("ffn_post_norm", lambda layer: lambda x, eps: x),
    "halves of a head turn together": operation(
        "rope", lambda right, ops, x, table, pairing: right(ops, x, table, "halves")
    ),
    "neighbours turn together": operation(
        "rope", lambda right, ops, x, table, pairing: right(ops, x, table, "neighbours")
    ),
    "nothing turns": operation("rope", lambda right, ops, x, table, pairing: x),
    "rows turn first": operation("rope_table", lambda right, ops, positions, *args, **more: right(
        ops, ops.constant(positions.numpy()[:, ::-1].copy()), *args, **more)),
    "rows and columns have each other's positions": of_encoder(positions=lambda encoder: encoder.positions[::-1]),
    "no positions": of_encoder(positions=lambda encoder: 0 * encoder.positions),
    "no statistics": of_tower("std_bias", None),
    "the exact GELU": operation("glu", lambda right, ops, gate, up, kind: right(ops, gate, up, "gelu_erf")),
    "one patch of a square instead of their mean": operation(
        "mean_rows", lambda right, ops, x, k: ops.take(x, ops.constant(np.arange(0, x.shape[0], k)))
    ),
    "the mean is not scaled": operation(
        "scale", lambda right, ops, x, factor: x if factor > 1 else right(ops, x, factor)
    ),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "neighbours of a row are averaged": step("patchify", lambda right, values, patch, block: right(values, patch)),
    "brightness from 0 to 1": step("normalise", lambda right, *args, **more: (right(*args, **more) + 1) / 2),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 3e-4  # bounds hide some of it
