"""A short round of `mixed_requests.py`: clients of every protocol at once hear what each hears alone."""

from __future__ import annotations

from mixed_requests import Round, left_behind
from soak import idle, serving
from waiting import wait_for


def test_every_protocol_at_once_and_nothing_is_left_behind() -> None:
    with serving(None) as (_, port):
        clients = Round(port, 120)
        clients.run(6)
        assert clients.wrong == []
        assert clients.done == 120
        wait_for(lambda: idle(port))
        wait_for(lambda: left_behind(port) == {})
