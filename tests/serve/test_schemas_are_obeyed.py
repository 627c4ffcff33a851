"""A short round of `obey_schemas.py`; by hand it asks for all of JSON Schema's test suite and a thousand more."""

from __future__ import annotations

import pytest
from made_schemas import Case, made, suite
from obey_schemas import examine
from running_server import running

import opsin


@pytest.fixture(scope="module")
def nano_server():
    with opsin.load(context=1024, sequences=16) as model, running(lambda: model, name="nano") as server:
        yield server


def test_schemas_by_chance_are_obeyed_or_refused_by_name(nano_server):
    found = examine(nano_server, [*made(24, seed=7)], tokens=250, tries=1)["made"]
    assert found["wrong"] == 0
    assert found["obeyed"] >= 16
    assert found["refused"] > 0


def test_schemas_of_the_test_suite_are_obeyed_or_refused_by_name(nano_server):
    cases = suite()
    if isinstance(cases, str):
        pytest.skip(cases)
    assert len(cases) == 254 + 368
    found = examine(nano_server, cases[::16], tokens=250, tries=1)
    assert all(outcomes["wrong"] == 0 for outcomes in found.values())
    assert all(outcomes["obeyed"] > 5 for outcomes in found.values())


def test_what_does_not_obey_is_seen(nano_server, capsys, monkeypatch):
    import obey_schemas

    monkeypatch.setattr(obey_schemas, "_streamed", lambda events: ("5", "stop"))
    found = examine(nano_server, [Case("made 0", {"type": "boolean"})], tokens=20)["made"]
    assert (found["wrong"], found["obeyed"]) == (1, 1)
    assert "'5' does not obey" in capsys.readouterr().out
