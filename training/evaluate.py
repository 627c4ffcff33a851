"""Measures the model on the held-out questions and the foreign pictures: `python -m training.evaluate`.

Writes `training/results.json` and prints a table. `--share 0.1` asks a tenth of the questions.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import torch

from training.answer import Query, answer
from training.checkpoint import load_full
from training.foreign import load as load_foreign
from training.model import Nano, Shape
from training.testset import Item, blanks, build
from training.weights import read_weights

RESULTS = Path(__file__).parent / "results.json"
RUNS = Path(__file__).parent / "runs"


def load_model(run: str) -> Nano:
    """The averaged weights of a run, or those in the package when `run` is empty."""
    parts = load_full(RUNS / run / "checkpoint.pt") if run else {"average": read_weights(), "shape": {}}
    model = Nano(Shape(**parts["shape"]))  # type: ignore[arg-type]
    model.load_state_dict(parts["average"])  # type: ignore[arg-type]
    return model.eval()


def ask_items(model: Nano, items: list[Item], *, lines: bool = False) -> list[str]:
    """Answers to items; earlier questions are asked first and answered by the model itself."""
    talks: list[list[tuple[str, str]]] = [[] for _ in items]
    for step in range(max(len(item.before) for item in items)):
        open_ = [i for i, item in enumerate(items) if len(item.before) > step]
        said = answer(model, [Query(items[i].pictures, items[i].before[step], list(talks[i]), lines)
                             for i in open_])
        for index, words in zip(open_, said, strict=True):
            talks[index].append((items[index].before[step], words))
    return answer(model, [Query(item.pictures, item.question, talks[i], lines) for i, item in enumerate(items)])


def distance(a: str, b: str) -> int:
    """Edits that turn one string into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def spread(right: list[bool], rounds: int = 1000) -> float:
    """Half the width of the 95 % interval of a share, by drawing again."""
    rng = random.Random(0)
    shares = sorted(sum(rng.choices(right, k=len(right))) / len(right) for _ in range(rounds))
    return (shares[int(rounds * 0.975)] - shares[int(rounds * 0.025)]) / 2


def measure(items: list[Item], said: list[str]) -> dict[str, dict[str, float]]:
    """Shares of right answers a category, and what the categories ask beyond that."""
    right: dict[str, list[bool]] = defaultdict(list)
    pairs: dict[tuple[str, int], list[bool]] = defaultdict(list)
    denied, characters, edits = [], 0, 0
    for item, words in zip(items, said, strict=True):
        good = words == item.answer
        right[item.category].append(good)
        if item.category == "pair":
            pairs[item.category, item.pair].append(good)
        if item.category in ("colour", "shape", "place"):
            denied.append(words.startswith("There is no"))
        if item.category == "exists" and item.answer == "Yes.":
            denied.append(words == "No.")
        if item.category == "word 5 to 8":
            characters += len(item.answer) - 2
            edits += distance(words.strip('"'), item.answer.strip('"'))
    table = {name: {"right": sum(found) / len(found), "spread": spread(found), "questions": len(found)}
             for name, found in right.items()}
    if pairs:
        both = [all(found) for found in pairs.values()]
        table["pairs answered apart"] = {"right": sum(both) / len(both), "spread": spread(both), "questions": len(both)}
    if denied:
        table["falsely denied"] = {"right": sum(denied) / len(denied), "spread": spread(denied),
                                   "questions": len(denied)}
    if characters:
        table["character error, words 5 to 8"] = {"right": edits / characters, "spread": 0.0, "questions": characters}
    return table


def evaluate(model: Nano, share: float, *, foreign: bool) -> dict[str, dict[str, float]]:
    """The whole table."""
    items = build(share)
    table = measure(items, ask_items(model, items))
    empty = blanks(items)
    table |= measure(empty, ask_items(model, empty))
    if foreign:
        asked = [(item, picture) for item, picture in load_foreign()]
        said = answer(model, [Query([picture], item.question, []) for item, picture in asked])
        strange = [Item(f"foreign: {item.program}", [], item.question, item.answer) for item, _ in asked]
        table |= measure(strange, said)
        table |= measure([Item("foreign", [], i.question, i.answer) for i in strange], said)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="a run below training/runs; else the weights in the package")
    parser.add_argument("--share", type=float, default=1.0, help="share of the questions to ask")
    parser.add_argument("--no-foreign", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    table = evaluate(load_model(chosen.run), chosen.share, foreign=not chosen.no_foreign)
    chosen.out.write_text(json.dumps(table, indent=1) + "\n")
    for name, row in table.items():
        print(f"| {name} | {100 * row['right']:.1f} % ± {100 * row['spread']:.1f} | {row['questions']} |")


if __name__ == "__main__":
    main()
