"""Records torch's answers for the test that asks the bundled model: `python -m training.record`.

The questions are those of `examples/` and one of each held-out category, whose pictures lie beside the
answers as PNG. Answers are those that the model gives, right or wrong.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from training.compare import ask_torch
from training.evaluate import load_model
from training.paint import SIDE
from training.testset import Item, build

ROOT = Path(__file__).parents[1]
FOLDER, EXAMPLES = ROOT / "tests" / "nano", ROOT / "examples"
CATEGORIES = ("colour", "shape", "place", "relation", "exists", "false premise", "count to 5", "more", "which",
              "tallest colour", "tallest letter", "number", "word to 4", "word 5 to 8", "drawing")


def choose() -> list[Item]:
    """One question of each category."""
    items = build(0.05)
    return [next(item for item in items if item.category == name) for name in CATEGORIES]


def examples() -> list[tuple[str, Item]]:
    """The questions of `examples/`, with the picture's path."""
    found = []
    for line in json.loads((EXAMPLES / "questions.json").read_text()):
        picture = Image.open(EXAMPLES / line["picture"]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        item = Item("example", [np.asarray(picture)], line["question"], line["answer"])
        found.append((f"examples/{line['picture']}", item))
    return found


def record(run: str) -> None:
    """Write the pictures and `answers.json`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    asked: list[tuple[list[str], Item]] = [([path], item) for path, item in examples()]
    for item in choose():
        names = [f"tests/nano/{item.category.replace(' ', '-')}-{n}.png" for n in range(1, len(item.pictures) + 1)]
        for name, pixels in zip(names, item.pictures, strict=True):
            Image.fromarray(pixels).save(ROOT / name)
        asked.append((names, item))
    said = ask_torch(load_model(run), [item for _, item in asked], lines=True)
    lines = [json.dumps({"pictures": names, "question": item.question, "torch": words, "right": item.answer})
             for (names, item), words in zip(asked, said, strict=True)]
    (FOLDER / "answers.json").write_text("[\n  " + ",\n  ".join(lines) + "\n]\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="a run below training/runs; else the weights in the package")
    record(parser.parse_args().run)
