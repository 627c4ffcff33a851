"""Arrays of strings, decoded on demand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import ARRAY, STRING, RawFile

from opsin.gguf import File, Strings
from opsin.gguf import cursor as cursor_module


def make_strings(folder: Path, texts: list[bytes], order: str = "<") -> Strings:
    path = RawFile([(b"texts", ARRAY, (STRING, texts))], order=order).save(folder / "texts.gguf")
    with File.open(path) as file:
        value = file.metadata["texts"]
    assert isinstance(value, Strings)
    return value


def test_strings_behave_like_the_list_of_them(tmp_path: Path) -> None:
    strings = make_strings(tmp_path, [b"one", b"", "drei 漢".encode(), b"four"])
    expected = ["one", "", "drei 漢", "four"]
    assert list(strings) == expected
    assert len(strings) == 4
    assert [strings[place] for place in range(-4, 4)] == expected + expected
    assert strings[1:3] == expected[1:3]
    assert strings[::-2] == expected[::-2]
    assert strings == expected
    assert strings == make_strings(tmp_path, [text.encode() for text in expected], ">")
    assert strings != [*expected, "five"]
    assert strings != ["one", "", "drei", "four"]
    assert make_strings(tmp_path, [b"o", b"n", b"e"]) != "one"
    assert strings != 4
    assert "four" in strings
    assert strings.index("four") == 3


@pytest.mark.parametrize("place", [4, -5, 1 << 70])
def test_a_place_outside_is_an_index_error(tmp_path: Path, place: int) -> None:
    strings = make_strings(tmp_path, [b"a", b"b", b"c", b"d"])
    with pytest.raises(IndexError):
        strings[place]


def test_bytes_that_are_not_utf8_come_back_exactly(tmp_path: Path) -> None:
    bad = [b"\xff", b"ok", b"\xed\xa0\x80", b"a\xc3"]
    strings = make_strings(tmp_path, bad)
    assert [strings.raw(place) for place in range(4)] == bad
    assert [text.encode("utf-8", "surrogateescape") for text in strings] == bad
    assert strings[1] == "ok"


def test_a_long_array_shows_its_beginning_only(tmp_path: Path) -> None:
    assert repr(make_strings(tmp_path, [b"x"] * 9)) == "Strings(['x', 'x', 'x', 'x', ...], 9 in all)"
    assert repr(make_strings(tmp_path, [b"x"])) == "Strings(['x'], 1 in all)"


def test_strings_cannot_be_keys(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        hash(make_strings(tmp_path, [b"x"]))


@pytest.mark.parametrize("window", [1, 8, 9, 24, 100, 4096])
@pytest.mark.parametrize("order", ["<", ">"])
def test_any_window_gives_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, order: str
) -> None:
    monkeypatch.setattr(cursor_module, "WINDOW_BYTES", window)
    texts = [b"t" * (number * 7 % 31) for number in range(300)]
    metadata = [
        (b"texts", ARRAY, (STRING, texts)),
        (b"numbers", ARRAY, (5, list(range(300)))),
        (b"last", STRING, b"end"),
    ]
    path = RawFile([*metadata, (b"few", ARRAY, (STRING, [b"a", b"b"])), (b"more", 4, 7)], order=order).save(
        tmp_path / "x"
    )
    with File.open(path) as file:
        assert file.metadata["texts"] == [text.decode() for text in texts]
        assert list(file.get_ints("numbers")) == list(range(300))
        assert (file.get_str("last"), file.get_int("more")) == ("end", 7)
        assert file.metadata["few"] == ["a", "b"]


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_all_bytes_survive(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]) -> None:
    strings = make_strings(tmp_path_factory.mktemp("strings"), texts)
    assert [strings.raw(place) for place in range(len(strings))] == texts
    assert list(strings) == [text.decode("utf-8", "surrogateescape") for text in texts]


@pytest.mark.parametrize("order", ["<", ">"])
@given(
    texts=st.lists(st.binary(max_size=3) | st.sampled_from([b"\0" * 9, b"\xc2", b"a" * 127, b"b" * 128, b"c" * 300]))
)
def test_all_at_once_are_those_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, order: str, texts: list[bytes]
) -> None:
    strings = make_strings(tmp_path_factory.mktemp("texts"), texts, order)
    assert strings.tolist() == [text.decode("utf-8", "surrogateescape") for text in texts]
