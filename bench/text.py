"""The published table: opsin beside llama.cpp on the same files, the same threads and the same sizes.

    python bench/text.py [--peer FOLDER] [--quick] [--only NAME ...] [--results FILE] [--write NAME]

Each case runs both programs by turns, one process a measurement: a warm-up pair that does not count, then at least
five pairs, of which every second one starts with llama.cpp, so that a drift of the machine meets both alike.
What is published is the ratio of the medians, and beside it the median and the range of the ratios of the pairs.

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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import limits
import random_experts
import random_gemma4
import random_llama
import random_qwen35
import tables
from ours import CACHE, Opsin, OursError, smollm2
from peer import Peer, PeerError, Rates

MARK = "bench:text"
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
    """One comparison. Targets are the least ratios (ours / llama.cpp); None where none was set."""

    name: str
    file: str
    title: str
    prompt: int = 512
    decode: int = 64
    depth: int = 0
    parallel: int = 1
    prompt_target: float | None = None
    decode_target: float | None = None
    is_long: bool = False  # beside llama.cpp's flash attention; run where it is named


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
class Pairs:
    """Measurements of one case in the order they were made: ours[i] and peer[i] ran one right after the other."""

    ours: list[dict[str, float]] = field(default_factory=list)
    peer: list[dict[str, float]] = field(default_factory=list)

    def ratio(self, key: str) -> float:
        """Ratio of the medians."""
        return self.median("ours", key) / self.median("peer", key)

    def median(self, side: str, key: str) -> float:
        """Median tokens a second of `side`."""
        return statistics.median(run[key] for run in self.runs(side))

    def runs(self, side: str) -> list[dict[str, float]]:
        """The measurements of "ours" or "peer"."""
        return {"ours": self.ours, "peer": self.peer}[side]

    def each(self, key: str) -> list[float]:
        """Ratio of every pair, sorted."""
        return sorted(a[key] / b[key] for a, b in zip(self.ours, self.peer, strict=True))


@dataclass(frozen=True)
class Sides:
    """The two programs and where the files are."""

    opsin: Opsin
    peer: Peer
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

    def theirs(self, case: Case) -> dict[str, float]:
        """One measurement of llama.cpp."""
        path = self.path(case.file)
        sizes = {"prompt": case.prompt, "decode": case.decode, "threads": THREADS}
        if case.parallel > 1:
            return _complete(self.peer.parallel(path, sequences=case.parallel, **sizes))
        return _complete(self.peer.single(path, depth=case.depth, is_long=case.is_long, **sizes))


def _complete(rates: Rates) -> dict[str, float]:
    if rates.prompt is None or rates.decode is None:
        raise PeerError("llama.cpp measured only half of what was asked")
    return {"prompt": rates.prompt, "decode": rates.decode}


def measure(case: Case, sides: Sides, pairs: int, warm_ups: int = 1) -> Pairs:
    """Both programs by turns."""
    result = Pairs()
    for i in range(-warm_ups, pairs):
        order: list[tuple[str, Callable[[Case], dict[str, float]]]] = [("ours", sides.ours), ("peer", sides.theirs)]
        for side, run in order if i % 2 == 0 else reversed(order):
            rates = run(case)
            say(f"{case.name} {'warm-up' if i < 0 else i + 1} {side}: " + _both(rates))
            if i >= 0:
                result.runs(side).append(rates)
    return result


def _both(rates: dict[str, float]) -> str:
    return f"prompt {rates['prompt']:.1f}, decode {rates['decode']:.1f} tokens/s"


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


def table(results: dict[str, Pairs], chat: Chat | None) -> list[str]:
    """Markdown: a row for each rate that was compared."""
    rows = [
        "| work | opsin, tokens/s | llama.cpp, tokens/s | ratio of medians | pairs: median (range) | wanted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, pairs in results.items():
        case = CASES[name]
        for key, wanted in _wanted(case, results).items():
            each = pairs.each(key)
            work = f"{case.title}: {key} of {getattr(case, key)}"
            spread = f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"
            ours, peer, ratio = pairs.median("ours", key), pairs.median("peer", key), pairs.ratio(key)
            verdict = "" if wanted is None else f"{wanted:.2f}{'' if ratio >= wanted else ', missed'}"
            rows.append(f"| {work} | {ours:.1f} | {peer:.1f} | **{ratio:.2f}** | {spread} | {verdict} |")
    if chat:
        off = chat.rate() / chat.benched() - 1
        verdict = "within 7 %" + ("" if abs(off) <= CHAT_TOLERANCE else ", missed")
        rows.append("")
        rows.append(
            f"`opsin chat` timed from outside makes {chat.rate():.1f} tokens/s, `opsin bench` says "
            f"{chat.benched():.1f}: {off:+.1%} (wanted: {verdict})."
        )
    return rows


def _wanted(case: Case, results: dict[str, Pairs]) -> dict[str, float | None]:
    """The least ratio of each rate; at depth, most of the ratio that was reached without it."""
    if case.parallel > 1:
        return {"decode": case.decode_target}
    if case.is_long:
        return {"decode": case.decode_target} if case.depth else {"prompt": case.prompt_target}
    if not case.depth:
        return {"prompt": case.prompt_target, "decode": case.decode_target}
    shallow = results.get(case.file)
    return {key: shallow.ratio(key) * DEEP if shallow else None for key in ("prompt", "decode")}


def page(results: dict[str, Pairs], chat: Chat | None, machine: list[str], peer: str) -> str:
    """Everything between the markers."""
    pairs = min((len(p.ours) for p in results.values()), default=0)
    return "\n".join(
        [
            f"{THREADS} threads each, by turns in one run, one process a measurement, medians of at least {pairs}; "
            "`python bench/text.py --write` wrote this.",
            "",
            *table(results, chat),
            "",
            "| this machine | |",
            "|---|---|",
            *machine,
            f"| llama.cpp | {peer.replace('|', ',')} |",
        ]
    )


def read_results(path: Path | None) -> tuple[dict[str, Pairs], Chat | None]:
    """Measurements kept by an earlier run; nothing where there are none."""
    if path is None or not path.exists():
        return {}, None
    kept = json.loads(path.read_text(encoding="utf-8"))
    chat = Chat(**kept["chat"]) if kept["chat"] else None
    return {name: Pairs(**pairs) for name, pairs in kept["cases"].items()}, chat


def keep_results(path: Path | None, results: dict[str, Pairs], chat: Chat | None) -> None:
    """Keep them for a later run."""
    if path is not None:
        cases = {name: asdict(pairs) for name, pairs in results.items()}
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
    parser.add_argument("--peer", type=Path, help="folder of llama.cpp's programs")
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
    sides = Sides(Opsin.find(args.opsin), Peer.find(args.peer), args.files)
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
    text = page(results, chat, limits.lines(limits.measure((1, THREADS))), sides.peer.describe())
    if args.write:
        tables.publish(args.write, MARK, text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except (OursError, PeerError) as error:
        sys.exit(f"bench/text.py: {error}")
