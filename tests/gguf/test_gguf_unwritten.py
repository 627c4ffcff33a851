"""Files that nobody has written: read as those that `write` makes, byte for byte, and made piece by piece."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from opsin.errors import FileError
from opsin.gguf import File, MadeRows, NewTensor, Typed, ValueType, open_unwritten, write

KEYS = {
    "general.architecture": "llama",
    "a.number": 7,
    "a.float": 0.1,
    "a.list": Typed(ValueType.INT32, [1, 2]),
    "a.text": ["one", "two"],
    "a.flag": True,
}
VALUES = np.arange(7 * 33, dtype=np.float32).reshape(7, 33)
BLOCKS = np.arange(4 * 2 * 34, dtype=np.uint8).reshape(4, 68)  # Q8_0, rows of two blocks


class Counted:
    """Tensors, and what was asked of them."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self.made = 0

    def some(self, first: int, last: int) -> np.ndarray:
        self.rows.append((first, last))
        return BLOCKS[first:last].reshape(-1)

    def whole(self) -> np.ndarray:
        self.made += 1
        return VALUES.reshape(-1).view(np.uint8)

    def tensors(self) -> list[NewTensor]:
        pieces = [VALUES[:3].reshape(-1).view(np.uint8), VALUES[3:].reshape(-1).view(np.uint8)]
        return [
            NewTensor.of("plain", np.float32([1, 2, 3])),
            NewTensor("rows", (4, 64), 8, MadeRows(self.some)),
            NewTensor("whole", (7, 33), 0, self.whole),
            NewTensor("pieces", (7, 33), 0, lambda: iter(pieces)),
        ]


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def made(counted: Counted) -> File:
    return open_unwritten(Path("somewhere"), KEYS, counted.tensors())


def test_it_says_and_holds_what_the_written_file_does(tmp_path: Path, counted: Counted, made: File) -> None:
    write(tmp_path / "a.gguf", KEYS, counted.tensors())
    with File.open(tmp_path / "a.gguf") as file:
        assert made.types == file.types and list(made.metadata) == list(file.metadata)
        for key, value in file.metadata.items():
            assert np.array_equal(made.metadata[key], value) and type(made.metadata[key]) is type(value)
        assert dict(made.tensors) == dict(file.tensors)
        for name in file.tensors:
            assert np.array_equal(made.read(name), file.read(name))
    assert (made.path, made.paths) == (Path("somewhere"), ())


def test_any_bytes_of_rows_may_be_read(made: File) -> None:
    flat = BLOCKS.reshape(-1)
    for first in range(0, flat.size, 7):
        for count in (0, 1, 68, 69, flat.size - first):
            buffer = np.empty(min(count, flat.size - first), np.uint8)
            made.read_into("rows", buffer, first)
            assert np.array_equal(buffer, flat[first : first + buffer.size])


def test_no_more_rows_are_made_than_are_read(counted: Counted, made: File) -> None:
    assert counted.rows == []
    made.read_into("rows", np.empty(68, np.uint8), 68)
    made.read_into("rows", np.empty(2, np.uint8), 2 * 68 - 1)
    assert counted.rows == [(1, 2), (1, 3)]


def test_rows_are_made_some_at_a_time(monkeypatch: pytest.MonkeyPatch, counted: Counted, made: File) -> None:
    monkeypatch.setattr("opsin.gguf.unwritten._PIECE", 70)
    buffer = np.empty(3 * 68 + 5, np.uint8)
    made.read_into("rows", buffer, 30)
    assert np.array_equal(buffer, BLOCKS.reshape(-1)[30 : 30 + buffer.size])
    assert counted.rows == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_what_is_made_whole_is_kept_until_another_is_read(counted: Counted, made: File) -> None:
    for first in (0, 100, 50):
        buffer = np.empty(60, np.uint8)
        made.read_into("whole", buffer, first)
        assert np.array_equal(buffer, VALUES.reshape(-1).view(np.uint8)[first : first + 60])
    assert counted.made == 1
    made.read("rows")
    made.read("whole")
    assert counted.made == 1
    made.read("pieces")
    made.read("whole")
    assert counted.made == 2


def test_the_sources_are_closed_by_the_last_reader(counted: Counted) -> None:
    closed: list[int] = []
    one = open_unwritten(Path("x"), KEYS, counted.tensors(), sources=[Path("y")], close=lambda: closed.append(1))
    two = one.again()
    assert one.paths == two.paths == (Path("y"),)
    one.close()
    one.close()
    assert closed == [] and two.read("plain").nbytes == 12
    with pytest.raises(FileError, match="x is closed"):
        one.read("plain")
    two.close()
    assert closed == [1]


def test_many_threads_read_what_one_does(made: File) -> None:
    names = ["rows", "whole", "pieces", "plain"] * 20
    wanted = {name: made.read(name).tobytes() for name in set(names)}
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: made.read(name).tobytes(), names)) == [wanted[name] for name in names]


def test_what_cannot_be_written_cannot_be_opened(counted: Counted) -> None:
    with pytest.raises(FileError, match="'a' cannot be written"):
        open_unwritten(Path("x"), {"a": []}, [])
    with pytest.raises(FileError, match="is given twice"):
        open_unwritten(Path("x"), KEYS, [*counted.tensors(), *counted.tensors()])
