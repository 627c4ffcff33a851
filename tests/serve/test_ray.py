"""Replicas on Ray Serve, on one machine: what a fleet must bear, with a tiny model that sees."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_requests import Client, figures, lasting, look, say
from ray_fleet import RayFleet, processes, ray_fleet
from running_server import running
from tiny_sight import tiny_pair
from waiting import until

import opsin

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'opsin[ray]'")
LONG = {"llama.context_length": 1 << 15}
REPLICA = "ray::ServeReplica:opsin:Replica"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ray")
    tiny_pair(made, metadata=LONG)
    return made


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[RayFleet]:
    """Two replicas, each with places for 8 requests, and 64 that may wait."""
    settings = {"model": str(folder / "model.gguf"), "threads": 1, "context": 1 << 17, "sequences": 8, "name": "tiny"}
    with ray_fleet(free_port(), **settings, replicas=2, ongoing=8, queued=64, drain_seconds=60) as made:
        yield made


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def crowd(count: int, ask: Callable[[int], object], *, until_set: threading.Event | None = None) -> list[object]:
    """What so many clients heard, each on a thread; again and again until the event is set."""
    heard: list[object] = []

    def client(number: int) -> None:
        while True:
            heard.append(ask(number))
            if until_set is None or until_set.is_set():
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    return heard


def status(port: int, body: dict[str, object]) -> tuple[int, str]:
    """How a request ended; what the client's own side says of a broken connection."""
    try:
        code, headers, said = Client(port).ask(body)
    except Exception as error:  # noqa: BLE001 - a failed request is what is counted
        return 0, repr(error)
    return code, headers.get("retry-after", "") if code != 200 else ""


def meanwhile(clients: int, ask: Callable[[int], object], do: Callable[[], None]) -> list[object]:
    """What a crowd heard that asked again and again while something was done."""
    done, heard = threading.Event(), list[object]()
    asking = threading.Thread(target=lambda: heard.extend(crowd(clients, ask, until_set=done)))
    asking.start()
    try:
        do()
    finally:
        done.set()
        asking.join(300)
    return heard


def under_load(fleet: RayFleet, do: Callable[[], None]) -> Counter[object]:
    """How all requests of four clients ended while something was done to the fleet. Half of them have pictures."""
    numbers = iter(range(10**6))

    def ask(number: int) -> tuple[int, str]:
        return status(fleet.port, look(next(numbers) % 6) if number % 2 else say(f"Hi {next(numbers)}"))

    return Counter(meanwhile(4, ask, do))


def test_answers_are_those_of_one_server_to_the_byte(fleet: RayFleet, folder: Path) -> None:
    bodies = [look(number, stream=stream) for number in range(5) for stream in (False, True)]
    bodies += [say(f"Hi {number}", stream=stream, logprobs=True) for number in range(5) for stream in (False, True)]
    load = lambda: opsin.load(folder / "model.gguf", threads=1, context=1 << 17, sequences=8)  # noqa: E731
    with running(load, close=True, name="tiny") as alone:
        for body in bodies:
            expected, got = Client(alone.port).ask(body), Client(fleet.port).ask(body)
            assert (got[0], lasting(got[2])) == (expected[0], lasting(expected[2]))
    assert len(bodies) == 20


def test_twelve_pictures_and_four_questions_are_twelve_encodings(fleet: RayFleet) -> None:
    asked = [(number, question) for question in "abcd" for number in range(100, 112)]
    for keyed, most in ((True, 12), (False, None)):
        before, replies = figures(fleet.port, "pictures_encoded", 2), iter(asked)

        def ask(_: int, replies: Iterator[tuple[int, str]] = replies, keyed: bool = keyed) -> None:
            for number, question in replies:  # of a list: threads may share it
                body = look(number + (0 if keyed else 100), question)
                own = {} if keyed else {"X-Opsin-Key": f"{number} {question}"}  # as good as none
                assert Client(fleet.port).ask(body, **own)[0] == 200

        crowd(3, ask)
        after = figures(fleet.port, "pictures_encoded", 2)
        made = {name: after[name] - before[name] for name in after}
        assert sum(made.values()) == 12 if most else sum(made.values()) > 18, made
        assert all(made.values())


def test_while_one_replica_is_full_the_other_answers_all(fleet: RayFleet) -> None:
    key = {"X-Opsin-Key": "held"}
    home = Client(fleet.port).ask(say("Hi"), **key)[1]["x-opsin-replica"]
    # Two of them go to the other one, since nobody takes much more than the mean.
    bodies = [say(f"Hold {number}", stream=True, max_tokens=30_000, ignore_eos=True) for number in range(10)]
    held = [Client(fleet.port).begin(body, **key) for body in bodies]
    try:
        for stream in held:
            next(stream)
        replies = [Client(fleet.port).ask(look(number), **key) for number in range(300, 306)]
    finally:
        for stream in held:
            stream.close()
    assert [reply[0] for reply in replies] == [200] * 6
    assert home not in {reply[1]["x-opsin-replica"] for reply in replies}
    assert until(lambda: sum(figures(fleet.port, "requests_inside", 2).values()) == 0)


def test_clients_that_leave_end_their_answers(fleet: RayFleet) -> None:
    before = sum(figures(fleet.port, "requests_cancelled_total", 2).values())
    streams = [
        Client(fleet.port).begin(say(f"Go {number}", stream=True, max_tokens=30_000, ignore_eos=True))
        for number in range(8)
    ]
    for stream in streams:
        next(stream)
    left = time.monotonic()
    for stream in streams:
        stream.close()
    assert until(lambda: sum(figures(fleet.port, "requests_inside", 2).values()) == 0)
    print(f"8 dropped streams were over after {time.monotonic() - left:.2f} s")
    assert sum(figures(fleet.port, "requests_cancelled_total", 2).values()) - before >= 8
    assert until(lambda: sum(figures(fleet.port, "pages_used", 2).values()) == 0)


def test_too_many_at_once_hear_503_and_when_to_come_again(fleet: RayFleet) -> None:
    heard = Counter(
        crowd(160, lambda number: status(fleet.port, say(f"Crowd {number}", max_tokens=40, ignore_eos=True)))
    )
    assert set(heard) <= {(200, ""), (503, "2")}, heard
    assert heard[200, ""] >= 80, heard
    print(heard)


def test_a_replica_that_is_killed_costs_no_request_that_had_no_answer_yet(fleet: RayFleet) -> None:
    assert len(fleet.pids(REPLICA)) == 2
    broken: list[bytes] = []
    ended: list[float] = []
    killed = 0.0

    def stream(number: int) -> None:
        body = say(f"Long {number}", stream=True, max_tokens=4000, ignore_eos=True)
        broken.append(b"".join(Client(fleet.port).begin(body)))
        if b"lost" in broken[-1]:
            ended.append(time.monotonic())

    streams = [threading.Thread(target=stream, args=(number,)) for number in range(6)]
    for one in streams:
        one.start()
    assert until(lambda: sum(figures(fleet.port, "requests_processing", 2).values()) >= 4)

    def kill() -> None:
        nonlocal killed
        (victim, _) = fleet.pids(REPLICA)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        assert until(lambda: victim not in fleet.pids(REPLICA))
        assert until(lambda: len(figures(fleet.port, "ready", 2)) == 2)

    assert set(under_load(fleet, kill)) == {(200, "")}
    for one in streams:
        one.join(120)
    assert len(broken) == 6
    ends = [body.strip().splitlines()[-1] for body in broken]
    assert all(end == b"data: [DONE]" or b"the replica that answered was lost" in end for end in ends), ends
    assert any(b"lost" in end for end in ends)
    print(f"{len(ended)} streams ended with an error, the last {max(ended) - killed:.2f} s after their replica's end")


def test_from_two_replicas_to_one_and_back_no_request_fails(fleet: RayFleet) -> None:
    def change() -> None:
        fleet.change(replicas=1)
        assert until(lambda: len(fleet.pids(REPLICA)) == 1)
        fleet.change(replicas=2)

    assert set(under_load(fleet, change)) == {(200, "")}
    assert len(figures(fleet.port, "ready", 2)) == 2


def test_another_model_comes_while_answers_go_on(fleet: RayFleet, tmp_path: Path) -> None:
    tiny_pair(tmp_path, metadata=LONG)
    newer = {"model": str(tmp_path / "model.gguf"), "name": "newer"}
    assert set(under_load(fleet, lambda: fleet.change(**newer))) == {(200, "")}
    assert until(lambda: {json.loads(Client(fleet.port).ask(say("Hi"))[2])["model"] for _ in range(8)} == {"newer"})


def test_another_replica_comes_where_rows_of_prompts_wait(fleet: RayFleet) -> None:
    fleet.change(replicas=1, most=2, rows=64)
    assert until(lambda: len(fleet.pids(REPLICA)) == 1)
    words, numbers = "word " * 3000, iter(range(10**6))

    def grow() -> None:
        assert until(lambda: len(figures(fleet.port, "ready", 2)) == 2)

    heard = meanwhile(3, lambda _: status(fleet.port, say(f"{next(numbers)} {words}")), grow)
    assert set(heard) == {(200, "")}
    fleet.change(most=0, replicas=2)


@pytest.mark.parametrize("part", ["ray::ServeController", "ray::ProxyActor"])
def test_what_ray_itself_loses_it_starts_anew(fleet: RayFleet, part: str) -> None:
    (victim,) = fleet.pids(part)
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: fleet.pids(part) not in ([], [victim]))
    assert until(lambda: status(fleet.port, say("Hi"))[0] == 200)


def test_the_command_starts_replicas_and_leaves_no_process(folder: Path) -> None:
    port = free_port()
    command = ["serve", "-m", folder / "model.gguf", "--replicas", 1, "-t", 1, "--port", port, "-c", 256, "-np", 2]
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as own:
        process = subprocess.Popen(
            [sys.executable, "-m", "opsin", *map(str, command)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RAY_TMPDIR": own},
        )  # fmt: skip
        assert process.stderr is not None
        said = [next(process.stderr)]
        while "ready" not in said[-1]:
            said.append(next(process.stderr))
        assert f"http://127.0.0.1:{port}/" in said[-1]
        assert Client(port).ask(say("Hi"))[0] == 200
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(60) == 0
        process.stderr.close()
        assert until(lambda: not list(processes(own)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ray-address", "auto"], "--ray-address without --replicas"),
        (["--replicas", "2", "--models-dir", "/tmp"], "--models-dir with --replicas"),
        (["--replicas", "2", "--host", "a.sock"], "replicas behind a.sock"),
        (["--replicas", "3", "--max-replicas", "2"], "at most 2 of 3 replicas"),
    ],
)
def test_what_replicas_cannot_have_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from opsin.cli import main

    assert main.run(["serve", *arguments]) == 2
    assert said in capsys.readouterr().err
