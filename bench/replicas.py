"""Two replicas on Ray beside one server, here: what the way costs, what a second one gives, what a loss takes.

    python bench/replicas.py [--rounds 3] [--parts overhead capacity loss]      # needs pip install 'opsin[ray]'

With opsin-nano, one thread a replica. By turns. Ratios count more than times: Ray's own processes share the processors.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))

from fleet_requests import Client, figures, look, say
from ray_fleet import RayFleet, ray_fleet

REPLICA = "ray::ServeReplica:opsin:Replica"
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def seconds_of(pid: int) -> float:
    """Processor time of a process by now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def timed(do: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    do()
    return 1e3 * (time.perf_counter() - begin)


def first_text(port: int) -> float:
    """Milliseconds to the first line of a stream about a picture seen before."""
    stream = Client(port).begin(look(1, stream=True))
    took = timed(lambda: next(stream))
    stream.close()
    return took


def event(port: int) -> float:
    """Milliseconds from one event of a stream to the next."""
    times = []
    for line in Client(port).begin(say("Count", stream=True, max_tokens=60, ignore_eos=True)):
        if line.startswith(b"data: {"):
            times.append(time.perf_counter())
    return 1e3 * (times[-1] - times[0]) / (len(times) - 1)


def overhead(fleet: RayFleet, rounds: int) -> None:
    """The same requests at one server and at the fleet, by turns."""
    port = free_port()
    alone = subprocess.Popen(
        [sys.executable, "-m", "opsin", "serve", "-t", "1", "--port", str(port)], stderr=subprocess.PIPE, text=True
    )
    assert alone.stderr is not None
    while "ready" not in next(alone.stderr):
        pass
    try:
        kept = {one: Client(one, keep=True) for one in (port, fleet.port)}
        asked: dict[str, Callable[[int], float]] = {
            "small GET": lambda one: timed(lambda: kept[one].ask(path="/health")),
            "first text, picture seen before": first_text,
            "an event of a stream": event,
        }
        for name, ask in asked.items():
            took: dict[int, list[float]] = {port: [], fleet.port: []}
            for _ in range(20 * rounds):
                for one in took:
                    took[one].append(ask(one))
            ours, theirs = (statistics.median(took[one][2:]) for one in took)
            print(
                f"{name}: alone {ours:.1f} ms, fleet {theirs:.1f} ms, {theirs - ours:+.1f} ms, "
                f"{theirs / ours:.1f} times",
                flush=True,
            )
    finally:
        alone.send_signal(signal.SIGINT)
        alone.stderr.close()
        alone.wait()


def load(fleet: RayFleet, requests: int, first: int) -> tuple[float, float, float]:
    """Seconds, and processor time of all replicas and of the busiest one, for so many new pictures; 4 clients."""
    pids = fleet.pids(REPLICA)
    before = {pid: seconds_of(pid) for pid in pids}
    numbers = iter(list(range(first, first + requests)))

    def client() -> None:
        for number in numbers:
            assert Client(fleet.port).ask(look(number, max_tokens=16, ignore_eos=True))[0] == 200

    threads = [threading.Thread(target=client) for _ in range(4)]
    took = timed(lambda: ([one.start() for one in threads], [one.join() for one in threads])) / 1e3
    spent = [seconds_of(pid) - before[pid] for pid in pids]
    return took, sum(spent), max(spent)


def capacity(fleet: RayFleet, rounds: int) -> None:
    """Answers of one replica and of two, by turns, for a second of three kinds.

    Of all replicas' processor time together: what an answer costs, which two replicas cannot make less. Of the busiest
    replica's: how fast both are where each has a processor for itself, since that one is ready last; here they
    share two with Ray and these clients. And of the clock.
    """
    rates: dict[str, dict[int, list[float]]] = {
        kind: {1: [], 2: []} for kind in ("all replicas' processor time", "the busiest replica's", "the clock")
    }
    for turn in range(rounds):
        for count in (1, 2):
            fleet.change(replicas=count)
            while len(fleet.pids(REPLICA)) != count:
                time.sleep(0.1)
            load(fleet, 20, 10_000 * turn + 5000 * count)
            took, total, busiest = load(fleet, 160, 10_000 * turn + 5000 * count + 1000)
            for kind, seconds in zip(rates, (total, busiest, took), strict=True):
                rates[kind][count].append(160 / seconds)
            print(
                f"{count} replicas: 160 answers in {took:.1f} s; processor time {total:.1f} s, {busiest:.1f} s of the "
                f"busiest, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    for kind, made in rates.items():
        one, two = statistics.median(made[1]), statistics.median(made[2])
        print(f"answers a second of {kind}: {one:.1f} and {two:.1f}, two replicas give {two / one:.2f} times one")


def loss(fleet: RayFleet, rounds: int) -> None:
    """From the death of a replica to the error in its streams, and to another one."""
    for _ in range(rounds):
        ends: list[tuple[float, bytes]] = []

        def stream(number: int, ends: list[tuple[float, bytes]] = ends) -> None:
            lines = list(Client(fleet.port).begin(say(f"{number}", stream=True, max_tokens=900, ignore_eos=True)))
            ends.append((time.perf_counter(), [line for line in lines if line.strip()][-1]))

        threads = [threading.Thread(target=stream, args=(number,)) for number in range(8)]
        for one in threads:
            one.start()
        while sum(figures(fleet.port, "requests_processing", 2).values()) < 6:
            time.sleep(0.01)
        victim = fleet.pids(REPLICA)[0]
        os.kill(victim, signal.SIGKILL)
        killed = time.perf_counter()
        while len(figures(fleet.port, "ready", 2)) < 2:
            time.sleep(0.1)
        again = time.perf_counter() - killed
        for one in threads:
            one.join()
        errors = sorted(at - killed for at, line in ends if b"lost" in line)
        whole = sum(line.startswith(b"data: [DONE]") for _, line in ends)
        print(
            f"killed: {len(errors)} of 8 streams ended with an error, the last after {max(errors, default=0):.2f} s, "
            f"{whole} whole; two again after {again:.1f} s"
        )


def main() -> None:
    """Tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parts = {"overhead": overhead, "capacity": capacity, "loss": loss}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    with ray_fleet(free_port(), threads=1, context=8192, sequences=8, replicas=2) as fleet:
        for name in args.parts:
            parts[name](fleet, args.rounds)


if __name__ == "__main__":
    main()
