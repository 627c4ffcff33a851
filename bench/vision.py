"""The published table of pictures: opsin beside llama.cpp on the same random files of SmolVLM-256M's shapes.

    python bench/vision.py [--peer [NAME=]FOLDER ...] [--only NAME ...] [--pairs 5] [--results FILE] [--write NAME]

Each program is a process that keeps its model and sleeps until it is asked; they are asked by turns, after a warm-up
that does not count. A ratio is that of medians, against the fastest peer, with an f16 or with a Q8_0 tower. Encoding is
timed from prepared pixels to embeddings. Of a whole request opsin's time counts everything from pixels to the last
token; a peer's begins with ids and prepared pixels.

--results keeps the measurements: cases that were not run this time are taken from it; with --add, their rounds too.
--write puts all of it into bench/machines/NAME.md, and the tables of all machines into README.md (`tables.py`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import limits
import numpy as np
import pictures
import tables
from ours import CACHE
from peer import Peer, PeerError, add_peers
from random_smolvlm import Tower, write_text, write_tower
from text import say
from vision_tasks import Floats, Worker

HERE = Path(__file__).parent
MARK = "bench:vision"
THREADS, TOKENS, TILES = 2, 64, 5
OURS = {"f16": "opsin f16", "q8_0": "opsin q8_0"}
WANTED = {"f16": 1.3, "q8_0": 1.5}
SHARE, AGAIN, COSINE, JPEG = 0.85, 20, 0.999, 1.15  # wanted
NOISE = 0.1  # of the processors
Sides = dict[str, list[float]]


@dataclass
class Bench:
    """Files, the other programs, and processes, which start when they are first asked."""

    files: Path
    peers: Sequence[Peer]
    flash: bool
    pairs: int

    def __post_init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def ours(self, form: str, text: str | None = None, *, outliers: bool = False) -> Worker:
        """opsin with a tower in one format and a text part in another."""
        paths = self._paths(text or form, form, outliers)
        return self._worker(f"opsin {form}", ["vision_ours.py", *paths])

    def theirs(self, peer: Peer, form: str, text: str, *, outliers: bool = False) -> Worker:
        """A peer likewise."""
        library = str(peer.library("llama") or peer.folder / "libllama.so")
        options = [] if self.flash else ["--no-flash"]
        return self._worker(
            f"{peer.name} {form}", ["vision_peer.py", library, *self._paths(text, form, outliers), *options]
        )

    def _paths(self, text: str, form: str, outliers: bool) -> list[str]:
        return [str(write_text(self.files, text)), str(write_tower(self.files, form, outliers=outliers))]

    def _worker(self, name: str, command: list[str]) -> Worker:
        key = " ".join(command)
        if key not in self._workers:
            whole = [sys.executable, str(HERE / command[0]), *command[1:], "--threads", str(THREADS)]
            self._workers[key] = Worker(name, whole)
        return self._workers[key]

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def by_turns(self, tasks: dict[str, Callable[[int], dict[str, Any]]]) -> Sides:
        """Seconds of each side; every second round goes backwards, so that a drift of the machine meets all alike.

        A round beside others who used more than NOISE of the processors does not count; there are so many at most.
        """
        kept: Sides = {name: [] for name in tasks}
        for i in range(-1, self.pairs):
            answers = {name: task(i + 1) for name, task in list(tasks.items())[:: 1 if i % 2 else -1]}
            others = max(answer.get("others", 0.0) for answer in answers.values())
            counts = i >= 0 and _is_quiet(answers.values())
            seconds = ", ".join(f"{name} {answers[name]['seconds']:.3f} s" for name in tasks)
            say(f"{seconds}; others used {others:.0%}{'' if counts else ', does not count'}")
            for name in tasks if counts else ():
                kept[name].append(answers[name]["seconds"])
        return kept


# --- what is measured ----------------------------------------------------------------------------------------------


def encode(bench: Bench, count: int) -> Sides:
    """Tiles to embeddings."""
    workers = [bench.ours(form) for form in OURS]
    workers += [bench.theirs(peer, form, "q8_0") for peer in bench.peers for form in OURS]
    numbers = list(range(count))
    return bench.by_turns({w.name: partial(_ask_tiles, w, numbers) for w in workers})


def _ask_tiles(worker: Worker, numbers: list[int], i: int) -> dict[str, Any]:
    """Seconds of a tile of each picture: of one picture libmtmd makes two."""
    some = numbers if i else numbers[:1]  # one is enough to be warm
    answer = worker.ask("encode", pictures=some)
    answer["seconds"] *= len(some) * Tower().rows / answer["rows"]
    return answer


def request(bench: Bench, form: str) -> Sides:
    """Whole requests about a new picture each; text and opsin's tower in one format."""
    mine = bench.ours(form)
    prompt = mine.ask("prompt", picture=0)["prompt"]
    theirs = [bench.theirs(peer, tower, form) for peer in bench.peers for tower in OURS]
    tokens = sum(map(len, prompt)) + Tower().rows
    kept = bench.by_turns({w.name: partial(_ask_answer, w, prompt) for w in (mine, *theirs)})
    return kept | {"tokens": [tokens] * bench.pairs}


def _ask_answer(worker: Worker, prompt: list[list[int]], number: int) -> dict[str, Any]:
    return worker.ask("request", picture=100 + number, prompt=prompt, tokens=TOKENS)


def products(bench: Bench) -> dict[str, Any]:
    """Where the time of a tile goes by operation, and the machine's peak, by turns."""
    kept: dict[str, Any] = {form: [] for form in OURS} | {"peak": []}
    for i in range(-1, bench.pairs):
        spent = {form: bench.ours(form).ask("profile", pictures=[0]) for form in OURS}
        if i >= 0 and _is_quiet(spent.values()):
            for form in OURS:
                kept[form].append(spent[form])
        kept["peak"].append(limits.float_peak(THREADS))
    return kept


def _is_quiet(answers: Iterable[dict[str, Any]]) -> bool:
    return all(answer.get("others", 0.0) <= NOISE for answer in answers)


def again(bench: Bench) -> dict[str, Sides]:
    """Seconds to the first token: of a new picture, and of the next question about it."""
    kept: dict[str, Sides] = {}
    for form in OURS:
        answers = [bench.ours(form).ask("again") for _ in range(bench.pairs + 1)][1:]
        answers = [answer for answer in answers if _is_quiet([answer])]
        kept[form] = {key: [answer[key] for answer in answers] for key in ("first", "second", "cached", "prompt")}
    return kept


def cosine(bench: Bench) -> dict[str, float]:
    """The least cosine of a row from 8-bit weights and from the same in f32, in a tower with outliers."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "rows.npy")

        def rows(worker: Worker) -> Floats:
            worker.ask("encode", pictures=[0], file=str(file), width=Tower().makes)
            values: Floats = np.load(file)
            return values

        least: dict[str, float] = {}
        makes = {"opsin": bench.ours} | {peer.name: partial(bench.theirs, peer) for peer in bench.peers}
        for name, make in makes.items():
            a, b = (rows(make(form, "q8_0", outliers=True)).astype(np.float64) for form in ("q8_0", "f32"))
            least[name] = float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
        return least


def jpeg(_: Bench) -> dict[str, float]:
    """Preparation of a 12-megapixel JPEG in terms of Pillow's decoding and resizing: the worst of the filters."""
    data = pictures.photograph(12)
    return {filter: pictures.measure(data, filter, 9)[2] for filter in pictures.FILTERS}


CASES: dict[str, Callable[[Bench], Any]] = {
    "tile": lambda bench: encode(bench, 1),
    "five": lambda bench: encode(bench, TILES),
    "request-f16": lambda bench: request(bench, "f16"),
    "request-q8_0": lambda bench: request(bench, "q8_0"),
    "products": products,
    "again": again,
    "cosine": cosine,
    "jpeg": jpeg,
}


# --- the table -----------------------------------------------------------------------------------------------------


def page(results: dict[str, Any], peers: Sequence[Peer]) -> str:
    """Everything between the markers."""
    sides = [f"{peer.name} {form}" for peer in peers for form in OURS]
    heads = [f"{peer.name}, {title} mmproj, s" for peer in peers for title in ("f16", "Q8_0")]
    shapes, rounds = Tower(), min(map(_rounds, results.values()), default=0)
    return "\n".join(
        [
            f"Random weights of SmolVLM-256M's shapes; tiles of {shapes.side} x {shapes.side} pixels are "
            f"{shapes.patches} patches and become {shapes.rows} tokens. {THREADS} threads each, by turns in one run, "
            f"medians of at least {rounds}; `python bench/vision.py --write` wrote this.",
            "",
            f"| work | opsin, s | {' | '.join(heads)} | faster by | wanted |",
            f"|---|---:|{'---:|' * len(heads)}---:|---:|",
            *_rows(results, sides),
            "",
            "| besides | | wanted |",
            "|---|---:|---:|",
            *_figures(results),
            *(f"| {peer.name} | {peer.describe().replace('|', ',')} | |" for peer in peers),
        ]
    )


def _rows(results: dict[str, Any], peers: Sequence[str]) -> list[str]:
    titles = {
        "tile": "a tile encoded", "five": "a picture of 4 tiles and the whole encoded",
        "request": "a request: a tile",
    }  # fmt: skip
    rows = []
    for work, title in titles.items():
        for form, side in OURS.items():
            sides: Sides = results.get(work) or results.get(f"{work}-{form}") or {}
            if not sides:
                continue
            times = {name: statistics.median(sides[name]) for name in (side, *peers) if name in sides}
            ratio, wanted = min(times[name] for name in peers if name in times) / times[side], WANTED[form]
            if tokens := sides.get("tokens"):
                title = f"{titles[work]}, {tokens[0]:.0f} tokens in, {TOKENS} out"
            shown = [f"{times[name]:.3f}" if name in times else "-" for name in (side, *peers)]
            cells = [f"{title}, {form}", *shown, f"**{ratio:.2f}**"]
            rows.append(f"| {' | '.join(cells)} | {_verdict(f'{wanted:.2f}', ratio >= wanted)} |")
    return rows


def _figures(results: dict[str, Any]) -> list[str]:
    rows = []
    if kept := results.get("products"):
        peak = max(kept["peak"])
        for form in OURS:
            seconds = [sum(s for name, s in run.items() if name.startswith("linear")) for run in kept[form]]
            rate = Tower().products / statistics.median(seconds) / 1e9
            share = rate / peak
            verdict = _verdict(f"{SHARE:.0%}", share >= SHARE)
            what = f"matrix products of a tile, {form}, of the float32 multiply-add peak of {peak:.0f} GFLOP/s"
            rows.append(f"| {what} | {rate:.0f} GFLOP/s, {share:.0%} | {verdict if form == 'f16' else ''} |")
    for form, sides in (results.get("again") or {}).items():
        first, second = (statistics.median(sides[key]) for key in ("first", "second"))
        verdict = _verdict(f"{AGAIN} times", first / second >= AGAIN)
        what = f"first token about a picture, {form}: {first * 1e3:.0f} ms; of the next question: {second * 1e3:.1f} ms"
        rows.append(f"| {what} | {first / second:.1f} times | {verdict} |")
    for name, least in (results.get("cosine") or {}).items():
        verdict = _verdict(f"{COSINE}", least >= COSINE) if name == "opsin" else ""
        what = f"least cosine of a row, 8-bit weights against f32, with outliers, {name}"
        rows.append(f"| {what} | {least:.5f} | {verdict} |")
    if kept := results.get("jpeg"):
        worst = max(kept.values())
        verdict = _verdict(f"{JPEG} times", worst <= JPEG)
        what = "a 12-megapixel JPEG prepared, in terms of Pillow's decode and resize"
        rows.append(f"| {what} | {worst:.2f} times | {verdict} |")
    return rows


def _verdict(wanted: str, good: bool) -> str:
    return wanted if good else f"{wanted}, missed"


def profile_lines(kept: dict[str, Any]) -> list[str]:
    """Where the time of a tile goes."""
    rows = ["| seconds of a tile | " + " | ".join(OURS) + " |", "|---|---:|---:|"]
    for name in kept["f16"][0]:
        medians = [statistics.median(run.get(name, 0.0) for run in kept[form]) for form in OURS]
        rows.append(f"| {name} | " + " | ".join(f"{seconds:.4f}" for seconds in medians) + " |")
    return rows


def _add(kept: Any, new: Any) -> Any:
    """Two measurements of a case: lists follow one another, of other things the new one counts."""
    if isinstance(new, dict) and isinstance(kept, dict):
        return {key: _add(kept.get(key), value) for key, value in new.items()}
    return kept + new if isinstance(new, list) and isinstance(kept, list) else new


def _arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peers(parser)
    parser.add_argument("--no-flash", dest="flash", action="store_false", help="peers without flash attention")
    parser.add_argument("--files", type=Path, default=CACHE / "bench", help="where random files are kept")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--results", type=Path, help="JSON file of measurements, read and written")
    parser.add_argument("--add", action="store_true", help="rounds to those of --results")
    parser.add_argument("--write", metavar="NAME", help="put the table into bench/machines/NAME.md and README.md")
    return parser.parse_args(arguments)


def _rounds(kept: Any) -> int:
    """Of the side that has fewest; what is not measured in rounds has enough, what was not measured has none."""
    if kept is None:
        return 0
    if isinstance(kept, dict):
        return min(map(_rounds, kept.values()), default=0)
    return len(kept) if isinstance(kept, list) else 5


def main() -> None:
    """Measure, then print the table or write it."""
    args = _arguments()
    kept = args.results is not None and args.results.exists()
    results: dict[str, Any] = json.loads(args.results.read_text(encoding="utf-8")) if kept else {}
    bench = Bench(args.files, Peer.all(args.peer), args.flash, args.pairs)
    try:
        for name in args.only:
            say(name)
            results[name] = _add(results.get(name) if args.add else None, CASES[name](bench))
            if args.results is not None:
                args.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
    finally:
        bench.close()
    text = page({name: case for name, case in results.items() if _rounds(case)}, bench.peers)
    if args.write:
        if few := [name for name in results if _rounds(results[name]) < 5]:
            sys.exit(f"fewer than five quiet rounds are not published: {', '.join(few)}")
        tables.publish(args.write, MARK, text)
    print(text)
    if _rounds(results.get("products")):
        print("\n".join(["", *profile_lines(results["products"])]))


if __name__ == "__main__":
    try:
        main()
    except PeerError as error:
        sys.exit(f"bench/vision.py: {error}")
