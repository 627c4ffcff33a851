"""A hundred pictures that other programs draw, and what is asked about them.

matplotlib, gnuplot, Graphviz, ImageMagick and librsvg draw charts, pages, signs, diagrams and scenes with their own
fonts, sizes and edges. `python -m training.foreign` draws them into `training/runs/foreign` and writes the questions
to `foreign.json`. They are stretched to the model's square as transformers does.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.paint import SIDE

FOLDER = Path(__file__).parent / "runs" / "foreign"
QUESTIONS = Path(__file__).parent / "foreign.json"
CONVERT = "/usr/bin/convert"


@dataclass(frozen=True)
class Foreign:
    """One picture and its question."""

    name: str
    program: str
    question: str
    answer: str


def quiet(command: list[str], feed: str | None = None) -> None:
    """Run a program that draws."""
    subprocess.run(command, input=None if feed is None else feed.encode(), check=True, capture_output=True)


def draw_matplotlib(rng: random.Random, target: Path) -> tuple[str, str]:
    """A bar chart with names below the bars and a scale beside them, or a scatter of markers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 4), dpi=80)
    if rng.random() < 0.75:
        count = rng.randint(3, 5)
        labels, heights = rng.sample("ABCDEFGHKMNPRSTX", count), rng.sample(range(2, 14), count)
        colours = rng.sample(["red", "green", "blue", "orange", "purple", "black", "yellow"], count)
        axes.bar(labels, heights, color=colours)
        axes.tick_params(labelsize=20)
        best = heights.index(max(heights))
        if rng.random() < 0.5:
            answer = ("What colour is the tallest bar?", f"{colours[best].capitalize()}.")
        else:
            answer = ("Which bar is the tallest?", f'"{labels[best].lower()}"')
    else:
        count = rng.randint(2, 6)
        colour = rng.choice(["red", "green", "blue", "black"])
        axes.axis("off")
        axes.scatter(rng.sample(range(10), count), rng.sample(range(10), count), s=700, color=colour)
        words = ("Zero", "One", "Two", "Three", "Four", "Five", "Six")
        answer = (f"How many {colour} circles are there?", f"{words[count]}.")
    figure.savefig(target)
    pyplot.close(figure)
    return answer


def draw_gnuplot(rng: random.Random, target: Path) -> tuple[str, str]:
    """A histogram with one colour a bar."""
    count = rng.randint(2, 5)
    labels, heights = rng.sample("ABCDEFGHJKLM", count), rng.sample(range(3, 15), count)
    colours = rng.sample(["red", "green", "blue", "orange", "purple", "black"], count)
    rows = "\n".join(f"{label} {height}" for label, height in zip(labels, heights, strict=True))
    plots = ", ".join(f"$d every ::{i}::{i} using ({i}):2 with boxes lc rgb '{c}'" for i, c in enumerate(colours))
    ticks = ", ".join(f"'{label}' {i}" for i, label in enumerate(labels))
    quiet(["gnuplot"], f"set terminal pngcairo size 360,360 font ',22'\nset output '{target}'\nunset key\n"
                       f"set boxwidth 0.7\nset style fill solid\nset yrange [0:16]\nset xrange [-0.6:{count - 0.4}]\n"
                       f"set xtics ({ticks})\n$d << END\n{rows}\nEND\nplot {plots}\n")
    best = heights.index(max(heights))
    if rng.random() < 0.5:
        return "What colour is the tallest bar?", f"{colours[best].capitalize()}."
    return "Which bar is the tallest?", f'"{labels[best].lower()}"'


def draw_graphviz(rng: random.Random, target: Path) -> tuple[str, str]:
    """One or two filled shapes of a diagram."""
    shapes = {"circle": "circle", "square": "square", "diamond": "diamond", "triangle": "triangle", "star": "star"}
    (first, second), (one, two) = rng.sample(list(shapes), 2), rng.sample(["red", "green", "blue", "purple", "pink"], 2)
    nodes = "; ".join(f'n{i} [shape={shapes[s]}, style=filled, fillcolor={c}, label="", width=1.1, height=1.1]'
                      for i, (s, c) in enumerate(((first, one), (second, two))))
    across = rng.random() < 0.5
    graph = f"graph {{ rankdir={'LR' if across else 'TB'}; size=\"4,4!\"; ratio=fill; dpi=72; {nodes}; n0 -- n1 }}"
    quiet(["dot", "-Tpng", "-o", str(target)], graph)
    choice = rng.randrange(3)
    if choice == 0:
        return f"What colour is the {first}?", f"{one.capitalize()}."
    if choice == 1:
        return f"What shape is the {two} thing?", f"A {second}."
    if across:
        asked = rng.random() < 0.5
        return f"Is the {first} {'left' if asked else 'right'} of the {second}?", "Yes." if asked else "No."
    asked = rng.random() < 0.5
    return f"Is the {first} {'above' if asked else 'below'} the {second}?", "Yes." if asked else "No."


def draw_imagemagick(rng: random.Random, target: Path) -> tuple[str, str]:
    """A sign with a word or number, or a window with two buttons."""
    fonts = ("DejaVu-Sans", "DejaVu-Serif-Bold", "Liberation-Mono")
    words = ("exit", "stop", "open", "menu", "sale", "help", "shop", "taxi", "bank", "cafe", "hotel", "pizza")
    ground, ink = rng.choice((("white", "black"), ("#b00010", "white"), ("#004a9f", "white"), ("yellow", "black")))
    text = rng.choice(words) if rng.random() < 0.6 else str(rng.randint(1, 99))
    shown = text.upper() if rng.random() < 0.6 else text
    quiet([CONVERT, "-size", "300x300", f"xc:{ground}", "-font", rng.choice(fonts), "-fill", ink, "-pointsize",
           str(rng.randint(56, 74)), "-gravity", rng.choice(("Center", "North", "South")), "-annotate", "+0+30", shown,
           str(target)])
    if text.isdigit():
        return "What number is this?", f"{text}."
    return "What does it say?", f'"{text}"'


SVG_SHAPES = {
    "circle": '<circle cx="{x}" cy="{y}" r="34" fill="{c}"/>',
    "square": '<rect x="{a}" y="{b}" width="60" height="60" fill="{c}"/>',
    "ring": '<circle cx="{x}" cy="{y}" r="26" fill="none" stroke-width="14" stroke="{c}"/>',
    "cross": '<path d="M{x} {b}v60M{a} {y}h60" stroke-width="20" stroke="{c}"/>',
    "diamond": '<path d="M{x} {b}l26 30l-26 30l-26 -30z" fill="{c}"/>',
    "triangle": '<path d="M{x} {b}l34 60h-68z" fill="{c}"/>',
}


def draw_svg(rng: random.Random, target: Path) -> tuple[str, str]:
    """Two to four shapes with thin edges on a page with a frame and a title bar."""
    count = rng.randint(2, 4)
    shapes = rng.sample(list(SVG_SHAPES), count)
    colours = rng.sample(["red", "green", "blue", "orange", "purple", "black"], count)
    cells = rng.sample([(80, 90), (80, 310), (320, 90), (320, 310), (200, 200)], count)
    body = "".join(SVG_SHAPES[s].format(x=x, y=y, a=x - 30, b=y - 30, c=c)
                   for s, c, (x, y) in zip(shapes, colours, cells, strict=True))
    page = f'<rect width="400" height="400" fill="{rng.choice(("white", "#f4f4f8", "#fffbe8"))}"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 400">{page}{body}</svg>'
    quiet(["rsvg-convert", "-w", "400", "-h", "400", "-o", str(target)], svg)
    places = {(80, 90): "Top left.", (80, 310): "Bottom left.", (320, 90): "Top right.", (320, 310): "Bottom right.",
              (200, 200): "Centre."}
    choice = rng.randrange(5)
    if choice == 0:
        return f"Where is the {shapes[0]}?", places[cells[0]]
    if choice == 1:
        return "How many things are there?", f"{('Two', 'Three', 'Four')[count - 2]}."
    if choice == 2:
        return f"What colour is the {shapes[1]}?", f"{colours[1].capitalize()}."
    if choice == 3:
        lacking = rng.choice([s for s in SVG_SHAPES if s not in shapes] or ["heart"])
        return f"Is there a {lacking}?", "No."
    return f"Is there a {colours[0]} {shapes[0]}?".replace("a orange", "an orange"), "Yes."


DRAWERS: dict[str, Callable[[random.Random, Path], tuple[str, str]]] = {
    "matplotlib": draw_matplotlib, "gnuplot": draw_gnuplot, "graphviz": draw_graphviz,
    "imagemagick": draw_imagemagick, "librsvg": draw_svg,
}


def draw_all() -> list[Foreign]:
    """Draw the hundred pictures, twenty a program."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = []
    for program, draw in DRAWERS.items():
        rng = random.Random(f"foreign-{program}")
        for number in range(20):
            name = f"{program}-{number:02}.png"
            found.append(Foreign(name, program, *draw(rng, FOLDER / name)))
    return found


def load() -> Iterator[tuple[Foreign, np.ndarray]]:
    """The committed questions with their pictures, stretched to the model's square."""
    for entry in json.loads(QUESTIONS.read_text()):
        path = FOLDER / entry["name"]
        if not path.exists():
            raise FileNotFoundError(f"no {path}: run `python -m training.foreign` first")
        picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        yield Foreign(**entry), np.asarray(picture, np.uint8)


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(asdict(item)) for item in draw_all())
    QUESTIONS.write_text(f"[\n{lines}\n]\n")
