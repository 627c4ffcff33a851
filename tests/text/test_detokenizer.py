"""Text comes out in whole characters, whatever the tokens are."""

from opsin.text.detokenizer import Detokenizer

PIECES = [b" Hello", b"\xf0\x9f", b"\x98\x80", b"\xe2\x82", b"x", b" ", b"  a"]


def make(*, strip_space: bool = False) -> Detokenizer:
    return Detokenizer(PIECES.__getitem__, strip_space=strip_space)


def test_character_over_two_tokens_comes_whole() -> None:
    stream = make()
    assert [stream.push(id) for id in (0, 1, 2)] == [" Hello", "", "😀"]
    assert stream.finish() == ""


def test_broken_bytes_become_replacement_characters() -> None:
    stream = make()
    assert stream.push(3) == ""
    assert stream.push(4) == "\ufffdx"


def test_unfinished_character_comes_out_at_the_end() -> None:
    stream = make()
    assert stream.push(1) == ""
    assert stream.finish() == "\ufffd"


def test_only_the_first_leading_space_is_taken() -> None:
    stream = make(strip_space=True)
    assert [stream.push(id) for id in (0, 0, 5)] == ["Hello", " Hello", " "]
    assert make(strip_space=True).push(6) == " a"
