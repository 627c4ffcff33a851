"""Records held-out questions with torch's answers, for the test that asks the bundled model: `python -m training.record`.

The pictures lie beside the answers as PNG. Answers are those that the model gives, right or wrong.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

from training.compare import ask_torch
from training.evaluate import load_model
from training.testset import Item, build

FOLDER = Path(__file__).parents[1] / "tests" / "nano"
CATEGORIES = ("colour", "shape", "place", "relation", "exists", "false premise", "count to 5", "more", "which",
              "tallest colour", "number", "drawing")


def choose() -> list[Item]:
    """One question of each category."""
    items = build(0.05)
    return [next(item for item in items if item.category == name) for name in CATEGORIES]


def record(run: str, folder: Path = FOLDER) -> None:
    """Write the pictures and `answers.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    items = choose()
    lines = []
    for item, said in zip(items, ask_torch(load_model(run), items, lines=True), strict=True):
        names = [f"{item.category.replace(' ', '-')}-{number}.png" for number in range(1, len(item.pictures) + 1)]
        for name, pixels in zip(names, item.pictures, strict=True):
            Image.fromarray(pixels).save(folder / name)
        lines.append({"pictures": names, "question": item.question, "torch": said, "right": item.answer})
    (folder / "answers.json").write_text("[\n" + ",\n".join(f"  {json.dumps(line)}" for line in lines) + "\n]\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="a run below training/runs; else the committed checkpoint")
    record(parser.parse_args().run)
