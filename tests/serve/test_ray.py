"""Replicas on Ray Serve, on one machine: what a fleet must bear, with a tiny model that sees."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet_requests import Client, figures, lasting, look, say
from ray_fleet import RayFleet, processes, ray_fleet
from running_server import running
from tiny_sight import tiny_pair
from waiting import until

import opsin

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'opsin[ray]'"),
    pytest.mark.timeout(1200),  # a test takes seconds; all of them four minutes, mostly of waiting: they begin first
]
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
LONG = {"llama.context_length": 1 << 15}
PICTURES = 400  # of a request that is encoded for a while
SILENT = {"263": 100}  # <|im_start|> is no text
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


def under_load(fleet: RayFleet, do: Callable[[], None], **more: object) -> Counter[object]:
    """How all requests of four clients ended while something was done to the fleet. Half of them have pictures."""
    numbers = iter(range(10**6))

    def ask(number: int) -> tuple[int, str]:
        body = look(next(numbers) % 6, **more) if number % 2 else say(f"Hi {next(numbers)}", **more)
        return status(fleet.port, body)

    return Counter(meanwhile(4, ask, do))


def test_answers_are_those_of_one_server_to_the_byte(fleet: RayFleet, folder: Path) -> None:
    bodies = [look(number, stream=stream) for number in range(5) for stream in (False, True)]
    bodies += [say(f"Hi {number}", stream=stream, logprobs=True) for number in range(5) for stream in (False, True)]
    load = lambda: opsin.load(folder / "model.gguf", threads=1, context=1 << 17, sequences=8)  # noqa: E731
    with running(load, close=True, name="tiny") as alone:
        for body in bodies:
            expected, got = Client(alone.port).ask(body), Client(fleet.port).ask(body)
            assert (got[0], lasting(got[2])) == (expected[0], lasting(expected[2]))
        long = {"content": "a" * (5 << 20)}  # of what carries messages some have limits of 4 MB
        assert Client(fleet.port).ask(long, "/tokenize")[::2] == Client(alone.port).ask(long, "/tokenize")[::2]
    assert len(bodies) == 20


def test_twelve_pictures_and_four_questions_are_twelve_encodings(fleet: RayFleet) -> None:
    asked = [(number, question) for question in "abcd" for number in range(100, 112)]
    for keyed, most in ((True, 12), (False, None)):
        before, replies = figures(fleet.port, "pictures_encoded", 2), iter(asked)

        def ask(_: int, replies: Iterator[tuple[int, str]] = replies, keyed: bool = keyed) -> None:
            for number, question in replies:  # of a list: threads may share it
                body = look(number + (0 if keyed else 100), question=question)
                own = {} if keyed else {"X-Opsin-Key": f"{number} {question}"}  # as good as none
                assert Client(fleet.port).ask(body, **own)[0] == 200

        crowd(3, ask)
        after = figures(fleet.port, "pictures_encoded", 2)
        made = {name: after[name] - before[name] for name in after}
        assert sum(made.values()) == 12 if most else sum(made.values()) > 18, made
        assert all(made.values())


@contextmanager
def held(fleet: RayFleet, count: int, **key: str) -> Iterator[None]:
    """So many streams go on meanwhile."""
    bodies = [say(f"Hold {number}", stream=True, max_tokens=30_000, ignore_eos=True) for number in range(count)]
    streams = [Client(fleet.port).begin(body, **key) for body in bodies]
    try:
        for stream in streams:
            next(stream)
        yield
    finally:
        for stream in streams:
            stream.close()


def test_while_one_replica_is_full_the_other_answers_all(fleet: RayFleet) -> None:
    key = {"X-Opsin-Key": "held"}
    home = Client(fleet.port).ask(say("Hi"), **key)[1]["x-opsin-replica"]
    with held(fleet, 10, **key):  # two of them go to the other one, since nobody takes much more than the mean
        replies = [Client(fleet.port).ask(look(number), **key) for number in range(300, 306)]
    assert [reply[0] for reply in replies] == [200] * 6
    assert home not in {reply[1]["x-opsin-replica"] for reply in replies}
    assert until(lambda: sum(figures(fleet.port, "requests_inside", 2).values()) == 0)


@pytest.mark.parametrize("when", ["after their first text", "before it", "while their pictures are encoded"])
def test_clients_that_leave_end_their_answers(fleet: RayFleet, when: str) -> None:
    def total(name: str) -> int:
        return sum(figures(fleet.port, name, 2).values())

    cancelled, encoded = total("requests_cancelled_total"), total("pictures_encoded")
    endless = {"stream": True, "max_tokens": 20_000, "ignore_eos": True}
    seen = when.endswith("encoded")
    clients = [Client(fleet.port) for _ in range(4 if seen else 8)]
    for number, client in enumerate(clients):
        silent = {} if when.startswith("after") else {"logit_bias": SILENT}
        album = range(1000 * (number + 1), 1000 * (number + 1) + PICTURES)
        client.send(look(*album, **endless) if seen else say(f"{when}: {number}", **endless, **silent))
    if when.startswith("after"):
        lines = [client.lines() for client in clients]
        assert all(next(line) for line in lines)
    elif seen:
        assert until(lambda: total("pictures_encoded") > encoded)
    else:
        assert until(lambda: total("requests_processing") == len(clients))
    left = time.monotonic()
    for client in clients:
        client.close()
    assert until(lambda: total("requests_inside") == 0)
    print(f"{len(clients)} streams dropped {when} were over after {time.monotonic() - left:.2f} s")
    assert total("requests_cancelled_total") - cancelled == len(clients)
    assert total("pictures_encoded") - encoded < PICTURES * len(clients)
    assert until(lambda: total("pages_used") == total("pictures_pinned") == total("leaked") == 0)


def test_too_many_at_once_hear_503_and_when_to_come_again(fleet: RayFleet) -> None:
    heard, began = list[tuple[int, str]](), time.monotonic()
    asking = threading.Thread(
        target=crowd, args=(160, lambda number: heard.append(status(fleet.port, say(f"Crowd {number}"))))
    )
    with held(fleet, 16):  # all places of both replicas
        asking.start()
        assert until(lambda: len(heard) == 160 - 64)
    asking.join(300)
    assert Counter(heard) == {(200, ""): 64, (503, "2"): 96}
    print(f"160 at once where all places were taken: the last was heard after {time.monotonic() - began:.1f} s")


def keys_of_both(fleet: RayFleet, count: int) -> list[str]:
    """So many keys that lead to each of two replicas."""
    found: dict[str, list[str]] = {}
    numbers = iter(range(1000))
    while len(found) < 2 or min(map(len, found.values())) < count:
        key = f"key {next(numbers)}"
        found.setdefault(
            Client(fleet.port).ask(path="/health", **{"X-Opsin-Key": key})[1]["x-opsin-replica"], []
        ).append(key)
    return [key for keys in found.values() for key in keys[:count]]


def test_a_replica_that_is_killed_costs_no_request_that_had_no_answer_yet(fleet: RayFleet) -> None:
    assert len(fleet.pids(REPLICA)) == 2
    broken: list[bytes] = []
    ended: list[float] = []
    begun: set[str] = set()
    killed = 0.0

    def stream(key: str) -> None:
        body, lines = say(f"Long {key}", stream=True, max_tokens=4000, ignore_eos=True), b""
        for line in Client(fleet.port).begin(body, **{"X-Opsin-Key": key}):
            lines += line
            begun.add(key)
        broken.append(lines)
        if b"lost" in lines:
            ended.append(time.monotonic())

    streams = [threading.Thread(target=stream, args=(key,)) for key in keys_of_both(fleet, 3)]
    for one in streams:
        one.start()
    assert until(lambda: len(begun) == 6)

    def kill() -> None:
        nonlocal killed
        (victim, _) = fleet.pids(REPLICA)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        assert until(lambda: victim not in fleet.pids(REPLICA))
        assert until(lambda: len(figures(fleet.port, "ready", 2)) == 2)
        print(f"two replicas again {time.monotonic() - killed:.1f} s after one was killed")

    assert set(under_load(fleet, kill)) == {(200, "")}
    for one in streams:
        one.join(120)
    assert len(broken) == 6
    ends = [body.strip().splitlines()[-1] for body in broken]
    assert all(end == b"data: [DONE]" or b"the replica that answered was lost" in end for end in ends), ends
    assert any(b"lost" in end for end in ends)
    print(f"{len(ended)} streams ended with an error, the last {max(ended) - killed:.2f} s after their replica's end")


def test_from_two_replicas_to_one_and_back_where_rows_of_prompts_wait_no_request_fails(fleet: RayFleet) -> None:
    def shrink() -> None:
        fleet.change(replicas=1)
        assert until(lambda: len(fleet.pids(REPLICA)) == 1)

    def grow() -> None:
        fleet.change(replicas=1, most=2, rows=64)
        assert until(lambda: len(figures(fleet.port, "ready", 2)) == 2)

    assert set(under_load(fleet, shrink)) == {(200, "")}
    words, numbers = "word " * 3000, iter(range(10**6))
    assert set(meanwhile(3, lambda _: status(fleet.port, say(f"{next(numbers)} {words}")), grow)) == {(200, "")}


@pytest.mark.parametrize("part", ["ray::ServeController", "ray::ProxyActor"])
def test_what_ray_itself_loses_it_starts_anew(fleet: RayFleet, part: str) -> None:
    (victim,) = fleet.pids(part)
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: fleet.pids(part) not in ([], [victim]))
    assert until(lambda: status(fleet.port, say("Hi"))[0] == 200)


def test_several_models_come_while_answers_go_on_and_each_is_kept_at_one_replica(
    fleet: RayFleet, tmp_path: Path
) -> None:
    def ask(name: str, number: int, question: str) -> tuple[str, str]:
        status, headers, said = Client(fleet.port).ask(look(number, question=question, model=name))
        assert status == 200 and json.loads(said)["model"] == name
        return name, headers["x-opsin-replica"]

    names = ("ant", "bee")
    for name in names:
        (tmp_path / name).mkdir()
        tiny_pair(tmp_path / name, metadata=LONG)
    models = {name: {"model": str(tmp_path / name / "model.gguf")} for name in names}
    settings = {"models": models, "models_max": 1, "model": None, "name": None, "replicas": 2, "most": 0}
    assert set(under_load(fleet, lambda: fleet.change(**settings), model="ant")) == {(200, "")}
    assert until(lambda: status(fleet.port, say("Hi"))[0] == 400)  # no replica is left that has one model
    encoded = figures(fleet.port, "pictures_encoded", 2)
    homes = {ask(name, number, word) for number in range(500, 506) for word in "ab" for name in names}
    assert len(homes) == len({replica for _, replica in homes}) == 2
    after = figures(fleet.port, "pictures_encoded", 2)
    assert [after[name] - encoded[name] for name in after] == [6, 6]
    assert status(fleet.port, say("Hi", model="cow"))[0] == 404


@pytest.mark.parametrize("command", ["opsin serve", "serve run"])
def test_commands_start_replicas_and_leave_no_process(folder: Path, tmp_path: Path, command: str) -> None:
    port, told = free_port(), tmp_path / "told"
    run: list[object] = [sys.executable, "-m", "opsin", "serve", "-m", folder / "model.gguf", "--replicas", 2, "-t", 1]
    run += ["--port", port, "-c", 256, "-np", 2]
    if command == "serve run":
        run = [
            Path(sys.executable).with_name("serve"),
            "run",
            as_the_page_has_it(folder, tmp_path / "opsin.yaml", port),
        ]
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as own:
        surroundings = {**os.environ, "RAY_TMPDIR": own, "RAY_USAGE_STATS_ENABLED": "0"}
        with told.open("w") as out:
            process = subprocess.Popen([*map(str, run)], stdout=out, stderr=out, env=surroundings)
        assert until(lambda: process.poll() is not None or status(port, say("Hi"))[0] == 200)
        assert process.poll() is None, told.read_text()
        if command == "opsin serve":
            assert until(lambda: f"ready. A page to try it: http://127.0.0.1:{port}/" in told.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, told.read_text()
        assert until(lambda: not list(processes(own)))


def as_the_page_has_it(folder: Path, file: Path, port: int) -> Path:
    """docs/scale.md's YAML for a file, for one small replica that everybody may ask."""
    import yaml

    (text, *_) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    read = yaml.safe_load(text)
    args = read["applications"][0]["args"]
    args |= {"model": str(folder / "model.gguf"), "threads": 1, "replicas": 1, "most": 0, "fronts": 1, "context": 256}
    del args["api_key"]
    file.write_text(yaml.safe_dump({**read, "http_options": {"port": port}}))
    return file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ray-address", "auto"], "--ray-address without --replicas"),
        (["--replicas", "2", "--models-dir", "/tmp", "--no-models-autoload"], "--no-models-autoload with --replicas"),
        (["--replicas", "2", "--host", "a.sock"], "replicas behind a.sock"),
        (["--replicas", "3", "--max-replicas", "2"], "at most 2 of 3 replicas"),
    ],
)
def test_what_replicas_cannot_have_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from opsin.cli import main

    assert main.run(["serve", *arguments]) == 2
    assert said in capsys.readouterr().err
