"""Stop strings end a text wherever its pieces are cut."""

from hypothesis import given
from hypothesis import strategies as st

from opsin.text.stop import StopStrings

ALPHABET = "ab<|"


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
