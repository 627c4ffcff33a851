"""Two machines on one: a Ray node in each of two network namespaces, joined by a cable. As root, on Linux.

    python bench/two_nodes.py [--lose-head | --unplug] [--grpc]        # needs pip install 'opsin[ray]' and iproute2

12 pictures x 4 questions, asked of both machines' proxies in turn, are 12 encodings; then all processes of the second
machine are killed while four clients ask the first. `--lose-head`: then those of the first that know the cluster, too.
`--unplug`: their cable is pulled instead. `--grpc`: with the environment that docs/scale.md has for one machine.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))

from fleet_requests import Client, figures, look, say
from ray_fleet import processes

from opsin.config import tell_ray

SPACES, HOSTS, PORT = ("opsin-a", "opsin-b"), ("10.99.0.1", "10.99.0.2"), 8000
RAY = str(Path(sys.executable).parent / "ray")


def ip(*words: str) -> None:
    """One command of iproute2."""
    subprocess.run(["ip", *words], check=True)


def join() -> None:
    """Two namespaces and their cable."""
    for space in SPACES:
        ip("netns", "add", space)
    ip("link", "add", "opsin0", "netns", SPACES[0], "type", "veth", "peer", "name", "opsin1", "netns", SPACES[1])
    for space, host, device in zip(SPACES, HOSTS, ("opsin0", "opsin1"), strict=True):
        ip("-n", space, "address", "add", f"{host}/24", "dev", device)
        for one in (device, "lo"):
            ip("-n", space, "link", "set", one, "up")


def start(folders: tuple[str, str]) -> None:
    """A Ray node in each."""
    usual = ["--disable-usage-stats", "--num-cpus", "1", "--include-dashboard", "false"]
    where = (["--head", "--port", "6379"], ["--address", f"{HOSTS[0]}:6379"])
    for space, host, folder, own in zip(SPACES, HOSTS, folders, where, strict=True):
        command = ["ip", "netns", "exec", space, RAY, "start", "--node-ip-address", host, *own, *usual]
        told = {**os.environ, "RAY_TMPDIR": folder}
        asked = command if "--head" in own else command[:-2]
        for last in (False, False, True):  # Ray gives a node half a minute, which a busy machine may not give it
            if subprocess.run(asked, check=last, env=told, stdout=subprocess.DEVNULL).returncode == 0:
                break
            kill(folder)


def outside(args: argparse.Namespace) -> None:
    """Make both, run the rest within the first, and take all away."""
    patience = {"RAY_raylet_start_wait_time_s": "180", "RAY_AUTH_MODE": "token"}
    os.environ |= {**patience, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    tell_ray(alone=args.grpc)
    with (
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as first,
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as second,
    ):
        try:
            join()
            start((first, second))
            losses = [f"--{name}" for name in ("lose-head", "unplug") if getattr(args, name.replace("-", "_"))]
            again = [sys.executable, __file__, "--inside", second, *losses]
            told = {**os.environ, "RAY_TMPDIR": first}
            subprocess.run(["ip", "netns", "exec", SPACES[0], *again], check=True, env=told)
        finally:
            for folder in (first, second):
                kill(folder)
            for space in SPACES:
                subprocess.run(["ip", "netns", "delete", space], check=False)


def kill(folder: str, *titles: str) -> None:
    """All processes of a node, or those whose titles have one of these words."""
    for pid, title in list(processes(folder)):
        if pid != os.getpid() and (not titles or any(word in title for word in titles)):
            os.kill(pid, signal.SIGKILL)


def inside(args: argparse.Namespace) -> None:
    """Within the first namespace."""
    from opsin.serve.ray import Running, parts_of

    settings = {"host": "0.0.0.0", "port": PORT, "threads": 1, "context": 4096, "replicas": 2, "fronts": 2, "apart": 1}
    begin = time.perf_counter()
    with Running(*parts_of(settings), f"{HOSTS[0]}:6379"):
        while True:
            try:
                for host in HOSTS:
                    assert len(figures(PORT, "ready", 2, host)) == 2
                break
            except (OSError, AssertionError):
                time.sleep(1)
        print(f"both up after {time.perf_counter() - begin:.0f} s", flush=True)
        ask_both()
        if args.unplug:
            under_loss("the cable", unplug, 90)
            os._exit(0)
        under_loss("the second machine", lambda: kill(args.inside))
        if args.lose_head:
            under_loss("the head (gcs_server)", lambda: kill(os.environ["RAY_TMPDIR"], "gcs_server"))
            os._exit(0)  # there is no cluster that could be told to end


def ask_both() -> None:
    """Pictures, by turns at both proxies."""
    before = figures(PORT, "pictures_encoded", 2)
    asked = iter([(number, question) for question in "abcd" for number in range(12)])
    heard: Counter[tuple[int, str]] = Counter()

    def client() -> None:
        for number, question in asked:
            status, told, _ = Client(PORT, HOSTS[len(heard) % 2 ^ number % 2]).ask(look(number, question=question))
            heard[status, told.get("x-opsin-replica", "")] += 1

    threads = [threading.Thread(target=client) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    after = figures(PORT, "pictures_encoded", 2)
    made = [after[name] - before[name] for name in after]
    print(f"12 pictures x 4 questions: {sum(made)} encodings {made}, answers {sorted(heard.values())}", flush=True)


def unplug() -> None:
    """Pull the cable while 8 streams come, and say when those of the second machine heard of it."""
    begun, ends = threading.Barrier(9), list[tuple[float, str]]()

    def stream(number: int) -> None:
        lines = Client(PORT, HOSTS[0]).begin(say(f"Go {number}", stream=True, max_tokens=900, ignore_eos=True))
        last = next(lines)
        begun.wait()
        try:
            for line in lines:
                last = line if line.strip() else last
            how = "lost" if b"lost" in last else "whole"
        except OSError:
            how = "silent"
        ends.append((time.perf_counter() - cut, how))

    streams = [threading.Thread(target=stream, args=(number,)) for number in range(8)]
    for one in streams:
        one.start()
    begun.wait()
    cut = time.perf_counter()
    ip("-n", SPACES[1], "link", "set", "opsin1", "down")
    for one in streams:
        one.join()
    print("streams ended:", ", ".join(f"{how} after {at:.1f} s" for at, how in sorted(ends)), flush=True)


def under_loss(what: str, lose: object, seconds: float = 15) -> None:
    """Four clients ask the first machine while something is lost, and for a while more."""
    ended, heard, times = threading.Event(), Counter[int](), []

    def client(number: int) -> None:
        while not ended.is_set():
            begin = time.perf_counter()
            try:
                heard[Client(PORT, HOSTS[0]).ask(look(number) if number % 2 else say(f"{begin}"))[0]] += 1
            except OSError:
                heard[0] += 1
            times.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    time.sleep(3)
    assert callable(lose)
    lose()
    time.sleep(seconds)
    ended.set()
    for one in threads:
        one.join()
    print(
        f"{what} lost: {sum(heard.values())} requests, statuses {dict(heard)}, longest {max(times):.1f} s", flush=True
    )


def main() -> None:
    """Both machines, or what is done within the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lose-head", action="store_true")
    parser.add_argument("--unplug", action="store_true")
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    inside(args) if args.inside else outside(args)


if __name__ == "__main__":
    main()
