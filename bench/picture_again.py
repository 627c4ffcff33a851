"""How much sooner the first token comes where a picture was asked about before: after its pages, embeddings, a restart.

    python bench/picture_again.py MODEL [--mmproj FILE] [--rounds 5] [--size 512]

Each side is timed from the picture's bytes to the first token of the answer, on one conversation of one picture and a
short question, with a model that has encoded another picture before. "new" is a picture that nobody saw, "pages" the
same question again, "embedding" another question before the same picture, so that its rows are computed again, "disk"
the first question in a new process that has its weights and kernels, but of this picture only what the disk cache kept.
Printed are medians, and how many times sooner than "new" they are, beside what is wanted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure
from pictures import photograph
from PIL import Image

import opsin

WANTED = {"pages": 20.0, "embedding": 6.0, "disk": 5.0}


def jpeg(number: int, size: int, folder: Path) -> bytes:
    """Another picture for each number."""
    path = folder / f"{number}-{size}.jpg"
    if not path.exists():
        with Image.open(Path(folder / "whole.jpg")) as image:
            image.crop((number * 7, number * 5, number * 7 + size, number * 5 + size)).save(path, quality=90)
    return path.read_bytes()


def seconds(model: opsin.Model, picture: bytes, question: str, before: str = "") -> float:
    """To the first token."""
    content: list[object] = [*([before] if before else []), picture, question]
    start = time.perf_counter()
    next(iter(model.chat([{"role": "user", "content": content}], max_tokens=1, temperature=0, stop=[])), "")
    return time.perf_counter() - start


def load(options: argparse.Namespace, kept: Path) -> opsin.Model:
    """A model that keeps embeddings, and has read all its weights."""
    cache = opsin.MediaFolder(kept)
    return opsin.load(options.model, mmproj=options.mmproj, context=2048, threads=2, media_cache=cache, guesses=0)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds of each round."""
    times: dict[str, list[float]] = {name: [] for name in ("new", *WANTED)}
    with load(options, folder / "kept") as model:
        seconds(model, jpeg(0, options.size, folder), "What is this?")
        for number in range(1, options.rounds + 1):
            picture = jpeg(number, options.size, folder)
            times["new"].append(seconds(model, picture, "What is this?"))
            times["pages"].append(seconds(model, picture, "What is this?"))
            times["embedding"].append(seconds(model, picture, "What is this?", before=f"{number}."))
    command = [sys.executable, __file__, *sys.argv[1:], "--again", str(folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times["disk"] = [float(word) for word in told.split()]
    return times


def again(options: argparse.Namespace) -> None:
    """In a new process: the pictures that the disk has; one that it has not comes first, and loads the encoder."""
    with load(options, options.again / "kept") as model:
        seconds(model, jpeg(99, options.size, options.again), "What is this?")
        for number in range(1, options.rounds + 1):
            print(seconds(model, jpeg(number, options.size, options.again), "What is this?"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--mmproj", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.again is not None:
        again(options)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "whole.jpg").write_bytes(photograph(6))
        times = {name: statistics.median(found) for name, found in measure(options, folder).items()}
    print(f"new: {times['new'] * 1e3:.1f} ms to the first token")
    for name, wanted in WANTED.items():
        note = f"{times[name] * 1e3:.1f} ms"
        print(Figure(name, times["new"] / times[name], wanted, "times sooner", note, most=False).line())


if __name__ == "__main__":
    main()
