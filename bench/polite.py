"""How opsin behaves beside others: a busy neighbour, idling, Ctrl-C, loading, memory, and how fast it starts.

    python bench/polite.py [--only NAME ...] [--json]

Every figure is taken from outside, of whole processes, but for the seconds of single steps and of loading, which
`opsin bench` reports. Prints each figure beside the bound that the project set itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import random_llama
from figure import Figure
from ours import CACHE, Opsin, OursError, smollm2

THREADS = 2
QUESTION = "Why is the sky blue?"
MEGABYTE = 1e6
INTERRUPTED = (0, 128 + signal.SIGINT, -signal.SIGINT)  # exit statuses that a Ctrl-C may lead to

# Loads a file, answers a little, and says what an idle while cost in CPU time, all threads of the process together.
IDLE = """
import sys, time, opsin
model = opsin.load(sys.argv[1], threads=int(sys.argv[2]))
for piece in model.chat([{"role": "user", "content": "Hi"}], max_tokens=8): pass
time.sleep(1)
wall, used = time.perf_counter(), time.process_time()
time.sleep(float(sys.argv[3]))
print((time.process_time() - used) / (time.perf_counter() - wall))
"""


@dataclass(frozen=True)
class Setting:
    """What the figures are taken with."""

    opsin: Opsin
    files: Path
    runs: int

    def large(self) -> Path:
        """A file of about 2 GB."""
        return random_llama.write(self.files, "q8_0", random_llama.Shapes(layers=28))


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that computes without a pause."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        child.kill()
        child.wait()


def steps(setting: Setting) -> Iterator[Figure]:
    """p99 of a decode step beside one busy process, against the median of the same run."""

    def seconds() -> list[float]:
        got = setting.opsin.bench(smollm2(), "--steps-json", prompt=64, decode=1000, threads=THREADS)
        return sorted(got["step_seconds"])

    def p99(sorted_seconds: list[float]) -> float:
        return sorted_seconds[int(0.99 * len(sorted_seconds))]

    alone = seconds()
    with busy_process():
        time.sleep(0.5)
        beside = [seconds() for _ in range(setting.runs)]
    ratios = [p99(run) / statistics.median(run) for run in beside]
    typical = statistics.median(statistics.median(run) for run in beside)
    note = (
        f"median {typical * 1e3:.2f} ms, worst {max(run[-1] for run in beside) * 1e3:.1f} ms; alone: median "
        f"{statistics.median(alone) * 1e3:.2f} ms, p99 {p99(alone) * 1e3:.2f} ms"
    )
    yield Figure("p99 / median of a decode step beside a busy process", statistics.median(ratios), 8.0, "x", note)


def idle(setting: Setting) -> Iterator[Figure]:
    """CPU time of a process that has answered and waits."""
    python = setting.opsin.command.with_name(Path(sys.executable).name)
    command = [str(python if python.exists() else sys.executable), "-c", IDLE, str(smollm2()), str(THREADS), "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OursError(f"the idle process failed:\n{done.stderr[-2000:]}")
    yield Figure("CPU of an idle process", float(done.stdout) * 100, 1.0, "% of a core", "10 s, all its threads")


def interrupt(setting: Setting) -> Iterator[Figure]:
    """From Ctrl-C to the end of the process, while it answers and while it reads a long prompt."""
    large = random_llama.write(setting.files, "q4_k_m")
    prompt = "A lighthouse stands on the rock. " * 400
    answering = [_interrupted(setting, smollm2(), QUESTION, reading=False) for _ in range(setting.runs)]
    yield Figure("Ctrl-C while it answers", max(answering), 0.3, "s", f"worst of {setting.runs}, to the process's end")
    reading = [_interrupted(setting, large, prompt, reading=True) for _ in range(setting.runs)]
    yield Figure("Ctrl-C while it reads a prompt", max(reading), 0.3, "s", f"worst of {setting.runs}, 1B shapes")


def _interrupted(setting: Setting, model: Path, prompt: str, *, reading: bool) -> float:
    options = ["-m", str(model), "-t", str(THREADS), "--ignore-eos", "-n", "4000"]
    child = subprocess.Popen(
        [str(setting.opsin.command), "chat", *options, prompt], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    if reading:
        time.sleep(4.0)  # loaded by now; the prompt takes several times as long
    else:
        child.stdout.read(1)
        time.sleep(0.5)
    if child.poll() is not None:
        raise OursError(f"opsin chat ended with {child.returncode} before it was interrupted")
    began = time.perf_counter()
    child.send_signal(signal.SIGINT)
    drained = child.communicate(timeout=60)[0]
    seconds = time.perf_counter() - began
    if child.returncode not in INTERRUPTED:
        raise OursError(f"opsin chat ended with {child.returncode} after Ctrl-C")
    if reading and drained:
        raise OursError("the answer had begun: the prompt is too short to be interrupted on this machine")
    return seconds


def loading(setting: Setting) -> Iterator[Figure]:
    """Loading a file of 2 GB from the page cache, against reading it into fresh memory."""
    path = setting.large()
    plain = statistics.median(_read_seconds(path) for _ in range(max(3, setting.runs)))
    results = [setting.opsin.bench(path, prompt=1, decode=1, threads=THREADS) for _ in range(setting.runs)]
    seconds = statistics.median(result["load_seconds"] for result in results)
    note = f"{path.stat().st_size / 1e9:.2f} GB; plain read {plain:.2f} s"
    yield Figure("loading a file of 2 GB", seconds, 1.5 * plain + 1.0, "s", note)


def _read_seconds(path: Path) -> float:
    began = time.perf_counter()
    path.read_bytes()
    return time.perf_counter() - began


def memory(setting: Setting) -> Iterator[Figure]:
    """Peak resident memory of a whole process, against file and KV cache."""
    files = {"SmolLM2": smollm2(), "1B q4_k_m": random_llama.write(setting.files, "q4_k_m")}
    for name, path in (files | {"2 GB": setting.large()}).items():
        sizes = ["-p", "512", "-n", "64", "-t", str(THREADS)]
        peak = setting.opsin.run(["bench", "-m", str(path), *sizes, "--json"], watch_memory=True).peak_bytes
        file, cache = path.stat().st_size, _cache_bytes(path, rows=512 + 64)
        bound = 1.15 * file + cache + 250 * MEGABYTE
        note = f"file {file / MEGABYTE:.0f} MB, KV in f16 {cache / MEGABYTE:.0f} MB"
        yield Figure(f"peak memory, {name}", peak / MEGABYTE, bound / MEGABYTE, "MB", note)


def _cache_bytes(path: Path, rows: int) -> int:
    """KV cache of `rows` in f16, from the file's metadata."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    values = {
        name: int(fields[f"llama.{name}"].contents())
        for name in ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv")
    }
    head = values["embedding_length"] // values["attention.head_count"]
    return values["block_count"] * values["attention.head_count_kv"] * head * 2 * 2 * rows


def starting(setting: Setting) -> Iterator[Figure]:
    """The very first start, with no compiled kernels, and a warm one."""
    chat = ["chat", "-m", str(smollm2()), "-t", str(THREADS), "-n", "8", QUESTION]
    with tempfile.TemporaryDirectory() as folder:
        cold = setting.opsin.run(chat, cache=Path(folder))
        progress = "said so on stderr" if cold.stderr.strip() else "said nothing on stderr, which it should"
        bound = 25.0 if cold.stderr.strip() else 0.0
        yield Figure("first start ever, to the first token", cold.first_byte_seconds, bound, "s", progress)
        warm = [setting.opsin.run(chat, cache=Path(folder)).seconds for _ in range(setting.runs)]
    yield Figure("warm start, whole process", statistics.median(warm), 2.5, "s", "8 tokens and exit")
    helped = [setting.opsin.run(["--help"]).seconds for _ in range(setting.runs)]
    yield Figure("opsin --help", statistics.median(helped), 0.3, "s")


FIGURES = {
    "steps": steps,
    "idle": idle,
    "interrupt": interrupt,
    "loading": loading,
    "memory": memory,
    "starting": starting,
}


def main() -> int:
    """Take the figures, print them, and exit with 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opsin", type=Path, help="the opsin command")
    parser.add_argument("--files", type=Path, default=CACHE / "bench", help="where random files are kept")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    setting = Setting(Opsin.find(args.opsin), args.files, args.runs)
    if not args.json:
        print(f"{THREADS} threads, {os.cpu_count()} processors\n\n| what | figure | at most | |\n|---|---:|---:|---|")
    good = True
    for name in args.only:
        for figure in FIGURES[name](setting):
            good &= figure.good
            print(json.dumps(asdict(figure) | {"good": figure.good}) if args.json else _row(figure), flush=True)
    return 0 if good else 1


def _row(figure: Figure) -> str:
    verdict = "" if figure.good else "**missed** "
    digits = 0 if figure.value >= 100 else 2
    value, bound = f"{figure.value:.{digits}f} {figure.unit}", f"{figure.bound:.{digits}f} {figure.unit}"
    return f"| {figure.name} | {value} | {bound} | {verdict}{figure.note} |"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OursError as error:
        sys.exit(f"bench/polite.py: {error}")
