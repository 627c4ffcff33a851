"""The published table: opsin beside llama.cpp on the same files, the same threads and the same sizes.

    python bench/text.py [--peer [NAME=]FOLDER ...] [--quick] [--only NAME ...] [--results FILE] [--write NAME]

Each case runs all programs by turns, one process a measurement: a warm-up round that does not count, then at least
five rounds, of which every second one goes backwards, so that a drift of the machine meets all alike. What is
published is the ratio of opsin's median to that of the fastest peer, and beside it the median and the range of the
ratios of the rounds, each to the fastest of its own.

--results keeps the measurements: cases that were not run this time are taken from it, so a long run may be made in
parts. --write puts all of it into bench/machines/NAME.md, and the tables of all machines into README.md (`tables.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import limits
import random_experts
import random_gemma4
import random_llama
import random_qwen35
import tables
from ours import CACHE, Opsin, OursError, smollm2
from peer import Peer, PeerError, add_peers

MARK, OPSIN = "bench:text", "opsin"
THREADS = 2
BUSY_LOAD = 0.5
CHAT_TOLERANCE = 0.07
DEPTH, LONG = 4096, 32768
THIN = random_llama.Shapes(layers=2)
RANDOM = {
    "gemma4": random_gemma4.write, "qwen35": random_qwen35.write, "experts": random_experts.write,
    "thin": lambda folder: random_llama.write(folder, "q4_k_m", THIN),
}  # fmt: skip
DEEP = 0.9  # what a ratio at DEPTH may lose


@dataclass(frozen=True)
class Case:
    """One comparison. Targets are the least ratios (ours / the fastest peer's); None where none was set."""

    name: str
    file: str
    title: str
    prompt: int = 512
    decode: int = 64
    depth: int = 0
    parallel: int = 1
    prompt_target: float | None = None
    decode_target: float | None = None
    is_long: bool = False  # beside flash attention; run where it is named


def _cases() -> Iterator[Case]:
    files = {
        "smollm2": ("SmolLM2-135M Q4_1", 4.0, 1.7),
        "q4_k_m": ("1B shapes, Q4_K_M mix", 1.8, 1.25),
        "q4_0": ("1B shapes, Q4_0", 1.8, 1.25),
        "q8_0": ("1B shapes, Q8_0", 1.6, 1.1),
    }
    for file, (title, prompt, decode) in files.items():
        yield Case(file, file, title, prompt_target=prompt, decode_target=decode)
    for file, (title, _, _) in files.items():
        yield Case(f"{file}-deep", file, f"{title}, at depth {DEPTH}", depth=DEPTH)
    newer = {
        "gemma4": "Gemma 4 E2B shapes, Q4_K_M mix",
        "qwen35": "Qwen3.5-4B shapes, Q4_K_M mix",
        "experts": "6 layers of Qwen3-30B-A3B shapes, Q4_K_M mix",
    }
    for file, title in newer.items():
        yield Case(file, file, title, prompt_target=2.0, decode_target=1.2)
        yield Case(f"{file}-eight", file, f"{title}, 8 sequences", prompt=128, parallel=8, decode_target=2.0)
    title = f"2 layers of 1B shapes, Q4_K_M mix, {LONG // 1024}k"
    yield Case("long-prompt", "thin", title, prompt=LONG, decode=16, prompt_target=2.0, is_long=True)
    yield Case("long-decode", "thin", title, prompt=64, depth=LONG - 64, decode_target=2.0, is_long=True)
    yield Case("smollm2-eight", "smollm2", "SmolLM2-135M Q4_1, 8 sequences", prompt=128, parallel=8, decode_target=2.5)


CASES = {case.name: case for case in _cases()}


@dataclass
class Rounds:
    """Measurements of one case by program, in the order in which they were made; opsin is the first program.

    A measurement is tokens a second by "prompt" and "decode", as far as a program tells them.
    """

    sides: dict[str, list[dict[str, float]]]

    @property
    def peers(self) -> list[str]:
        """The other programs."""
        return list(self.sides)[1:]

    def median(self, side: str, key: str) -> float | None:
        """Median tokens a second of `side`; None where it does not tell them, or was not run."""
        found = [run[key] for run in self.sides.get(side, ()) if key in run]
        return statistics.median(found) if found else None

    def ratio(self, key: str) -> float:
        """Ratio of the medians, opsin's to that of the fastest peer that tells it."""
        ours, *theirs = (median for side in self.sides if (median := self.median(side, key)) is not None)
        return ours / max(theirs)

    def each(self, key: str) -> list[float]:
        """The same of every round, sorted."""
        rounds = zip(*self.sides.values(), strict=True)
        return sorted(ours[key] / max(run[key] for run in theirs if key in run) for ours, *theirs in rounds)


@dataclass(frozen=True)
class Sides:
    """The programs and where the files are."""

    opsin: Opsin
    peers: Sequence[Peer]
    files: Path

    def path(self, file: str) -> Path:
        """The file's path; random ones are written when they are missing."""
        if file in RANDOM:
            return RANDOM[file](self.files)
        return smollm2() if file == "smollm2" else random_llama.write(self.files, file)

    def ours(self, case: Case) -> dict[str, float]:
        """One measurement of opsin."""
        extra = (["--depth", str(case.depth)] if case.depth else []) + (
            ["--parallel", str(case.parallel)] if case.parallel > 1 else []
        )
        got = self.opsin.bench(self.path(case.file), *extra, prompt=case.prompt, decode=case.decode, threads=THREADS)
        return {"prompt": got["prompt_tokens_per_second"], "decode": got["decode_tokens_per_second"]}

    def theirs(self, peer: Peer, case: Case) -> dict[str, float]:
        """One measurement of a peer."""
        path = self.path(case.file)
        sizes = {"prompt": case.prompt, "decode": case.decode, "threads": THREADS}
        if case.parallel > 1:
            rates = peer.parallel(path, sequences=case.parallel, **sizes)
        else:
            rates = peer.single(path, depth=case.depth, is_long=case.is_long, **sizes)
        return {key: rate for key, rate in asdict(rates).items() if rate is not None}

    def runs(self) -> dict[str, Callable[[Case], dict[str, float]]]:
        """How to measure with each program."""
        return {OPSIN: self.ours} | {peer.name: partial(self.theirs, peer) for peer in self.peers}


def measure(case: Case, sides: Sides, rounds: int, warm_ups: int = 1) -> Rounds:
    """All programs by turns."""
    runs = sides.runs()
    result = Rounds({side: [] for side in runs})
    for i in range(-warm_ups, rounds):
        for side in list(runs)[:: 1 if i % 2 == 0 else -1]:
            rates = runs[side](case)
            say(f"{case.name} {'warm-up' if i < 0 else i + 1} {side}: {_told(rates)}")
            if i >= 0:
                result.sides[side].append(rates)
    return result


def _told(rates: dict[str, float]) -> str:
    return ", ".join(f"{key} {rate:.1f}" for key, rate in rates.items()) + " tokens/s"


@dataclass
class Chat:
    """Seconds of whole `opsin chat` processes by answer length, and `opsin bench` over the same rows."""

    short: list[float] = field(default_factory=list)
    long: list[float] = field(default_factory=list)
    bench: list[float] = field(default_factory=list)

    SHORT, LONG, ROWS_BEFORE = 64, 320, 100  # about so many rows (template, question, SHORT) precede what is timed

    def rate(self) -> float:
        """Tokens a second of the answer's later part, start and loading subtracted."""
        return (self.LONG - self.SHORT) / (statistics.median(self.long) - statistics.median(self.short))

    def benched(self) -> float:
        """Tokens a second that `opsin bench` gives."""
        return statistics.median(self.bench)


def measure_chat(sides: Sides, rounds: int, warm_ups: int = 1) -> Chat:
    """`opsin chat` from outside against `opsin bench`, by turns."""
    path, result = sides.path("smollm2"), Chat()

    def chat(rows: int) -> float:
        options = ["-m", str(path), "-t", str(THREADS), "--ignore-eos", "-n", str(rows)]
        return sides.opsin.run(["chat", *options, "Tell me a long story about a lighthouse."]).seconds

    for i in range(-warm_ups, rounds):
        short, long = chat(Chat.SHORT), chat(Chat.LONG)
        depth = ("--depth", str(Chat.ROWS_BEFORE))
        got = sides.opsin.bench(path, *depth, prompt=16, decode=Chat.LONG - Chat.SHORT, threads=THREADS)
        bench = got["decode_tokens_per_second"]
        inside = (Chat.LONG - Chat.SHORT) / (long - short)
        say(f"chat {'warm-up' if i < 0 else i + 1}: {inside:.1f} tokens/s from outside, bench {bench:.1f}")
        if i >= 0:
            result.short.append(short)
            result.long.append(long)
            result.bench.append(bench)
    return result


# --- the table -----------------------------------------------------------------------------------------------------


def table(results: dict[str, Rounds], chat: Chat | None) -> list[str]:
    """Markdown: a row for each rate that was compared: one that a peer tells."""
    peers = list(dict.fromkeys(name for rounds in results.values() for name in rounds.peers))
    heads = [f"{name}, tokens/s" for name in (OPSIN, *peers)]
    rows = [
        f"| work | {' | '.join(heads)} | ratio of medians | rounds: median (range) | wanted |",
        f"|---|{'---:|' * len(heads)}---:|---:|---:|",
    ]
    for name, rounds in results.items():
        case = CASES[name]
        for key, wanted in _wanted(case, results).items():
            if all(rounds.median(peer, key) is None for peer in rounds.peers):
                continue
            each, ratio = rounds.each(key), rounds.ratio(key)
            medians = [rounds.median(side, key) for side in (OPSIN, *peers)]
            rates = " | ".join("-" if median is None else f"{median:.1f}" for median in medians)
            spread = f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"
            verdict = "" if wanted is None else f"{wanted:.2f}{'' if ratio >= wanted else ', missed'}"
            work = f"{case.title}: {key} of {getattr(case, key)}"
            rows.append(f"| {work} | {rates} | **{ratio:.2f}** | {spread} | {verdict} |")
    if chat:
        off = chat.rate() / chat.benched() - 1
        verdict = "within 7 %" + ("" if abs(off) <= CHAT_TOLERANCE else ", missed")
        rows.append("")
        rows.append(
            f"`opsin chat` timed from outside makes {chat.rate():.1f} tokens/s, `opsin bench` says "
            f"{chat.benched():.1f}: {off:+.1%} (wanted: {verdict})."
        )
    return rows


def _wanted(case: Case, results: dict[str, Rounds]) -> dict[str, float | None]:
    """The least ratio of each rate; at depth, most of the ratio that was reached without it."""
    if case.parallel > 1:
        return {"decode": case.decode_target}
    if case.is_long:
        return {"decode": case.decode_target} if case.depth else {"prompt": case.prompt_target}
    if not case.depth:
        return {"prompt": case.prompt_target, "decode": case.decode_target}
    shallow = results.get(case.file)
    return {key: shallow.ratio(key) * DEEP if shallow else None for key in ("prompt", "decode")}


def page(results: dict[str, Rounds], chat: Chat | None, machine: list[str], peers: Sequence[Peer]) -> str:
    """Everything between the markers."""
    least = min((len(rounds.sides[OPSIN]) for rounds in results.values()), default=0)
    return "\n".join(
        [
            f"{THREADS} threads each, by turns in one run, one process a measurement, medians of at least {least}; "
            "`python bench/text.py --write` wrote this.",
            "",
            *table(results, chat),
            "",
            "| this machine | |",
            "|---|---|",
            *machine,
            *(f"| {peer.name} | {peer.describe().replace('|', ',')} |" for peer in peers),
        ]
    )


def read_results(path: Path | None) -> tuple[dict[str, Rounds], Chat | None]:
    """Measurements kept by an earlier run; nothing where there are none."""
    if path is None or not path.exists():
        return {}, None
    kept = json.loads(path.read_text(encoding="utf-8"))
    chat = Chat(**kept["chat"]) if kept["chat"] else None
    return {name: Rounds(sides) for name, sides in kept["cases"].items()}, chat


def keep_results(path: Path | None, results: dict[str, Rounds], chat: Chat | None) -> None:
    """Keep them for a later run."""
    if path is not None:
        cases = {name: rounds.sides for name, rounds in results.items()}
        kept = {"cases": cases, "chat": asdict(chat) if chat else None}
        path.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def say(line: str) -> None:
    """To stderr, with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def _warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        say(f"the load of this machine is {load:.1f}: other programs run, do not publish these figures")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opsin", type=Path, help="the opsin command")
    add_peers(parser)
    parser.add_argument("--files", type=Path, default=CACHE / "bench", help="where random files are kept")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one pair, no warm-up, no depth: to see that all works")
    parser.add_argument("--only", nargs="+", choices=[*CASES, "chat"], metavar="NAME", help=", ".join([*CASES, "chat"]))
    parser.add_argument("--results", type=Path, help="JSON file of measurements, read and written")
    parser.add_argument("--write", metavar="NAME", help="put the table into bench/machines/NAME.md and README.md")
    args = parser.parse_args()
    if args.write and (args.quick or args.pairs < 5):
        parser.error("a table of fewer than five pairs is not published")
    return args


def main() -> None:
    """Measure, then print the table or write it."""
    args = _arguments()
    sides = Sides(Opsin.find(args.opsin), Peer.all(args.peer), args.files)
    chosen = args.only or [
        *(name for name, case in CASES.items() if not (case.is_long or (args.quick and case.depth))),
        "chat",
    ]
    pairs, warm_ups = (1, 0) if args.quick else (args.pairs, 1)
    results, chat = read_results(args.results)
    _warn_if_busy()
    for name in chosen:
        if name == "chat":
            chat = measure_chat(sides, pairs, warm_ups)
        else:
            results[name] = measure(CASES[name], sides, pairs, warm_ups)
        results = {key: results[key] for key in CASES if key in results}
        keep_results(args.results, results, chat)
    text = page(results, chat, limits.lines(limits.measure((1, THREADS))), sides.peers)
    if args.write:
        tables.publish(args.write, MARK, text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except (OursError, PeerError) as error:
        sys.exit(f"bench/text.py: {error}")
