"""Films of families with a time axis, or with times between: frames, pixels, rows, positions against transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.engine.rows import PromptRows
from opsin.media.budget import PictureBudget
from opsin.media.film import Film, FrameChoice, clock
from opsin.media.frames import by_rate, in_steps
from opsin.nn.films import FEWEST, FPS, MOST, STEP, as_pictures, fitted, on_time_axis, tokens_of, with_times
from opsin.spans import MediaSpan, Patches, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from qwen2vl_truth import PAD, VIDEO, first_truth, second_truth  # noqa: E402
from qwen2vl_truth import write_tower as write_second  # noqa: E402
from qwen3vl_truth import third_truth  # noqa: E402
from qwen3vl_truth import write_tower as write_third  # noqa: E402
from transformers.vision_utils import get_vision_window_index  # noqa: E402
from video_processors import Processor  # noqa: E402
from vision_truth import distance, opener, picture  # noqa: E402

PATCH, MERGE, WINDOW, SIDE = 4, 2, 32, 8
FAMILIES = {"qwen2vl": first_truth, "qwen2.5vl": second_truth, "qwen3vl": third_truth}
LENGTHS = ((2, 1.0), (3, 1.0), (4, 10.0), (35, 10.0), (61, 30.0), (300, 30000 / 1001), (3000, 2.0))


def film(count: int = 8, rate: float = 2.0, size: tuple[int, int] = (60, 44)) -> Film:
    """Frames of noise over waves."""
    made: dict[int, object] = {}

    def decode(number: int):
        return made.setdefault(number, picture(*size, seed=number))

    return Film(size, np.arange(count) / rate, count.to_bytes(16), decode)


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def truth(name):
    return FAMILIES[name]()


@pytest.fixture(scope="module")
def open_tower(device, name, truth, tmp_path_factory):
    write = write_third if name == "qwen3vl" else write_second
    return opener(device, truth, write, tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def theirs(name, tower):
    look = {"image_mean": tower.preparation.mean, "image_std": tower.preparation.std,
            "patch_size": PATCH, "merge_size": MERGE}  # fmt: skip
    if name == "qwen3vl":
        size = {"shortest_edge": 4 * SIDE**2, "longest_edge": 24576 * SIDE**2}
        return Processor("qwen3_vl", "Qwen3VLVideoProcessor", size=size, **look)
    size = {"shortest_edge": 128 * SIDE**2, "longest_edge": 768 * SIDE**2}
    return Processor("qwen2_vl", "Qwen2VLVideoProcessor", size=size, fps=FPS, num_frames=None, **look)


def lay_out(name, tower, given):
    return (with_times if name == "qwen3vl" else on_time_axis)(tower, given)


def chosen(name, given):
    if name == "qwen3vl":
        return by_rate(given, given.choice, fps=FPS, most=MOST, least=FEWEST)
    return in_steps(given, given.choice, fps=FPS, most=MOST, least=FEWEST, step=STEP)


def spans_of(parts):
    return [span for part in parts if isinstance(part, Patches) for span in part.spans]


def theirs_of(name, theirs, given):
    """Each moment's patches as ours: [high, wide, first frame's values and the second's]; and the grid."""
    made = theirs(given, chosen(name, given), cap_pixels_per_frame=True)
    ((count, high, wide),) = made["video_grid_thw"].tolist()
    values = made["pixel_values_videos"].numpy().reshape(count, high * wide, 3, 2, PATCH**2)
    both = values.transpose(0, 1, 3, 2, 4).reshape(count, high * wide // MERGE**2, MERGE**2, -1)
    if name == "qwen2.5vl":
        both = both[:, get_vision_window_index(torch.tensor([[1, high, wide]]), MERGE, WINDOW, PATCH)[0].numpy()]
    return both.reshape(count, high, wide, -1), made


@pytest.mark.parametrize(("count", "rate"), LENGTHS)
def test_frames_are_the_processors(name, theirs, count, rate):
    for asked in ({}, {"fps": 1.0}, {"fps": 5}, {"num_frames": 2}, {"num_frames": 12}):
        if asked.get("num_frames", 0) > count or (count < 4 and name != "qwen3vl"):
            continue  # transformers refuses them
        given = film(count, rate).asked(
            FrameChoice(fps=asked.get("fps"), frames=asked.get("num_frames")), PictureBudget()
        )
        if name == "qwen3vl" and not asked and count < 4:
            continue
        wanted = theirs.sample(given, **asked)
        if "fps" in asked and len(wanted) in (FEWEST, MOST):
            continue  # transformers' bounds hold where a person says a rate, ours do not
        assert chosen(name, given) == wanted, asked


@pytest.mark.parametrize("size", [(60, 44), (96, 128), (8, 8), (300, 64), (640, 360)])
@pytest.mark.parametrize("count", [4, 5, 8])
def test_pixels_and_grids_are_the_processors(name, tower, theirs, size, count):
    given = film(count, 2.0, size).asked(FrameChoice(frames=count), PictureBudget())
    wanted, _ = theirs_of(name, theirs, given)
    spans = spans_of(lay_out(name, tower, given))
    assert len(spans) == len(wanted)
    for span, patches in zip(spans, wanted, strict=True):
        assert span.features.shape == patches.shape
        # Of 256 levels: Pillow and torch round a sample twice, after rows and after columns, now and then to others.
        apart = np.abs(span.features.make() - patches) * 255 * min(tower.preparation.std)
        assert np.quantile(apart, 0.999) <= 2.01
        assert apart.mean() <= 0.05


def test_a_frame_of_its_own_size_has_the_processors_very_pixels(name, tower, theirs):
    given = film(4, 2.0, (96, 128))
    wanted, _ = theirs_of(name, theirs, given)
    made = np.stack([span.features.make() for span in spans_of(lay_out(name, tower, given))])
    assert np.abs(made - wanted).max() <= 1e-5


def test_embeddings_are_the_classs(name, tower, theirs, truth):
    given = film(6, 2.0)
    wanted, made = theirs_of(name, theirs, given)
    spans = spans_of(lay_out(name, tower, given))
    with torch.inference_mode():
        found = truth.model.get_video_features(made["pixel_values_videos"], made["video_grid_thw"])
    parts = [found.pooler_output, *(getattr(found, "deepstack_features", None) or ())]
    theirs_rows = torch.cat([torch.cat(list(part)) for part in parts], 1).numpy()
    ours = np.asarray(tower.encode(np.ascontiguousarray(wanted)).numpy())
    assert len(ours) == sum(span.rows for span in spans)
    assert distance(ours, theirs_rows) <= 2e-5


@pytest.mark.parametrize(("count", "rate"), [(8, 2.0), (6, 1.0), (24, 4.0)])
def test_positions_are_the_classs(name, tower, theirs, truth, count, rate):
    given = film(count, rate, (90, 60))
    parts = lay_out(name, tower, given)
    spans = spans_of(parts)
    text = [tuple(range(40, 45)), (50, 51)]
    pieces = list(spans) if name != "qwen3vl" else [x for span in spans for x in ((9, 8), span)]
    prompt = Prompt.of([text[0], *pieces, text[1]])
    rows = PromptRows(prompt, 3)
    ours = rows.positions(0, np.arange(len(prompt), dtype=np.int32))
    is_media = np.zeros(len(prompt), bool)
    for start, span in prompt.placed():
        if isinstance(span, MediaSpan):
            is_media[start : start + len(span)] = True
    _, made = theirs_of(name, theirs, given)
    ids = torch.tensor([np.where(is_media, VIDEO, PAD).tolist()])
    numbers = chosen(name, given)
    pace = {"second_per_grid_ts": [STEP / (len(numbers) / len(given) * given.rate)]} if name == "qwen2.5vl" else {}
    truth.model.config.vision_config.tokens_per_second = int(tower.pace)
    wanted, delta = truth.model.get_rope_index(
        ids, torch.tensor([is_media.astype(int).tolist()]) * 2, video_grid_thw=made["video_grid_thw"], **pace
    )
    within = slice(0, len(prompt) - len(text[1]))
    assert ours[within].tolist() == wanted[:, 0].T[within].tolist()
    behind = ours[within].max() + 1
    assert ours[-2:].tolist() == [[behind] * 3, [behind + 1] * 3]
    if wanted[0, 0, within].max() < wanted[1:, 0, within].max():  # elsewhere transformers forgets the axis of time
        assert ours.tolist() == wanted[:, 0].T.tolist()
        assert rows.position(len(prompt)) == len(prompt) + int(delta)


def test_times_stand_before_moments(tower, name):
    if name != "qwen3vl":
        pytest.skip("has an axis of time")
    texts = [part for part in with_times(tower, film(5, 2.0)) if isinstance(part, str)]
    assert texts == ["<0.2 seconds>", "<1.2 seconds>", "<2.0 seconds>"]


def test_moments_are_who_they_are_by_their_frames_and_stand_where_they_are(name, tower):
    first, longer = (spans_of(lay_out(name, tower, film(8, 2.0))) for _ in range(2))
    assert [span.digest for span in first] == [span.digest for span in longer]
    assert len({span.digest for span in first}) == len(first) == 4
    other = replace(film(8, 2.0), digest=bytes(16))
    assert not {span.digest for span in spans_of(lay_out(name, tower, other))} & {span.digest for span in first}
    slower = spans_of(lay_out(name, tower, film(8, 1.0)))
    same = [a.identity(0, 1) == b.identity(0, 1) for a, b in zip(first, slower, strict=False)]
    assert all(same) is (name != "qwen2.5vl")  # whose positions say how fast time goes


def test_a_film_is_laid_out_without_a_frame_decoded(name, tower):
    def refuse(number: int):
        raise AssertionError(number)

    long = replace(film(600, 1.0, (640, 360)), decode=refuse)
    parts = lay_out(name, tower, long.asked(FrameChoice(fps=1), PictureBudget()))
    assert tokens_of(parts) == sum(span.rows for span in spans_of(parts)) > 600


@pytest.mark.parametrize("most", [2000, 400, 60, 8])
def test_a_film_is_fitted_into_its_tokens(name, tower, most):
    given = film(40, 4.0, (128, 96)).asked(FrameChoice(max_video_tokens=most), PictureBudget())
    parts = fitted(lambda one: lay_out(name, tower, one), given)
    assert 0 < tokens_of(parts) <= most


def test_other_families_see_frames_as_pictures_behind_their_times(tower):
    given = film(5, 0.05, (64, 48))
    parts = as_pictures(tower, given.asked(FrameChoice(frames=3), PictureBudget()))
    assert parts[::2] == ("[00:00]", "[00:40]", "[01:20]")
    assert clock(3671.9) == "61:11"
    for patches, number in zip(parts[1::2], (0, 2, 4), strict=True):
        alone = tower.layout(given.picture(number))
        assert patches.spans == alone.spans
        assert np.array_equal(patches.spans[0].features.make(), alone.spans[0].features.make())
