"""The whole recipe by one command: `python -m training.retrain`.

Fetches fonts and drawings, checks that the held-out questions are the committed ones, trains all stages (going on from
an unfinished run), measures, exports and compares with llama.cpp. `--quick` runs the same steps in about two minutes
with a smaller model, one thing a picture and no fonts; the test runs a quarter of these, with smaller batches.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training import questions as q
from training.answer import Query, answer
from training.conversations import ROWS, picture_of
from training.lists import COLOUR_NAMES, SHAPES
from training.model import Nano, Shape
from training.pictures import Picture
from training.scenes import Style, choose_background, paint_things
from training.stream import Batch, PictureStream, stack_pictures, stack_talks
from training.text import render
from training.train import RUNS, Options, Stage, train

SMALL = Shape(width=128, heads=2, groups=1, inner=256, layers=2, tower_width=128, tower_layers=2, tower_heads=2,
              tower_inner=256)


class EasyStream(PictureStream):
    """One thing a picture, and questions about its colour and shape."""

    def talk(self, rng: random.Random) -> tuple[Picture, list[q.Turn]]:
        """A picture and its questions."""
        background = choose_background(rng)
        kind = (rng.choice(SHAPES), rng.choice([c for c in COLOUR_NAMES if c != background]))
        picture = picture_of(rng, paint_things(rng, Style("train", None), background, [kind]))
        turns = [turn for asker in (q.ask_colour, q.ask_shape, q.ask_colour, q.ask_shape)
                 if (turn := asker(picture.scene, rng)) is not None and not turn.absent]
        rng.shuffle(turns)
        return picture, turns

    def make(self, number: int) -> Batch:
        """Batch `number`."""
        rng = random.Random(f"{self.seed}-{number}")
        talks = [self.talk(rng) for _ in range(self.size)]
        rendered = [render([(t.question, t.answer) for t in turns], 1, ROWS, lines=False) for _, turns in talks]
        return Batch(*stack_pictures([picture for picture, _ in talks]),
                     [stack_talks(rendered, [[picture.scene] for picture, _ in talks], [turns for _, turns in talks])])


QUICK = (
    Stage("tower", steps=120, size=32, rate=1.5e-3, talks=False, sees=True, stream=EasyStream),
    Stage("decoder", steps=60, size=32, rate=1.5e-3, talks=True, sees=False, stream=EasyStream),
    Stage("both", steps=96, size=32, rate=1.5e-3, talks=True, sees=True, settle=0.5, stream=EasyStream),
)
BRIEF = tuple(replace(stage, steps=stage.steps // 4, size=8) for stage in QUICK)  # too little to learn colours


@dataclass(frozen=True)
class Quick:
    """What the short run showed."""

    first_loss: float
    last_loss: float
    colour: float
    chance: float


def quick(folder: Path, threads: int = 1, *, stages: tuple[Stage, ...] = QUICK, asked: int = 220) -> Quick:
    """The short run, two minutes of one core: train, then ask about colours in shades that were not trained."""
    options = Options(folder, threads, workers=1, with_assets=False, seed="quick", shape=SMALL)
    learner = train(stages, options, resume=False)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    said = [line["answer"] for line in lines if "answer" in line]
    return Quick(said[0], said[-1], ask_colours(learner.model.eval(), asked), 1 / len(COLOUR_NAMES))


def ask_colours(model: Nano, count: int) -> float:
    """The share of right answers to questions about the colour of the only thing."""
    rng, queries, wanted = random.Random("quick test"), [], []
    while len(queries) < count:
        background, colour = choose_background(rng), COLOUR_NAMES[len(queries) % len(COLOUR_NAMES)]
        if colour == background:
            continue
        scene, canvas = paint_things(rng, Style("test", None), background, [(rng.choice(SHAPES), colour)])
        queries.append(Query([canvas.pixels()], f"What colour is the {scene.things[0].name}?", []))
        wanted.append(f"{colour.capitalize()}.")
    return float(np.mean([a == b for a, b in zip(answer(model, queries, limit=4), wanted, strict=True)]))


def retrain(threads: int, workers: int) -> None:
    """The full recipe."""
    from training import assets, compare, evaluate, export, foreign, testset
    from training.train import RECIPE

    assets.install()
    items = testset.build()
    known = json.loads(testset.FILE.read_text())
    if testset.describe(items) != known:
        raise ValueError("the held-out questions differ from testset.json: another Pillow, font or word list?")
    if not foreign.FOLDER.exists():
        foreign.draw_all()
    options = Options(RUNS / "nano", threads, workers)
    resume = (options.folder / "checkpoint.pt").exists()
    train(RECIPE, options, resume=resume)
    model = evaluate.load_model("nano")
    evaluate.RESULTS.write_text(json.dumps(evaluate.evaluate(model, 1.0, foreign=True), indent=1) + "\n")
    compare.REPORT.write_text(json.dumps(compare.compare(model, 200, threads, export.FOLDER), indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the two-minute version")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.quick:
        print(quick(RUNS / "quick"))
    else:
        retrain(chosen.threads, chosen.workers)


if __name__ == "__main__":
    main()
