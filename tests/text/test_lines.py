"""Texts that end at a line, in pieces of all sizes."""

from __future__ import annotations

import pytest

from opsin.text.lines import LineLimits, Lines

BODY = "f(x):\n    a = 1\n\n    \tb = 2\n  c = 3\n    d"


def written(text: str, size: int, limits: LineLimits, seconds: float = 0.0) -> tuple[str, bool]:
    lines, out = Lines(limits), ""
    for start in range(0, len(text), size):
        shown, ended = lines.push(text[start : start + size], seconds)
        out += shown
        if ended:
            return out, True
    return out, False


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("indent", "whole"),
    [
        (0, True),
        (1, True),
        (2, True),
        (3, "f(x):\n    a = 1\n\n    \tb = 2\n  "),
        (5, "f(x):\n    "),
        (9, "f(x):\n    "),
    ],
)
def test_a_line_that_is_indented_too_little_ends_the_text(size, indent, whole):
    expected = (BODY, False) if whole is True else (whole, True)
    assert written(BODY, size, LineLimits(indent=indent)) == expected


@pytest.mark.parametrize("size", [1, 4, 100])
def test_time_ends_a_text_of_several_lines_alone(size):
    assert written("one line", size, LineLimits(seconds=1.0), 2.0) == ("one line", False)
    out, ended = written("one\ntwo\nthree", size, LineLimits(seconds=1.0), 2.0)
    assert ended and "\n" in out and len(out) <= max(size, 4)
    assert written("one\ntwo", size, LineLimits(seconds=3.0), 2.0) == ("one\ntwo", False)
