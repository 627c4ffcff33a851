"""A short round of `mixed_sounds.py`: clients who send sounds and videos at once hear what each hears alone."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("av")

from mixed_requests import left_behind
from mixed_sounds import SoundRound, serving_sounds
from soak import idle
from waiting import wait_for


def test_sounds_of_every_kind_at_once_and_nothing_is_left_behind() -> None:
    with serving_sounds() as (_, port):
        clients = SoundRound(port, 60)
        clients.run(6)
        assert clients.wrong == []
        assert clients.done == 60
        wait_for(lambda: idle(port))
        wait_for(lambda: left_behind(port) == {})
