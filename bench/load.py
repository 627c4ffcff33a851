"""opsin's server under load beside llama-server: requests a minute, gaps between tokens, what HTTP costs.

    python bench/load.py [--peer [NAME=]FOLDER ...] [--only NAME ...] [--blocks 6] [--short] [--json FILE]

All servers stand at once on loopback and are loaded in turns, block by block; their start lines are printed. A ratio
is to the fastest peer of its block. Prompts are random ids that no request had before. Names: distinct (16 clients, 200
tokens in, 64 out, SmolLM2), q4_k_m and q8_0 (100 in, 32 out, shapes of Llama-3.2-1B), pictures-q8_0 and pictures-f16 (a
picture each, half of them seen before, 32 out, shapes of SmolVLM-256M), long (a prompt of 4,000 tokens beside running
streams), http (streams beside `opsin bench`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import random_llama
import random_smolvlm
from figure import Figure
from load_clients import Health, Prompts, Server, in_parallel, picture, serving, watch
from ours import Opsin, smollm2
from peer import Peer, add_peers

OPSIN = "opsin"
CLIENTS, THREADS, STREAMS = 16, 2, 8
PLAIN = {"temperature": 0, "ignore_eos": True, "cache_prompt": True}
VOCABULARY = (300, 40_000)  # ids that are ordinary tokens in all models here


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    opsin: Opsin
    peers: Sequence[Peer]
    folder: Path
    blocks: int
    short: bool

    @contextmanager
    def servers(self, model: Path, context: int, mmproj: Path | None = None) -> Iterator[list[Server]]:
        """opsin's server of one model, then the peers', each with room for 16 answers of `context` tokens."""
        options = ["-m", str(model), *(["--mmproj", str(mmproj)] if mmproj else []), "-t", str(THREADS)]
        options += ["-np", str(CLIENTS), "-c", str(CLIENTS * context)]
        lines = {OPSIN: [str(self.opsin.command), "serve", "--guesses", "0", *options]}
        lines |= {peer.name: [str(peer.folder / "llama-server"), *options] for peer in self.peers}
        with ExitStack() as stack:  # some peers leave a log where they run
            heres = {peer.name: self.folder for peer in self.peers}
            started = [stack.enter_context(serving(name, line, heres.get(name))) for name, line in lines.items()]
            for server in started:
                print(f"     {' '.join(server.command)}", flush=True)
            yield started

    def requests(self, name: str, model: Path, tokens: tuple[int, int], bound: float) -> Iterator[Figure]:
        """Requests a minute of 16 clients with distinct prompts; and how /health answers meanwhile."""
        prompts, (reads, writes) = Prompts(*VOCABULARY), tokens
        each = 1 if self.short else 2

        def block(server: Server) -> float:
            bodies = [{**PLAIN, "prompt": prompts.take(reads), "n_predict": writes} for _ in range(CLIENTS * each)]
            return _per_minute(server, "/completion", bodies)

        with self.servers(model, 512) as servers, Health(servers[0]) as health:
            yield _ratio(f"{name}: requests a minute", in_turns(block, servers, self.blocks), bound)
        yield Figure(f"{name}: slowest /health", max(health.seconds), 0.25, "s")

    def pictures(self, form: str, bound: float) -> Iterator[Figure]:
        """Requests a minute of 16 clients with a picture each, of which half were seen before."""
        text, tower = (write(self.folder, form) for write in (random_smolvlm.write_text, random_smolvlm.write_tower))
        seen, fresh = list(range(CLIENTS // 2)), iter(range(1000, 100_000))

        def body(seed: int) -> dict[str, object]:
            parts = [
                {"type": "text", "text": f"What is this? {seed}"},
                {"type": "image_url", "image_url": {"url": picture(seed)}},
            ]
            return {**PLAIN, "messages": [{"role": "user", "content": parts}], "max_tokens": 32}

        def block(server: Server) -> float:
            bodies = [body(seed) for pair in zip(seen, fresh, strict=False) for seed in pair]
            return _per_minute(server, "/v1/chat/completions", bodies)

        with self.servers(text, 1024, tower) as servers:
            read = []
            for server in servers:
                in_parallel([partial(server.ask, "/v1/chat/completions", body(seed)) for seed in seen])
                read.append(str(server.ask("/v1/chat/completions", body(0))["usage"]["prompt_tokens"]))
            note = f"prompts of {' and '.join(read)} tokens, 64 of them a tile"
            yield _ratio(f"pictures {form}: requests a minute", in_turns(block, servers, self.blocks), bound, note)

    def long(self) -> Iterator[Figure]:
        """A prompt of 4,000 tokens, alone and beside streams: the streams' gaps meanwhile, and its time."""
        prompts, tokens = Prompts(*VOCABULARY), 1000 if self.short else 4000
        with self.servers(smollm2(), 8192) as servers:
            for server in servers:
                alone = min(_seconds(server, prompts.take(tokens)) for _ in range(1 if self.short else 3))
                gaps, beside = _beside(server, prompts, tokens)
                name, p99 = f"long prompt, {server.name}", statistics.quantiles(gaps, n=100)[98]
                gap, longer = (0.15, 1.5) if server is servers[0] else (0.0, 0.0)
                yield Figure(f"{name}: p99 gap of {STREAMS} streams", p99, gap, "s", note=f"of {len(gaps)}")
                yield Figure(
                    f"{name}: its time by that alone", beside / alone, longer, "x", note=f"{alone:.2f} s alone"
                )

    def http(self) -> Iterator[Figure]:
        """Tokens a second through HTTP by those of the engine."""
        prompts, writes = Prompts(*VOCABULARY), 64 if self.short else 256
        with self.servers(smollm2(), 1024) as (ours, *_):
            for streams, bound in ((1, 0.92), (CLIENTS, 0.88)):
                command = ["bench", "-m", str(smollm2()), "-t", str(THREADS), "-p", "16", "-n", str(writes)]
                command += ["--parallel", str(streams), "--json"]
                shares = []
                for _ in range(self.blocks):
                    engine = json.loads(self.opsin.run(command).stdout)["decode_tokens_per_second"]
                    shares.append(_streamed_rate(ours, prompts, streams, writes) / engine)
                name, note = f"http: rate of {streams} by `opsin bench`", f"{min(shares):.2f} to {max(shares):.2f}"
                yield Figure(name, statistics.median(shares), bound, "x", most=False, note=note)

    def run(self, names: Sequence[str]) -> Iterator[Figure]:
        """All that was asked for."""
        works: dict[str, Callable[[], Iterator[Figure]]] = {
            "distinct": lambda: self.requests("SmolLM2 Q4_1, 200 in, 64 out", smollm2(), (200, 64), 5),
            "q4_k_m": lambda: self.requests("1B Q4_K_M, 100 in, 32 out", self.llama("q4_k_m"), (100, 32), 2),
            "q8_0": lambda: self.requests("1B Q8_0, 100 in, 32 out", self.llama("q8_0"), (100, 32), 3),
            "pictures-q8_0": lambda: self.pictures("q8_0", 6),
            "pictures-f16": lambda: self.pictures("f16", 3),
            "long": self.long,
            "http": self.http,
        }
        for name in names or works:
            yield from works[name]()

    def llama(self, mix: str) -> Path:
        """A file of Llama-3.2-1B's shapes."""
        return random_llama.write(self.folder, mix)


def in_turns(block: Callable[[Server], float], servers: Sequence[Server], blocks: int) -> list[list[float]]:
    """Rounds of figures, one of each server; every second round goes backwards, and the first one warms up."""
    rounds = []
    for turn in range(blocks + 1):
        by_name = {server.name: block(server) for server in servers[:: 1 if turn % 2 else -1]}
        rounds.append([by_name[server.name] for server in servers])
        print(f"     {turn or 'warm-up'}: {' and '.join(f'{one:.1f}' for one in rounds[-1])}", flush=True)
    return rounds[1:]


def _ratio(name: str, rounds: Sequence[Sequence[float]], bound: float, note: str = "") -> Figure:
    ratios = [ours / max(theirs) for ours, *theirs in rounds]
    medians = " and ".join(f"{statistics.median(side):.1f}" for side in zip(*rounds, strict=True))
    note = f"{medians}; {min(ratios):.1f} to {max(ratios):.1f}; {note}"
    return Figure(name, statistics.median(ratios), bound, "x", most=False, note=note)


def _per_minute(server: Server, path: str, bodies: Sequence[dict[str, object]]) -> float:
    """16 clients send their shares one after another."""

    def client(mine: Sequence[dict[str, object]]) -> None:
        for body in mine:
            server.ask(path, body)

    began = time.perf_counter()
    in_parallel([partial(client, bodies[place::CLIENTS]) for place in range(CLIENTS)])
    return 60 * len(bodies) / (time.perf_counter() - began)


def _seconds(server: Server, prompt: list[int]) -> float:
    began = time.perf_counter()
    server.ask("/completion", {**PLAIN, "prompt": prompt, "n_predict": 1})
    return time.perf_counter() - began


def _beside(server: Server, prompts: Prompts, tokens: int) -> tuple[list[float], float]:
    """Gaps of streams while a long prompt is read, and its seconds."""
    window: list[float] = []

    def late() -> float:
        time.sleep(2)
        window.append(time.perf_counter())
        took = _seconds(server, prompts.take(tokens))
        window.append(time.perf_counter())
        return took

    bodies = [{**PLAIN, "prompt": prompts.take(16), "n_predict": 1500} for _ in range(STREAMS)]
    seen, took = in_parallel([partial(watch, server, bodies), late])
    inside = [
        after - before
        for one in seen
        for before, after in zip(one.seconds, one.seconds[1:], strict=False)
        if after > window[0] and before < window[1]
    ]
    return inside, took


def _streamed_rate(server: Server, prompts: Prompts, streams: int, writes: int) -> float:
    """Tokens a second of streams that begin together, from the first token of any to the last."""
    bodies = [{**PLAIN, "prompt": prompts.take(16), "n_predict": writes} for _ in range(streams)]
    seen = watch(server, bodies)
    first, last = min(one.seconds[0] for one in seen), max(one.seconds[-1] for one in seen)
    return streams * (writes - 1) / (last - first)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peers(parser)
    parser.add_argument("--opsin", type=Path, help="the command")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "opsin-load", help="of random files"
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--short", action="store_true", help="try the script: a block, short prompts and answers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    blocks = 1 if args.short else args.blocks
    args.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(Opsin.find(args.opsin), Peer.all(args.peer), args.folder.resolve(), blocks, args.short)
    figures = []
    for figure in bench.run(args.only):
        figures.append(figure)
        print(figure.line(), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
