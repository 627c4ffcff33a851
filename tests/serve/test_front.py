"""A front and its replicas within one process: answers as one server gives them, lost replicas, clients that leave.

What carries requests between them on a cluster is tried in `test_ray.py`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import uvicorn
from fleet_requests import Client, figure, figures, lasting, look, say
from running_server import Running, running
from starlette.applications import Starlette
from tiny_sight import tiny_pair
from waiting import until

import opsin
from opsin.api import Model
from opsin.serve.affine import Homes
from opsin.serve.factory import Served, ServedModel, ServedModels
from opsin.serve.front import LostError, build_front
from opsin.serve.keys import ApiKey
from opsin.serve.options import Options
from opsin.serve.replica import Begun, Relayed, Replica
from opsin.serve.route_key import route_key


@dataclass
class Carrier:
    """Carries requests to replicas, and loses some: after so many parts, those of `lost` in their order."""

    replicas: dict[str, Replica] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    models: tuple[str, ...] = ()  # several, of which a replica keeps one
    asked: list[tuple[str, str, Relayed]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    async def ask(self, asked: Relayed, body: bytes, key: str, model: str) -> AsyncGenerator[Begun | bytes, None]:
        loads = {name: float(one.service.active) for name, one in self.replicas.items()}
        (name, *_) = Homes.of(self.models, loads, 1).choose(model, key, loads)
        self.asked.append((name, key, asked))
        left = self.lost.pop(0) if self.lost else -1
        parts = self.replicas[name].ask(asked, body)
        try:
            while left != 0:
                left -= 1
                yield await anext(parts)
            raise LostError
        except StopAsyncIteration:
            return
        except GeneratorExit:
            self.gone.append(name)
            raise
        finally:
            await parts.aclose()


@contextmanager
def fleet(folder: Path, carrier: Carrier, **options: object) -> Iterator[int]:
    """The port of a front over two replicas, on a thread."""
    settings = Options(host="127.0.0.1", **options)
    served: Served = ServedModel(settings, partial(_load, folder))
    if carrier.models:
        served = several(folder, carrier.models, settings)
    app = build_front(settings, carrier.ask, models=served.names)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        for name in ("a", "b"):
            carrier.replicas[name] = Replica(served, name)
            await carrier.replicas[name].start()
        yield
        for replica in carrier.replicas.values():
            await replica.close()

    app.router.lifespan_context = life
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def several(folder: Path, models: Sequence[str], options: Options) -> ServedModels:
    """Models of these names below a folder, of which a replica has one at once."""
    paths = {name: {"model": str(folder / name / "model.gguf")} for name in models}
    loading = {"threads": 1, "context": 512, "sequences": 4}
    return replace(ServedModels.read({"models": paths, "models_max": 1, **loading}), options=options)


def _load(folder: Path) -> Model:
    return opsin.load(folder / "model.gguf", threads=1, context=512, sequences=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fleet")
    tiny_pair(made)
    return made


@pytest.fixture(scope="module")
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture(scope="module")
def front(folder: Path, carrier: Carrier) -> Iterator[int]:
    with fleet(folder, carrier, name="tiny") as port:
        yield port


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Running]:
    with running(partial(_load, folder), close=True, name="tiny") as made:
        yield made


BODIES = [
    *(look(number, stream=stream) for number in (1, 2) for stream in (False, True)),
    *(say(text, stream=stream, logprobs=True) for text in ("Hi", "Who?") for stream in (False, True)),
    *({"prompt": "Once", "n_predict": 5, "temperature": 0, "stream": stream} for stream in (False, True)),
    {}, {"messages": 5}, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": "x"},
    {"messages": [{"role": "user", "content": "x" * 9000}]},
]  # fmt: skip


def test_answers_and_errors_are_those_of_one_server_to_the_byte(front: int, alone: Running) -> None:
    one, many = Client(alone.port), Client(front)
    asked = [(body, "/completion" if "prompt" in body else "/v1/chat/completions") for body in BODIES]
    asked += [
        (
            {"model": "tiny", "max_tokens": 3, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]},
            "/v1/messages",
        )
    ]
    asked += [({"model": "tiny", "prompt": "Hi", "options": {"num_predict": 3, "temperature": 0}}, "/api/chat")]
    asked += [
        ({"content": "Hi"}, "/tokenize"),
        ({}, "/no/such/path"),
        (None, "/v1/models"),
        (None, "/v1/chat/completions"),
    ]
    for body, path in asked:
        expected, got = one.ask(body, path), many.ask(body, path)
        assert got[0] == expected[0], (body, got)
        assert lasting(got[2]) == lasting(expected[2]), body
        assert got[1]["content-type"] == expected[1]["content-type"]
        assert got[1].get("retry-after") == expected[1].get("retry-after")
        if body:
            assert got[1].get("x-opsin-key", "") == route_key(body)
            assert got[1]["x-opsin-replica"] in ("a", "b")


def test_each_picture_is_encoded_once_and_at_both_replicas_there_are_some(front: int, carrier: Carrier) -> None:
    before = figures(front, "pictures_encoded", 2)
    client = Client(front)
    for question in ("What?", "Where?", "Why?"):
        for number in range(10, 22):
            assert client.ask(look(number, question=question))[0] == 200
    after = figures(front, "pictures_encoded", 2)
    assert sum(after.values()) - sum(before.values()) == 12
    assert all(after[name] > before[name] for name in "ab")
    assert len({name for name, key, _ in carrier.asked if key == route_key(look(10))}) == 1


def test_a_client_may_say_the_key(front: int, carrier: Carrier) -> None:
    keys = [f"conversation {number}" for number in range(8)]
    for key in keys:
        _, headers, _ = Client(front).ask(say("Hi"), **{"X-Opsin-Key": key})
        assert headers["x-opsin-key"] == key and carrier.asked[-1][:2] == (headers["x-opsin-replica"], key)
    assert {name for name, key, _ in carrier.asked if key in keys} == {"a", "b"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_replica_is_lost_before_it_said_anything_is_asked_again(
    front: int, carrier: Carrier, alone: Running, stream: bool
) -> None:
    carrier.lost.append(0)
    before = len(carrier.asked)
    status, _, body = Client(front).ask(say("Hi", stream=stream))
    assert status == 200 and len(carrier.asked) == before + 2
    assert lasting(body) == lasting(Client(alone.port).ask(say("Hi", stream=stream))[2])


def test_it_is_asked_again_once(front: int, carrier: Carrier) -> None:
    carrier.lost += [0, 0]
    before = len(carrier.asked)
    status, headers, body = Client(front).ask(say("Hi"))
    assert status == 503 and headers["retry-after"] and len(carrier.asked) == before + 2
    assert "another one, too" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_a_stream_whose_replica_is_lost_ends_with_an_error_of_its_protocol(
    front: int, carrier: Carrier, path: str
) -> None:
    carrier.lost.append(2)
    before = len(carrier.asked)
    _, _, body = Client(front).ask(say("Hi", stream=True, model="tiny"), path)
    last = body.strip().splitlines()[-1].removeprefix(b"data: ")
    assert "the replica that answered was lost" in json.dumps(json.loads(last)["error"])
    assert len(carrier.asked) == before + 1


def test_a_replica_that_is_lost_after_a_whole_answer_is_no_loss(
    front: int, carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    carrier.lost.append(1)
    before, client = len(carrier.asked), Client(front, keep=True)
    assert client.ask(say("Hi"))[0] == client.ask(say("Hi"))[0] == 200  # the second on the same connection
    client.close()
    assert len(carrier.asked) == before + 2 and not caplog.records


def test_a_client_that_leaves_ends_its_answer_at_the_replica(front: int, carrier: Carrier) -> None:
    stream = Client(front).begin(say("Hi", stream=True, max_tokens=400, ignore_eos=True))
    next(stream)
    assert until(lambda: any(one.service.active for one in carrier.replicas.values()))
    stream.close()
    assert until(lambda: not any(one.service.active for one in carrier.replicas.values()))
    cancelled = sum(figures(front, "requests_cancelled_total", 2).values())
    assert cancelled >= 1


def test_what_one_replica_keeps_is_refused_with_what_to_do(front: int) -> None:
    for path in ("/v1/files", "/slots", "/v1/responses/resp_1", "/models/load"):
        status, _, body = Client(front).ask(path=path)
        assert status == 501 and "pictures and conversations whole" in json.loads(body)["error"]["message"]
    assert Client(front).ask({"input": "Hi"}, "/v1/responses/input_tokens")[0] == 200
    assert json.loads(Client(front).ask(path="/livez")[2]) == {"status": "ok"}
    assert Client(front).ask(path="/readyz")[0] == 200


def test_the_front_checks_keys_and_the_replicas_know_whose_requests_they_are(folder: Path) -> None:
    keys = (ApiKey("secret-1", "ann"), ApiKey("secret-2", "bob"))
    carrier = Carrier()
    with fleet(folder, carrier, keys=keys) as port:
        assert Client(port).ask(say("Hi"))[0] == 401 and not carrier.asked
        for secret in ("secret-1", "secret-2"):
            assert Client(port).ask(say("Hi"), Authorization=f"Bearer {secret}")[0] == 200
        (_, _, ann), (_, _, bob) = carrier.asked
        assert (ann.key, bob.key) == ("ann", "bob") and ann.tenant != bob.tenant and "" not in (ann.tenant, bob.tenant)
        assert Client(port).ask(say("Hi" * (1 << 20)), Authorization="Bearer secret-1")[0] == 400
        status, _, told = Client(port).ask(path="/metrics", Authorization="Bearer secret-1")
        assert status == 200 and figure(told, "pictures_encoded") == 0


def test_each_of_several_models_is_asked_where_it_is_kept_and_loaded_on_demand(tmp_path: Path) -> None:
    names = ("ant", "bee")
    for name in names:
        (tmp_path / name).mkdir()
        tiny_pair(tmp_path / name, metadata={"general.name": name})
    carrier = Carrier(models=names)
    with fleet(tmp_path, carrier) as port:
        asked = [(look(number, question=word), name) for number in range(6) for word in "ab" for name in names]
        for body, name in asked:
            status, _, said = Client(port).ask({**body, "model": name + ":latest" * ("b" in str(body))})
            assert status == 200 and json.loads(said)["model"] == name
        homes = {name: {at for at, _, asked in carrier.asked[index::2]} for index, name in enumerate(names)}
        assert sorted(map(len, homes.values())) == [1, 1] and homes["ant"] != homes["bee"]
        assert figures(port, "pictures_encoded", 2) == {"a": 6, "b": 6}
        listed = json.loads(Client(port).ask(path="/v1/models")[2])["data"]
        assert [one["id"] for one in listed] == [*names]
        assert Client(port).ask(say("Hi", model="cow"))[0] == 404
        assert "ant, bee" in json.loads(Client(port).ask(say("Hi"))[2])["error"]["message"]
        assert json.loads(Client(port).ask(path="/props?model=bee")[2])["model_alias"] == "bee"
        (left,) = homes["bee"]
        del carrier.replicas[left]  # the other one must take its model in
        for name in names:
            status, headers, said = Client(port).ask(say("Hi", model=name))
            assert status == 200 and json.loads(said)["model"] == name and headers["x-opsin-replica"] != left


def test_a_replica_that_drains_says_so_and_ends_its_answers(folder: Path) -> None:
    async def whole() -> None:
        replica = Replica(ServedModel(Options(drain_seconds=60), partial(_load, folder)), "a")
        await replica.start()
        request = Relayed("POST", "/v1/chat/completions", b"", ((b"content-type", b"application/json"),), None, "one")
        running = asyncio.ensure_future(_all(replica, request, json.dumps(say("Hi", max_tokens=60)).encode()))
        while not replica.service.active:
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(replica.service.drain(60))
        while not replica.service.state.ending:
            await asyncio.sleep(0)
        assert (await _all(replica, Relayed("GET", "/readyz", b"", (), None, "two"), b""))[0].status == 503
        assert (await running)[0].status == 200 and await closing is True
        await replica.service.close()

    asyncio.run(whole())


async def _all(replica: Replica, asked: Relayed, body: bytes) -> list[Begun | bytes]:
    return [part async for part in replica.ask(asked, body)]
