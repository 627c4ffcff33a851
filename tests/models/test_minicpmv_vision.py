"""MiniCPM-V's tower and resampler against transformers' tower, the published formula, and the processor of 4.6."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from opsin.errors import ModelError, OpsinError
from opsin.gguf import File, NewTensor, write
from opsin.media.budget import PictureBudget
from opsin.media.decode import open_picture
from opsin.models import load_encoder, minicpmv
from opsin.nn.module import FileReader

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from minicpmv_truth import (  # noqa: E402
    HEAD,
    LAYERS,
    MARKER,
    PATCH,
    SIDE,
    SOFT,
    TABLE,
    VERSIONS,
    WIDTH,
    make,
    position,
    processor,
    write_tower,
)
from transformers.vision_utils import get_vision_nearest_position_ids  # noqa: E402
from vision_mutants import TOWERS, operation, patched, step, without  # noqa: E402
from vision_truth import MODES, distance, features, opener, patch_rows, picture, spelt  # noqa: E402

# Of one slice and a little more, tall, wide, of many slices, and so long and thin that a side is one patch.
SIZES = ((1, 1), (1, 30), (30, 1), (48, 48), (49, 48), (48, 49), (30, 20), (96, 48), (48, 96), (64, 48), (144, 144),
         (145, 145), (3, 900), (400, 30), (301, 200), (200, 301), (640, 361))  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    return make(VERSIONS["2.6"])


@pytest.fixture(scope="module")
def open_tower(device, truth, tmp_path_factory):
    return opener(device, truth, write_tower, tmp_path_factory.mktemp("minicpmv"))


def pictures(version="2.6"):
    return processor(VERSIONS[version]).image_processor


def embed(truth, slices):
    with torch.inference_mode():
        return np.concatenate([truth.see(pixels).numpy() for pixels in slices])


def rows(pixels):
    """The patches of a slice, as they lie."""
    _, high, wide = pixels.shape
    return patch_rows(pixels, PATCH).reshape(high // PATCH, wide // PATCH, -1)


def assert_prepared(tower, image):
    assert_equal(tower.layout(open_picture(image)), pictures()(image)[0])


def assert_equal(patches, wanted):
    made = features(patches)
    assert [one.shape for one in made] == [rows(pixels).shape for pixels in wanted]
    for one, pixels in zip(made, wanted, strict=True):
        assert np.abs(one - rows(pixels)).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_all_slices_equal_the_processors(tower, size):
    assert_prepared(tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(tower, mode):
    assert_prepared(tower, picture(93, 61, mode))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_markers_and_rows_equal_the_published(device, tmp_path, version, size):
    open_file = opener(device, make(VERSIONS[version]), write_tower, tmp_path)
    tower, theirs = open_file(), processor(VERSIONS[version])
    given = [picture(*size), picture(20, 190, seed=1)]
    text = f"What is {MARKER} and what {MARKER}?"
    first, second, last = text.split(tower.marker)
    layouts = [tower.layout(open_picture(image)) for image in given]
    one, two = (layout.numbered.format(i) + spelt(layout, SOFT) for i, layout in enumerate(layouts))
    spelling = first + one + second + two + last
    ids = theirs([text], given)["input_ids"]
    assert [theirs.tokenizer(spelling)["input_ids"]] == ids
    assert theirs.tokenizer.decode(ids[0]) == spelling


def test_a_picture_is_a_span_for_the_whole_and_one_a_slice(tower):
    patches = tower.layout(open_picture(picture(200, 90)))
    assert patches.whole == patches.size == (4 * 48, 2 * 48)
    assert [span.rows for span in patches.spans] == [5] * 9
    assert {span.grid for span in patches.spans} == {None}
    assert patches.spans[0].area == (0.0, 0.0, 200.0, 90.0)
    assert patches.spans[6].area == (50.0, 45.0, 100.0, 90.0)
    assert len({span.digest for span in patches.spans}) == 9
    assert len(patches.rectangles()) == patches.rows == 9 * 5
    assert patches.markers[0] == "<image_id>{}</image_id>"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "budget",
    [PictureBudget(max_image_tokens=5 * 5), PictureBudget("high", max_pixels=3 * SIDE**2), PictureBudget("low")],
)
def test_a_budget_is_the_most_slices_that_it_allows(tower, size, budget):
    patches = tower.layout(open_picture(picture(*size)).at(budget))
    for most in (1,) if budget.detail == "low" else range(9, 0, -1):
        wanted, (rows, columns) = replace(pictures(), most=most)(picture(*size))
        _, high, wide = wanted[-1].shape
        seen = (columns * wide, rows * high) if rows else (wide, high)
        if budget.fits(seen, 5 * len(wanted)):
            break
    assert patches.size == seen
    assert patches.rows == 5 * len(wanted)
    assert_equal(patches, wanted)


def test_slices_of_equal_corners_in_other_grids_are_others(tower):
    spans = [
        span
        for tokens in range(5, 51, 5)
        for span in tower.layout(open_picture(picture(40, 406)).at(PictureBudget(max_image_tokens=tokens))).spans
    ]  # 9 slices of 42 x 48, or 8 of 42 x 54
    assert len({span.digest for span in spans}) == len({(span.size, span.area) for span in spans}) > 20


def test_a_picture_is_resized_twice_for_all_its_slices(tower, monkeypatch):
    seen = []
    mutant = step("resize", lambda right, *given: seen.append(given[1]) or right(*given))
    mutant(monkeypatch, tower)
    patches = tower.layout(open_picture(picture(200, 90)))
    assert not seen
    first = features(patches)
    assert seen == [(72, 30), (192, 96)]
    assert all(np.array_equal(a, b) for a, b in zip(first, features(patches), strict=True))


def test_learned_positions_are_those_of_the_processor_of_4_6(tower):
    """Whole numbers tell them. Older code rounds in float32, and finds a few others where a side is 25, 49 or 50."""
    wide = replace(tower, positions=np.zeros((4900, 1), np.float32))
    for count in (*range(1, 300), 1024, 4681):
        theirs = get_vision_nearest_position_ids(torch.tensor([[3, count]]), 70)
        assert wide._places(3, count).tolist() == theirs.tolist()


def test_waves_are_those_of_each_place():
    made = minicpmv.waves(3, 75, WIDTH)
    wanted = [position(row, column, WIDTH) for row in range(3) for column in range(75)]
    assert np.abs(made - np.stack(wanted)).max() < 1e-6


def slices(count, seed=0, high=48, wide=60):
    return np.random.default_rng(seed).standard_normal((count, 3, high, wide)).astype(np.float32)


@pytest.mark.parametrize("shape", [(48, 48), (6, 90), (102, 18)])
def test_embeddings_equal_transformers(tower, truth, shape):
    given = slices(3, 0, *shape)
    assert distance(tower.encode(np.stack([rows(one) for one in given])).numpy(), embed(truth, given)) < 1e-4
    assert tower.width == WIDTH


def test_embeddings_from_halves_are_near(open_tower, truth):
    given = slices(1)
    made = open_tower(half=True).encode(np.stack([rows(one) for one in given])).numpy()
    assert 1e-6 < distance(made, embed(truth, given)) < 5e-3


def test_attention_is_peaked(tower, truth, monkeypatch):
    (pixels,) = slices(1)
    with torch.inference_mode():
        seen = truth.vpm(torch.from_numpy(pixels)[None], output_attentions=True).attentions
    assert len(seen) == LAYERS
    assert all(float(weights.amax(-1).mean()) > 0.1 for weights in seen)  # of 80 patches
    given = []
    look = operation("attend_dense", lambda right, ops, *x, **options: given.append(x[:2]) or right(ops, *x, **options))
    look(monkeypatch, tower).encode(rows(pixels)[None])
    q, k = (x.numpy().astype(np.float64) for x in given[-1])
    scores = np.exp(np.einsum("qhd,khd->hqk", q, k) / HEAD**0.5)
    assert float((scores / scores.sum(-1, keepdims=True)).max(-1).mean()) > 0.1


def test_a_batch_equals_its_pictures_one_by_one(tower):
    given = np.stack([rows(one) for one in slices(3)])
    alone = [tower.encode(one[None]).numpy() for one in given]
    assert np.array_equal(tower.encode(given).numpy(), np.concatenate(alone))


def test_old_files_say_less_and_mean_the_first_version(device, tmp_path):
    truth = make(VERSIONS["2.5"])
    old, new = (opener(device, truth, write_tower, tmp_path)(old=old) for old in (True, False))
    assert (old.version, old.width) == (new.version, new.width) == (2, WIDTH)
    given = np.stack([rows(one) for one in slices(2)])
    assert np.array_equal(old.encode(given).numpy(), new.encode(given).numpy())
    assert old.layout(open_picture(picture(20, 30))).markers == ("<image>", "</image>")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clip.minicpmv_version": 1}, "clip.minicpmv_version is 1"),
        ({"clip.minicpmv_version": 7}, "clip.minicpmv_version is 7"),
        ({"clip.minicpmv_query_num": 6}, "clip.minicpmv_query_num is 6, and resampler.query has 5 rows"),
        ({"clip.vision.embedding_length": 52}, "v.position_embd.weight is .100, 48., where a square of rows of 52"),
        ({"clip.vision.patch_size": 8}, "v.patch_embd.weight"),
        ({"clip.vision.image_size": 50}, "clip.vision.image_size is 50"),
    ],
)
def test_a_file_whose_numbers_do_not_go_together_is_refused(open_tower, keys, said):
    with pytest.raises(OpsinError, match=said):
        open_tower(keys=keys)


def test_a_row_beside_the_patches_is_refused(device, truth, tmp_path):
    with File.open(write_tower(tmp_path / "good.gguf", truth)) as file:
        tensors = [NewTensor(name, info.shape, info.type, file.read(name)) for name, info in file.tensors.items()]
        tensors.append(NewTensor.of("v.class_embd", np.zeros(48, np.float32)))
        write(tmp_path / "bad.gguf", dict(file.typed), tensors)
    with File.open(tmp_path / "bad.gguf") as file, pytest.raises(ModelError, match=r"v\.class_embd"):
        load_encoder(file, FileReader(file, device.eager()))


def from_end_to_end(encoder, truth):
    """How far the embeddings of a picture are off, from its pixels on."""
    image = picture(200, 90)
    made = features(encoder.layout(open_picture(image)))
    ours = [encoder.encode(made[0][None]).numpy(), encoder.encode(np.stack(made[1:])).numpy()]
    return distance(np.concatenate(ours), embed(truth, pictures()(image)[0]))


def positions(change):
    return lambda patch, encoder: replace(encoder, positions=change(encoder.positions))


def resampler(change):
    """Of the attention of the resampler alone, whose queries are fewer than its keys."""

    def wrong(right, ops, q, k, v, *spans, **options):
        given = change(q, k, v, options) if q.shape != k.shape else (q, k, v)
        return right(ops, *given, *spans, **options)

    return operation("attend_dense", wrong)


def other_scale(q, k, v, options):
    options["scale"] = 1.0
    return q, k, v


def first_alone(q, k, v, options):
    options["parts"] = 1
    return q, k, v


def no_norm(name):
    def apply(patch, encoder):
        patch.setattr(encoder.resampler.weights, name, lambda x, shape: x)
        return encoder

    return apply


def turned(right, encoder, high, wide):
    return right(encoder, wide, high).reshape(wide, high).T.reshape(-1)


MUTANTS = {
    **TOWERS,
    "no positions": positions(lambda table: 0 * table),
    "positions of the patch before": positions(lambda table: np.roll(table, 1, 0)),
    "positions of a smaller table": positions(lambda table: table[: (TABLE - 1) ** 2]),
    "positions of columns for rows": patched(minicpmv.MiniCpmVision, "_places", turned),
    "no norm at the end of the tower": without("post_ln"),
    "no norm of queries": no_norm("ln_q"),
    "no norm of patches": no_norm("ln_kv"),
    "no norm after the resampler": no_norm("ln_post"),
    "no waves": patched(minicpmv, "waves", lambda right, *sizes: 0 * right(*sizes)),
    "waves of rows before those of columns": patched(
        minicpmv, "waves", lambda right, *sizes: np.roll(right(*sizes), WIDTH // 2, 1)
    ),
    "waves of places that are counted from 1": patched(
        minicpmv, "waves", lambda right, high, wide, width: right(high, wide + 1, width).reshape(
            high, wide + 1, width)[:, 1:].reshape(-1, width)
    ),
    "values have waves, too": resampler(lambda q, k, v, options: (q, k, k)),
    "the resampler's scores are not scaled": resampler(other_scale),
    "all slices see the first one": resampler(first_alone),
    "another filter": step("resize", lambda right, image, size, kind: right(image, size, "bilinear")),
    "slices hang one row too high": patched(
        Image.Image, "crop", lambda right, image, box: right(image, (box[0], box[1] - 1, box[2], box[3] - 1))
    ),
}  # fmt: skip


def test_from_pixels_to_embeddings(tower, truth):
    assert from_end_to_end(tower, truth) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, tower, truth, mutant):
    assert from_end_to_end(MUTANTS[mutant](monkeypatch, tower), truth) > 1e-3
