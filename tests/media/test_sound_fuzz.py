"""A short round of the fuzzer of sounds, and proof that it notices what it looks for."""

from __future__ import annotations

import fuzz_sounds as fuzz
import pytest

from opsin.errors import RequestError

pytest.importorskip("av")


def test_five_hundred_damaged_sounds_are_refused_or_heard(capfd):
    outcomes = fuzz.run(500, 7)
    capfd.readouterr()  # libmpg123 tells of its troubles
    for kind, _ in fuzz.originals():
        assert outcomes[f"{kind} refused"] + outcomes[f"{kind} sound"] > 5
    assert sum(count for name, count in outcomes.items() if name.endswith("sound")) > 100


@pytest.mark.parametrize(
    ("error", "words"), [(KeyError("frames"), "mutant 0 of seed 7, .*: KeyError"), (RequestError("no"), "no")]
)
def test_another_exception_and_an_error_without_a_way_out_are_noticed(monkeypatch, error, words):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(fuzz, "check_sound", fail)
    with pytest.raises(AssertionError, match=words):
        fuzz.run(5, 7)


def test_memory_that_grows_is_noticed(monkeypatch):
    monkeypatch.setattr(fuzz, "MOST_KILOBYTES", 0)
    with pytest.raises(AssertionError, match="MB more"):
        fuzz.run(5, 7)
