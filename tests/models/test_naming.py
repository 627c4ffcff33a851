"""A family is imported when its source names what a file says: every table finds all its names so."""

from __future__ import annotations

import pytest

from opsin.models import architectures, audio_encoders, dialects, families, hearers, projectors

TABLES = (architectures, projectors, hearers, audio_encoders)


@pytest.mark.parametrize("table", TABLES, ids=[table.__name__ for table in TABLES])
def test_every_name_leads_to_its_families(table) -> None:
    found = table()
    assert found
    assert {name: table(name)[name] for name in found} == found


def test_every_dialect_is_found_by_its_architecture() -> None:
    for entry in dialects():
        assert entry in dialects(entry.architecture)


@pytest.mark.parametrize("table", ["FILMS", "DICTATIONS"])
def test_what_else_a_family_lists_by_name_is_found_so(table: str) -> None:
    listed = [(family, name) for family in families() for name in vars(family).get(table, {})]
    assert listed
    assert all(family in families(name) for family, name in listed)


def test_a_name_that_nobody_has_imports_nothing() -> None:
    assert families("nobody-has-this") == []
