"""Whether it lives and whether it is ready are two questions; what is held while nobody is inside is told."""

from __future__ import annotations

import threading

import pytest
from running_server import running
from test_chat import MESSAGES
from waiting import wait_for

from opsin.serve.keys import ApiKey


def statuses(server) -> tuple[int, ...]:
    return tuple(server.ask(path).status for path in ("/health", "/livez", "/readyz"))


def test_a_server_that_loads_lives_and_is_not_ready(text_model):
    loaded = threading.Event()

    def load():
        loaded.wait()
        return text_model

    with running(load, wait=False, keys=(ApiKey("secret"),)) as made:
        try:
            assert statuses(made) == (503, 200, 503)
            assert made.ask("/readyz").json == {"status": "not model"}
        finally:
            loaded.set()
        wait_for(lambda: statuses(made) == (200, 200, 200))  # and without a key


def test_one_that_ends_is_not_ready(text_model):
    with running(lambda: text_model) as made:
        made.service.state.ending = True
        assert statuses(made) == (200, 200, 503)
        assert made.ask("/readyz?verbose").json["checks"] == {"model": True, "engine": True, "open": False}


def test_one_whose_engine_died_does_not_live(text_model, monkeypatch):
    with running(lambda: text_model) as made:
        monkeypatch.setattr(type(text_model.engine), "is_alive", property(lambda self: False))
        assert statuses(made) == (200, 503, 503)
        assert made.ask("/livez").json == {"status": "not engine"}


def test_after_answers_nothing_is_held(server):
    server.chat(messages=MESSAGES, max_tokens=5)
    wait_for(lambda: server.service.leaked() == {})
    assert server.ask("/readyz?verbose").json["leaked"] == {}


@pytest.mark.parametrize("name", ["pages", "memory_pages"])
def test_what_is_held_while_nobody_is_inside_is_told_once_it_lasts(text_model, complaints, name):
    with running(lambda: text_model) as made:
        pool = text_model.engine.pool if name == "pages" else text_model.engine.memory.pool
        if not pool.count:
            pytest.skip("it has none")
        wait_for(lambda: made.service.leaked() == {})
        held = text_model.engine.call(lambda: pool.take(1))
        try:
            assert made.service.check_leaks() == {}  # may be on its way
            assert made.service.check_leaks() == {name: 1}
            assert made.service.check_leaks() == {name: 1}
            assert len([line for line in complaints if f"'{name}': 1" in line]) == 1
            assert made.ask("/readyz?verbose").json["leaked"] == {name: 1}
            assert b"\nopsin_leaked 1.0\n" in made.ask("/metrics").body
        finally:
            text_model.engine.call(lambda: pool.give_back(held))
        assert made.service.check_leaks() == {}
