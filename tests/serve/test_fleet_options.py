"""How many replicas there are and should be: read of flat settings, refused where it cannot be."""

from __future__ import annotations

import pytest

from opsin.errors import RequestError
from opsin.serve.fleet_options import FleetOptions


def test_settings_are_texts_or_numbers() -> None:
    read = FleetOptions.read({"replicas": "3", "most": 5, "apart": "1", "model": "x", "rows": 100})
    assert read == FleetOptions(replicas=3, most=5, apart=True, rows=100)
    assert FleetOptions.read({}) == FleetOptions()


@pytest.mark.parametrize(
    "wrong", [{"replicas": "two"}, {"replicas": 0}, {"ongoing": "-1"}, {"replicas": 4, "most": 3}, {"rows": 1.5}]
)
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    pytest.raises(RequestError, FleetOptions.read, wrong)


def test_as_many_are_wanted_as_hold_what_waits() -> None:
    fleet = FleetOptions(ongoing=16, rows=4096)
    for rows, requests, wanted in ((0, 0, 0), (0, 1, 1), (0, 17, 2), (4096, 3, 1), (4097, 3, 2), (40_960, 100, 10)):
        assert fleet.wanted(rows, requests) == wanted
