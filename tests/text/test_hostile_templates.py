"""Templates that a generator makes take little time and memory. `hostile_templates.py` makes as many as one likes."""

from __future__ import annotations

import hostile_templates


def test_hostile_templates_take_little_time_and_memory() -> None:
    taken = list(hostile_templates.measured(120, seed=7))
    assert [str(one) for one in taken if one.is_too_much] == []
    assert sum(one.end.endswith("characters") for one in taken) > 5  # some get through to their end
    assert len({one.end for one in taken}) > 30  # and others end in many ways


def test_what_takes_too_much_is_seen() -> None:
    assert hostile_templates.Taken("", seconds=1.1, bytes=0, end="").is_too_much
    assert hostile_templates.Taken("", seconds=0, bytes=201 << 20, end="").is_too_much
    assert not hostile_templates.Taken("", seconds=0.9, bytes=199 << 20, end="").is_too_much
