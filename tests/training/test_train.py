"""A run may stop and go on, or begin with the package's weights; the first layer starts as a whitening."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from training.crowd import LARGE, CrowdStream, draw_crowd  # noqa: E402
from training.model import OFFSETS, Nano, Shape, prepare, waves_of  # noqa: E402
from training.pool import mixed, repeated  # noqa: E402
from training.retrain import QUICK, EasyStream  # noqa: E402
from training.scenes import SIZES, Style  # noqa: E402
from training.train import Learner, Options, Stage, rate_at, train  # noqa: E402
from training.weights import read_weights  # noqa: E402
from training.whiten import SCALE, whiten  # noqa: E402

TINY = Shape(
    width=64, heads=1, groups=1, inner=64, layers=1, tower_width=64, tower_layers=1, tower_heads=1, tower_inner=96
)
STAGES = tuple(replace(stage, steps=2, size=2) for stage in QUICK)


def options(folder: Path) -> Options:
    """A run of a tiny model in this process."""
    return Options(folder, threads=1, workers=0, with_assets=False, shape=TINY)


def test_stopped_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    """Two stages, then the third from the checkpoint, give the weights of three stages at once."""
    whole = train(STAGES, options(tmp_path / "whole"), resume=False)
    train(STAGES[:2], options(tmp_path / "broken"), resume=False)
    rest = train(STAGES, options(tmp_path / "broken"), resume=True)
    assert rest.place.stage == "both" and rest.place.batches == whole.place.batches == 6
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, rest.model.state_dict()[name])


def test_decoder_stage_leaves_the_tower_alone(tmp_path: Path) -> None:
    """The second stage moves the decoder only."""
    first = train(STAGES[:1], options(tmp_path), resume=False).model.state_dict()
    before = {name: tensor.clone() for name, tensor in first.items()}
    after = train(STAGES[:2], options(tmp_path), resume=True).model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"language_model", "multi_modal_projector"}


def test_stages_that_count_say_how_well(tmp_path: Path) -> None:
    """They log how many things rows tell and names look at; the others have no such task. Likewise those that read."""
    stages = (*STAGES[:2], replace(STAGES[2], counts=True, reads=True))
    train(stages, options(tmp_path), resume=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [("told" in line, "tally" in line) for line in lines] == [(False, False), (False, False), (True, True)]
    assert ["spelt" in line for line in lines] == [False, False, True]


def test_a_run_without_a_checkpoint_goes_on_from_the_package(tmp_path: Path) -> None:
    """Its weights, no stage of the recipe and a fresh optimiser."""
    learner = Learner(replace(options(tmp_path), shape=Shape()), torch.device("cpu"))
    assert learner.load() == [] and learner.place.step == 0
    weights = read_weights()
    for name, tensor in learner.model.state_dict().items():
        assert torch.equal(weights[name], tensor) and torch.equal(learner.average.tensors[name], tensor)


def test_rate_rises_stays_and_falls() -> None:
    """The course of the learning rate."""
    stage = Stage("x", steps=1000, size=1, rate=1.0, talks=False, sees=True, settle=0.3)
    assert rate_at(stage, 0) == pytest.approx(0.01)
    assert rate_at(stage, 500) == 1.0
    assert rate_at(stage, 850) == pytest.approx(0.5)
    assert rate_at(replace(stage, settle=0.0), 999) == 1.0


def test_whitened_layer_gives_even_values() -> None:
    """Outputs of the first layer vary alike over the patches it was made from, and leave room for the place."""
    model = Nano(TINY)
    pixels = EasyStream(seed="w", start=0, size=48, with_assets=False).make(0).pixels
    whiten(model, pixels)
    embeddings = model.vision_tower.embeddings
    out = embeddings(prepare(pixels)) - embeddings.position_embedding.weight
    seen, place = out.flatten(0, 1).std(0).split((64 - 4 * waves_of(TINY), 4 * waves_of(TINY)))
    assert seen.max() < 1.3 * SCALE and seen.min() > 0.5 * SCALE and place.max() == 0


def test_heads_of_the_first_blocks_begin_by_looking_at_their_neighbour() -> None:
    """A patch in the middle attends mostly to the patch at the head's offset."""
    torch.manual_seed(0)
    shape = Shape()
    model = Nano(shape)
    pixels = CrowdStream(seed="w", start=0, size=24, with_assets=False).make(0).pixels
    whiten(model, pixels)
    tower, middle = model.vision_tower, 5 * shape.grid + 6
    x = tower.embeddings(prepare(pixels))
    for layer, offsets in zip(tower.encoder.layers, OFFSETS, strict=False):
        attention, rows = layer.self_attn, layer.layer_norm1(x)
        q, k = (f(rows).unflatten(-1, (shape.tower_heads, -1)) for f in (attention.q_proj, attention.k_proj))
        weights = torch.einsum("bhd,bkhd->bhk", q[:, middle], k / 8).softmax(-1).mean(0)
        places = [divmod(int(place), shape.grid) for place in weights.argmax(-1)]
        assert places == [(5 + y, 6 + x) for y, x in offsets] and weights.amax(-1).min() > 0.2
        x = layer(x)


def test_crowds_keep_to_the_sizes_of_training_and_hold_many_labels() -> None:
    """Two fifths of the patches say something, and sizes that tests use are not drawn."""
    assert not set(LARGE) & set(SIZES["test"])
    rng, style = random.Random(3), Style("train", None)
    assert np.mean([(draw_crowd(rng, style).marks.what > 0).mean() for _ in range(40)]) > 0.4


def test_rate_falls_with_the_time_that_is_left() -> None:
    """A run that has so many minutes ends as one that has so many steps."""
    stage = Stage("x", steps=1000, size=1, rate=1.0, talks=False, sees=True)
    assert rate_at(stage, 500, 2.0) == 1.0
    assert rate_at(stage, 500, 0.25) == pytest.approx(0.25)


def test_kept_pictures_are_asked_about_in_every_set() -> None:
    """Each set of conversations about a batch comes once, with that batch's rows, and others in between."""
    batches = [replace(EasyStream(seed="p", start=0, size=2, with_assets=False).make(n)) for n in range(40)]
    for number, batch in enumerate(batches):
        batch.talks = [replace(batch.talks[0], ids=torch.tensor([number, part])) for part in range(3)]
    steps = mixed(iter(batches), lambda batch: batch.pixels, True)
    seen = [next(steps) for _ in range(60)]
    assert all(torch.equal(pixels, batches[int(talks.ids[0])].pixels) for pixels, talks, _ in seen)
    assert len({tuple(talks.ids.tolist()) for _, talks, _ in seen}) == 60
    assert any(a[1].ids[0] != b[1].ids[0] for a, b in itertools.pairwise(seen))
    assert 60 / 3 <= sum(new for *_, new in seen) < 60


def test_costly_pictures_are_shown_again_between_others() -> None:
    """Each batch comes twice, seldom at once, and those that are drawn are counted."""
    numbers = repeated(iter(range(1000)), 2)  # type: ignore[arg-type]
    seen = [next(numbers) for _ in range(400)]
    assert max(number for number, _ in seen) < sum(drawn for _, drawn in seen) < 230
    finished = [number for number in range(100) if sum(number == other for other, _ in seen) == 2]
    assert len(finished) > 90 and sum(a == b for (a, _), (b, _) in itertools.pairwise(seen)) < 40
    assert [drawn for _, drawn in itertools.islice(repeated(iter(range(9)), 1), 9)] == [True] * 9  # type: ignore[arg-type]
