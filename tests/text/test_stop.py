"""Stop strings end a text wherever its pieces are cut."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsin.text.stop import StopStrings

ALPHABET = "ab<|"


class Definition:
    """What `StopStrings` does, said without regard to time."""

    def __init__(self, stops: list[str]) -> None:
        self.stops, self.held, self.matched = [stop for stop in stops if stop], "", None

    def push(self, text: str) -> tuple[str, bool]:
        if self.matched is not None:
            return "", True
        text = self.held + text
        found = [(text.find(stop), -len(stop), stop) for stop in self.stops if stop in text]
        if found:
            place, _, self.matched = min(found)
            self.held = ""
            return text[:place], True
        begun = [stop[:length] for stop in self.stops for length in range(1, len(stop))]
        keep = max((len(begin) for begin in begun if text.endswith(begin)), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def finish(self) -> str:
        held, self.held = self.held, ""
        return held


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    watch = StopStrings(stops)
    shown = ""
    for piece in pieces:
        text, stopped = watch.push(piece)
        shown += text
        if stopped:
            return shown, True
    return shown + watch.finish(), False


def test_text_that_may_begin_a_stop_string_waits() -> None:
    watch = StopStrings(["END"])
    assert watch.push("the E") == ("the ", False)
    assert watch.push("N") == ("", False)
    assert watch.push("T") == ("ENT", False)
    assert watch.push(" EN") == (" ", False)
    assert watch.finish() == "EN"


def test_nothing_comes_after_the_stop_string() -> None:
    watch = StopStrings(["END", "\n\n"])
    assert watch.push("a\n") == ("a", False)
    assert watch.push("\nb END") == ("", True)
    assert watch.matched == "\n\n"
    assert watch.push("more") == ("", True)
    assert watch.finish() == ""


@given(st.lists(st.text(ALPHABET, max_size=4), max_size=3), st.lists(st.text(ALPHABET, max_size=5), max_size=8))
def test_pieces_give_what_the_whole_text_gives(stops: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    places = [text.find(stop) for stop in stops if stop and stop in text]
    shown, stopped = run(stops, pieces)
    assert stopped == bool(places)
    if not places:
        assert shown == text
    else:
        # A longer stop string may begin earlier yet be complete only later, after a shorter one has ended the text.
        assert text.startswith(shown)
        assert not any(stop and stop in shown for stop in stops)
        assert len(shown) >= min(places)


@given(
    st.lists(st.one_of(st.text("ab", max_size=8), st.text(ALPHABET, max_size=4)), max_size=6),
    st.lists(st.one_of(st.text("ab", max_size=9), st.text(ALPHABET, max_size=5)), max_size=12),
)
def test_each_piece_gives_what_the_definition_gives(stops: list[str], pieces: list[str]) -> None:
    watch, definition = StopStrings(stops), Definition(stops)
    for piece in pieces:
        assert watch.push(piece) == definition.push(piece)
        assert watch.matched == definition.matched
    assert watch.finish() == definition.finish()


LONG = "".join(random.Random(1).choices("abcdefgh ", k=1000))


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        ([f"{LONG}{number}" for number in range(64)], LONG),
        ([LONG[start:] + "Q" for start in range(64)], LONG),
        (["a" * 60000 + "Q"], "a" * 12000),
        (["ab" * 1000 + "Q", *("ab" * size + "a" * 9 for size in range(63))], "ab" * 2000),
        (["a" * size + "c" for size in range(0, 1024, 16)], "a" * 999 + "b" + "a" * 3000),
    ],
    ids=["one beginning", "ends of one another", "one letter", "two letters", "many"],
)
@pytest.mark.timeout(120)
def test_long_stop_strings_take_a_step_a_character(stops: list[str], text: str) -> None:
    """Twice what is made at once of the longest that a server takes; the definition takes minutes."""
    watch = StopStrings(stops)
    shown = "".join(watch.push(text[start : start + 4])[0] for start in range(0, len(text), 4))
    assert shown + watch.finish() == text
    assert watch.matched is None
