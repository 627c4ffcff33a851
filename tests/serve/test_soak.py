"""A short round of `soak.py`: eight clients at once hear what each hears alone."""

from __future__ import annotations

from long_texts import ask_all
from soak import CLIENTS, idle, serving, soak
from waiting import wait_for

import opsin


def test_eight_clients_at_once_hear_nothing_wrong() -> None:
    with opsin.load(threads=1, vision=False, context=512) as model, serving(None) as (_, port):
        crowd, took = soak(port, lambda text: model.tokenize(text, special=True), 4, sees=True)
        assert crowd.wrong == []
        assert sum(crowd.counts.values()) > CLIENTS
        assert all(0 < status < 500 for _, status in crowd.counts)
        assert took
        wait_for(lambda: idle(port))


def test_long_texts_are_answered_or_refused() -> None:
    with serving(None) as (_, port):
        for _, path, status, _, _ in ask_all(port, 0.02):
            assert status in (200, 400), path
