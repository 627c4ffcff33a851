"""A model that nobody asks leaves the memory, and comes back for the next request."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
from running_server import Running, running
from waiting import wait_for

import opsin
from opsin.api import Model
from opsin.ops.cpu.arena import Arena

ASKED = {"prompt": "a b", "n_predict": 4, "temperature": 0}


class Loading:
    """Loads a model as often as it is asked to, and counts."""

    def __init__(self, path) -> None:
        self.path, self.made = path, 0

    def __call__(self) -> Model:
        model = opsin.load(self.path, threads=1, context=256, sequences=2)
        self.made += 1
        return model


@pytest.fixture
def loading(quantised_file) -> Loading:
    return Loading(quantised_file)


@pytest.fixture
def server(loading) -> Iterator[Running]:
    with running(loading, name="tiny", sleep_seconds=0.05, close=True) as made:
        yield made


def asleep(server: Running) -> None:
    wait_for(lambda: not server.service.loaded)


def test_it_wakes_for_a_request_and_answers_as_before(server, loading):
    asleep(server)
    before = server.ask("/completion", ASKED).json["content"]
    asleep(server)
    assert server.ask("/completion", ASKED).json["content"] == before
    assert loading.made == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"content": "a"}),
        ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a"}]}),
        ("/tokenizer_info", None),
    ],
)
def test_all_that_needs_the_model_wakes_it(server, loading, path, body):
    asleep(server)
    assert server.ask(path, body).status == 200
    assert loading.made == 2


def test_who_looks_does_not_wake_it(server, loading):
    told = {path: server.ask(path).json for path in ("/v1/models", "/api/tags")}
    asleep(server)
    assert server.ask("/health").status == server.ask("/readyz").status == server.ask("/livez").status == 200
    assert server.ask("/props").json["is_sleeping"]
    assert server.ask("/slots").status == server.ask("/metrics").status == server.ask("/openapi.json").status == 200
    assert {path: server.ask(path).json for path in told} == told
    assert server.ask("/api/ps").json == {"models": []}
    assert server.ask("/api/show", {}).status == 200
    assert loading.made == 1


def arenas() -> set[int]:
    """The memory of all devices of this process, by its place."""
    return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), Arena)}  # asks nothing of lazy ones


def test_its_memory_is_free_as_soon_as_it_sleeps(loading):
    gc.disable()  # Python would look for what is left at some other time
    try:
        before = arenas()
        with running(loading, sleep_seconds=0.05, close=True) as server:
            server.ask("/completion", ASKED)
            wait_for(lambda: not server.service.places._taken)
            assert arenas() <= before
    finally:
        gc.enable()


def test_many_who_wake_it_load_it_once(server, loading):
    asleep(server)
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(server.ask("/completion", ASKED))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status for reply in replies} == {200}
    assert len({reply.json["content"] for reply in replies}) == 1
    assert loading.made == 2


def test_what_was_counted_stays(server):
    server.ask("/completion", ASKED)
    asleep(server)
    counted = [line for line in server.ask("/metrics").body.decode().splitlines() if "predicted_total" in line]
    assert "llamacpp:tokens_predicted_total 4.0" in counted


def test_a_model_that_cannot_be_loaded_again_is_an_error_of_each_request(server, loading):
    asleep(server)
    loading.path = loading.path.with_name("gone.gguf")
    reply = server.ask("/completion", ASKED)
    assert reply.status == 500
    assert "gone.gguf" not in reply.body.decode()
    assert server.ask("/health").status == 200
