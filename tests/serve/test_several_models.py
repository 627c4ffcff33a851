"""Several models behind one address: a request goes to the one that it names, which is in memory while it is wanted."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from running_server import live
from tiny import tiny_llama
from waiting import hold, wait_for

import opsin
from opsin.errors import FileError
from opsin.serve.keys import ApiKey
from opsin.serve.options import Options
from opsin.serve.registry import ModelRegistry, ModelSource

NAMES = ("ant", "bee", "cow", "dog", "elk")
ASKED = {"prompt": "a b", "n_predict": 4, "temperature": 0}


class Zoo:
    """Five small models, each another one, and what is done with them."""

    def __init__(self, folder) -> None:
        self.paths = {name: tiny_llama(folder / f"{name}.gguf", seed=at) for at, name in enumerate(NAMES)}
        self.loaded, self.most, self.twice = Counter(), 0, False
        self.names, self._now, self._lock = list(NAMES), Counter(), threading.Lock()
        self.models = {}

    def load(self, name: str):
        model = opsin.load(self.paths[name], threads=1, context=256, sequences=4)
        self.models[name] = model
        with self._lock:
            self.loaded[name] += 1
            self._now[name] += 1
            self.twice |= self._now[name] > 1
            self.most = max(self.most, self._now.total())
        close = model.close

        def closing() -> None:
            with self._lock:
                self._now[name] -= 1
            close()

        model.close = closing
        return model

    def alone(self, name: str) -> str:
        with opsin.load(self.paths[name], threads=1, context=256) as model:
            return "".join(model.complete(ASKED["prompt"], max_tokens=4, temperature=0))

    def sources(self, **more: object):
        def need(name: str) -> int:
            if not self.paths[name].exists():
                raise FileError(f"{self.paths[name]} is gone")
            return 1

        return [
            ModelSource(
                name, Options(port=0, name=f"{name}:7b", **more), name, self.paths[name],
                lambda name=name: self.load(name), lambda name=name: need(name),
            )
            for name in self.names
        ]  # fmt: skip

    def serve(self, *, most: int = 3, autoload: bool = True, **more: object):
        options = Options(port=0, **more)
        registry = ModelRegistry(options, lambda: self.sources(**more), most=most, autoload=autoload)
        return live(registry, options, close=True)


@pytest.fixture
def zoo(tmp_path) -> Zoo:
    return Zoo(tmp_path)


def status(server, name: str) -> str:
    return server.ask(f"/v1/models/{name}").json["status"]["value"]


def complete(server, name: str):
    return server.ask("/completion", {**ASKED, "model": name})


def test_two_hundred_requests_over_five_models_in_three_places(zoo):
    alone = {name: zoo.alone(name) for name in NAMES}
    assert len(set(alone.values())) > 2
    asked = random.Random(3).choices(NAMES, k=200)
    with zoo.serve() as server, ThreadPoolExecutor(40) as pool:
        replies = list(pool.map(lambda name: complete(server, name), asked))
        assert {reply.status for reply in replies} == {200}
        assert [reply.json["content"] for reply in replies] == [alone[name] for name in asked]
        assert {reply.json["model"] for reply in replies} == set(NAMES)
        assert server.ask("/readyz").status == 200
        assert server.ask("/metrics").body.decode().count("opsin_leaked 0.0") == 1
    assert not zoo.twice and zoo.most == 3
    assert zoo.loaded.total() < 100  # those who wait for a model come in together


def test_it_is_named_in_every_protocol_by_any_of_its_names(zoo):
    message = [{"role": "user", "content": "a"}]
    with zoo.serve() as server:
        for path, body in (
            ("/v1/chat/completions", {"messages": message, "max_tokens": 2}),
            ("/v1/responses", {"input": "a", "max_output_tokens": 2}),
            ("/v1/messages", {"messages": message, "max_tokens": 2}),
            ("/api/chat", {"messages": message, "stream": False, "options": {"num_predict": 2}}),
            ("/tokenize", {"content": "a"}),
        ):
            for name in ("bee", "bee:7b", "bee:latest"):
                assert server.ask(path, {**body, "model": name}).status == 200, path
        assert server.ask("/tokenizer_info?model=bee").status == server.ask("/props?model=bee").status == 200
        assert server.ask("/api/show", {"model": "cow"}).status == 200
    assert zoo.loaded == {"bee": 1, "cow": 1}


def test_who_names_none_or_another_hears_so_in_the_protocols_shape(zoo):
    with zoo.serve() as server:
        none = server.chat(messages=[])
        assert none.status == 400 and none.json["error"]["param"] == "model" and "ant, bee" in none.body.decode()
        assert complete(server, "gnu").status == 404
        assert server.ask("/v1/messages", {"model": "gnu"}).json["error"]["type"] == "not_found_error"
        assert server.chat(model=7).status == 400
        assert server.ask("/v1/chat/completions", b'{"model": "ant"').status == 400
        assert server.ask("/v1/models/gnu").status == server.ask("/nowhere").status == 404
        assert server.ask("/v1/chat/completions").status == 405
    assert not zoo.loaded


def test_places_are_those_of_the_model_that_is_named(zoo, tmp_path):
    with zoo.serve(slot_path=tmp_path) as server:
        told = server.ask("/completion", {**ASKED, "model": "bee", "ignore_eos": True}).json
        rows = told["tokens_evaluated"] + told["tokens_predicted"] - 1  # the last token was not computed
        saved = server.ask("/slots/0?action=save", {"model": "bee", "filename": "bee.bin"}).json
        assert saved["n_saved"] == rows
        assert server.ask("/slots/0?action=erase&model=bee", b"").json["n_erased"] == rows
        assert server.ask("/slots/0?action=restore", {"model": "ant", "filename": "bee.bin"}).status == 400
        assert server.ask("/slots/0?action=restore", {"model": "bee", "filename": "bee.bin"}).status == 200
        assert server.ask("/slots/0?action=erase", b"").status == 400


def test_lists_tell_all_and_load_none(zoo):
    with zoo.serve() as server:
        assert [entry["id"] for entry in server.ask("/v1/models").json["data"]] == list(NAMES)
        assert [entry["name"] for entry in server.ask("/api/tags").json["models"]] == list(NAMES)
        assert server.ask("/api/ps").json["models"] == []
        assert server.ask("/props").json["role"] == "router"
        assert "/models/load" in server.ask("/openapi.json").json["paths"]
        assert server.ask("/docs").status == server.ask("/health").status == server.ask("/livez").status == 200
        assert server.ask("/props?model=cow&autoload=false").status == 400
        assert not zoo.loaded
        complete(server, "dog")
        assert [entry["name"] for entry in server.ask("/api/ps").json["models"]] == ["dog"]
        known = {entry["id"]: entry for entry in server.ask("/v1/models").json["data"]}
        assert known["dog"]["meta"]["n_ctx"] == 256 and "meta" not in known["ant"]


def test_what_a_model_is_like_is_told_of_one_that_was_never_in_memory(zoo):
    with zoo.serve() as server:
        told = server.ask("/props?model=ant")
        assert told.status == 200 and told.json["model_alias"] == "ant"
        assert zoo.loaded == {"ant": 1}
        assert server.ask("/props?model=ant").json == told.json and zoo.loaded == {"ant": 1}


def test_models_are_loaded_and_unloaded_as_asked(zoo):
    with zoo.serve(autoload=False) as server:
        assert server.ask("/props?model=ant").status == 400
        assert complete(server, "ant").status == 400
        assert server.ask("/models/load", {"model": "ant"}).json == {"success": True}
        wait_for(lambda: status(server, "ant") == "loaded")
        assert complete(server, "ant").status == 200
        assert server.ask("/models/unload", {"model": "ant"}).json == {"success": True}
        wait_for(lambda: status(server, "ant") == "unloaded")
        assert server.ask("/models/load", {"model": "gnu"}).status == 404
        assert server.ask("/models/load", {}).status == 400


@pytest.mark.parametrize("alive", [0, "0s", "5m"])
def test_ollamas_clients_let_a_model_go(zoo, alive):
    with zoo.serve() as server:
        for path, said in (("/api/generate", {}), ("/api/chat", {"messages": []})):
            assert server.ask(path, {"model": "ant", "keep_alive": "5m", **said}).json["done_reason"] == "load"
            told = server.ask(path, {"model": "ant", "keep_alive": alive, **said}).json
            assert told["done_reason"] == ("load" if alive == "5m" else "unload")
            wait_for(lambda: (status(server, "ant") == "loaded") is (alive == "5m"))


def test_an_answer_that_runs_ends_before_its_model_goes(zoo, monkeypatch):
    with zoo.serve(most=1) as server, ThreadPoolExecutor(2) as pool:
        complete(server, "ant")
        let_go = hold(zoo.models["ant"].runner, monkeypatch)
        running = pool.submit(complete, server, "ant")
        ant, bee = server.service.find("ant"), server.service.find("bee")
        wait_for(lambda: ant.active == 1)
        waiting = pool.submit(complete, server, "bee")
        wait_for(lambda: server.service.places.is_loading(bee))
        server.ask("/models/unload", {"model": "ant"})
        assert ant.loaded and not waiting.done()
        let_go.set()
        assert running.result().status == waiting.result().status == 200
        assert status(server, "ant") == "unloaded"


def test_a_client_that_leaves_the_queue_leaves_the_others_their_model(zoo, monkeypatch):
    with zoo.serve(most=1) as server, ThreadPoolExecutor(1) as pool:
        complete(server, "ant")
        let_go = hold(zoo.models["ant"].runner, monkeypatch)
        running = pool.submit(complete, server, "ant")
        ant, bee = server.service.find("ant"), server.service.find("bee")
        wait_for(lambda: ant.active == 1)
        connection = server.connect()
        connection.request("POST", "/completion", json.dumps({**ASKED, "model": "bee"}))
        wait_for(lambda: server.service.places.is_loading(bee))
        connection.close()
        wait_for(lambda: not server.service.places.is_loading(bee))
        let_go.set()
        assert running.result().status == 200
        assert complete(server, "ant").status == 200
    assert zoo.loaded == {"ant": 1}


def test_one_that_cannot_be_loaded_is_an_error_of_its_own_requests(zoo, complaints):
    zoo.paths["bee"].write_bytes(b"GGUF" + bytes(40))
    zoo.paths["cow"].unlink()
    with zoo.serve() as server:
        assert complete(server, "ant").status == 200
        for name in ("bee", "cow"):
            reply = complete(server, name)
            assert reply.status == 500 and str(zoo.paths[name].parent) not in reply.body.decode()
            assert server.ask(f"/v1/models/{name}").json["status"]["failed"] is True
        assert complete(server, "ant").status == 200 and status(server, "ant") == "loaded"
    assert any("cow.gguf is gone" in line for line in complaints)


def test_the_list_can_be_read_anew(zoo):
    with zoo.serve() as server:
        complete(server, "ant")
        complete(server, "bee")
        zoo.names = ["bee", "cow"]
        assert [entry["id"] for entry in server.ask("/models?reload=1").json["data"]] == ["bee", "cow"]
        assert complete(server, "ant").status == 404
        assert complete(server, "bee").status == 200
    assert zoo.loaded == {"ant": 1, "bee": 1}


def test_what_models_counted_stays_when_they_go(zoo):
    def counted(server) -> list[float]:
        told = dict(line.rsplit(" ", 1) for line in server.ask("/metrics").body.decode().splitlines())
        return [float(told[f"llamacpp:{name}"]) for name in ("n_decode_total", "n_busy_slots_per_decode")]

    with zoo.serve(most=1) as server:
        seen = [counted(server)]
        for name in ("ant", "bee", "ant"):
            assert complete(server, name).status == 200
            seen.append(counted(server))
        assert [steps for steps, _ in seen] == sorted({steps for steps, _ in seen})
        assert {share for _, share in seen} == {0.0, 1.0}
        zoo.names.clear()
        server.ask("/models?reload=1")
        wait_for(lambda: not server.service.state._looks)
        assert counted(server) == seen[-1]


def test_keys_and_stored_responses_are_the_servers(zoo):
    with zoo.serve(keys=(ApiKey("secret"),)) as server:
        assert complete(server, "ant").status == 401
        server.headers["Authorization"] = "Bearer secret"
        first = server.ask("/v1/responses", {"model": "ant", "input": "a", "max_output_tokens": 2}).json
        assert server.ask(f"/v1/responses/{first['id']}").json["id"] == first["id"]
        body = {"model": "bee", "input": "b", "previous_response_id": first["id"], "max_output_tokens": 2}
        assert server.ask("/v1/responses", body).status == 200
