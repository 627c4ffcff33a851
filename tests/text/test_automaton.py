"""Tables match what their patterns match."""

from __future__ import annotations

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.text.automaton import Automaton, Unsupported, compile_pattern
from opsin.text.pretokenizers import PATTERNS

REFUSED = {"aya", "superbpe", "afmoe"}  # they look behind
TEXT = st.text("aA1é \n\r\t.'sLrevÉ漢가ก\u3000\u0301½_/<>:|IMGZ。，", max_size=25) | st.text(max_size=12)


def match(automaton: Automaton, text: str) -> int:
    """The length of the match at the beginning; 0 for none."""
    table = automaton.table
    state, last = table.shape[1], 0
    for place in range(len(text) + 1):
        kind = int(automaton.classes[ord(text[place])]) if place < len(text) else 0
        entry = int(table.reshape(-1)[state + kind])
        if entry & 1:
            last = place
        state = entry >> 1
        if not state:
            return last
    raise AssertionError("nothing follows the end")


MADE = {name: [compile_pattern(p) for p in patterns] for name, patterns in PATTERNS.items() if name not in REFUSED}
MEANT = {name: [regex.compile(p, regex.V1) for p in PATTERNS[name]] for name in MADE}


@settings(deadline=None, max_examples=400)
@given(TEXT)
def test_tables_match_what_patterns_match(text: str) -> None:
    for name, automata in MADE.items():
        for automaton, pattern in zip(automata, MEANT[name], strict=True):
            found = pattern.match(text)
            assert match(automaton, text) == (found.end() if found else 0), (name, pattern.pattern)


@settings(deadline=None, max_examples=200)
@given(
    pattern=st.sampled_from(
        [r"a|ab|abc", r"abc|ab", r"(?:a|ab)(?:c|bcd)", r"a*?b|a" , r"(?:ab?)+b", r"a{2,3}|a", r"a{2}b?", r"[ab]+(?!c)",
         r"[ab]+(?=c)|b", r"a+\Z|aab", r"(?:a*b*)+c", r"\w+(?:\s\w+)*", r"[^\W\d]+", r"(?:a?){3}b"]
    ),
    text=st.text("abcd1 ", max_size=12),
)  # fmt: skip
def test_the_first_alternative_that_matches_wins(pattern: str, text: str) -> None:
    try:
        made = compile_pattern(pattern)
    except Unsupported:
        assert "*?" in pattern
        return
    found = regex.match(pattern, text, regex.V1)
    assert match(made, text) == (found.end() if found else 0)


@pytest.mark.parametrize(
    "pattern", [r"(?<!a)b", r"a++", r"a*", r"(a)", r"a(?!bc)", r"^a", r"a$", r"\bb", "a{2000}", "(?:a"]
)
def test_what_tables_cannot_do_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported):
        compile_pattern(pattern)


def test_patterns_that_look_behind_are_the_only_ones_refused() -> None:
    for name in REFUSED:
        with pytest.raises(Unsupported):
            [compile_pattern(pattern) for pattern in PATTERNS[name]]


def test_characters_that_no_set_tells_apart_share_a_class() -> None:
    automaton = compile_pattern(r"\p{Lu}\p{L}+")
    assert len(np.unique(automaton.classes)) == 3
    assert automaton.classes[ord("A")] == automaton.classes[ord("É")] != automaton.classes[ord("a")]
