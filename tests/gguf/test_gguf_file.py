"""The view over a file: typed answers, raw blocks, many threads, files that change underneath."""

from __future__ import annotations

import os
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import pytest
from raw_gguf import ARRAY, STRING, RawFile, RawTensor, every_value, f32

from opsin.errors import FileError
from opsin.gguf import File, cursor, write
from opsin.gguf.open_file import OpenFile


@pytest.fixture
def every(tmp_path: Path) -> Path:
    return RawFile([*every_value(), (b"one", 4, 1)], [f32(b"a", 0, 4)]).save(tmp_path / "every.gguf")


def test_numbers_are_read_whatever_their_width(every: Path) -> None:
    with File.open(every) as file:
        assert [file.get_int(f"s{kind}") for kind in (0, 1, 2, 3)] == [255, -128, 65535, -32768]
        assert [file.get_int(f"s{kind}") for kind in (4, 5, 10, 11)] == [2**32 - 1, -(2**31), 2**64 - 1, -(2**63)]
        assert [file.get_float(key) for key in ("s6", "s12", "s0")] == [0.5, 1e300, 255.0]
        assert type(file.get_float("s0")) is float
        assert file.get_bool("s7") is True
        assert file.get_bool("one") is True
        assert file.get_str("s8") == "naïve 漢字 🙂"
        assert file.get_str("empty.string") == ""


def test_arrays_are_read_whatever_their_width(every: Path) -> None:
    with File.open(every) as file:
        assert file.get_ints("a1").tolist() == [-128, 0, 1]
        assert file.get_ints("a1").dtype == np.int64
        assert file.get_floats("a12").tolist() == [1e300, 0.0, 1.0]
        assert file.get_floats("a0").tolist() == [255.0, 0.0, 1.0]
        assert file.get_floats("a6").dtype == np.float64
        assert file.get_bools("a7").tolist() == [True, False, True]
        assert file.get_strs("a8")[1] == "token"
        for key in ("empty.numbers", "empty.strings"):  # an empty list has no type that matters
            assert [len(get(key)) for get in (file.get_ints, file.get_floats, file.get_bools, file.get_strs)] == [0] * 4


def test_defaults_answer_for_missing_keys_only(every: Path) -> None:
    with File.open(every) as file:
        assert file.get_int("none", 7) == 7
        assert file.get_float("none", 0.5) == 0.5
        assert file.get_bool("none", False) is False
        assert file.get_str("none", "") == ""
        assert file.get_ints("none", [1, 2]).tolist() == [1, 2]
        assert file.get_ints("none", ()).dtype == np.int64
        assert file.get_floats("none", [1]).dtype == np.float64
        assert file.get_bools("none", [True]).tolist() == [True]
        assert file.get_strs("none", ["a"]) == ["a"]
        with pytest.raises(FileError, match="key 's8' is 'naïve"):
            file.get_int("s8", 7)


GETTERS = ["get_int", "get_float", "get_bool", "get_str", "get_ints", "get_floats", "get_bools", "get_strs"]


@pytest.mark.parametrize("getter", GETTERS)
def test_a_required_key_is_missed(every: Path, getter: str) -> None:
    with File.open(every) as file, pytest.raises(FileError, match=r"every\.gguf has no key 'x\.y'") as caught:
        getattr(file, getter)("x.y")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("getter", "keys"),
    [
        ("get_int", ["s6", "s7", "s8", "a7", "a8"]),
        ("get_float", ["s7", "s8", "a7"]),
        ("get_bool", ["s0", "s6", "s8", "a7"]),
        ("get_str", ["s4", "s7", "a8"]),
        ("get_ints", ["s4", "a6", "a7", "a8", "a10"]),
        ("get_floats", ["s6", "a7", "a8"]),
        ("get_bools", ["s7", "a0", "a6", "a8"]),
        ("get_strs", ["s8", "a4", "s4"]),
    ],
)
def test_a_wrong_type_is_named(every: Path, getter: str, keys: list[str]) -> None:
    with File.open(every) as file:
        for key in keys:
            with pytest.raises(FileError, match=f"every.gguf: key '{key}' is .*, not a"):
                getattr(file, getter)(key)


def test_a_long_value_is_cut_in_the_error(tmp_path: Path) -> None:
    with (
        File.open(RawFile([(b"k", STRING, b"x" * 5000)]).save(tmp_path / "a")) as file,
        pytest.raises(FileError) as caught,
    ):
        file.get_int("k")
    assert len(caught.value.message) < 300 + len(str(tmp_path))


def test_a_tensor_is_read_whole_or_in_part(every: Path) -> None:
    expected = f32(b"a", 0, 4).data
    with File.open(every) as file:
        assert file.read("a").tobytes() == expected
        buffer = np.zeros((2, 10), np.uint8)
        file.read_into("a", buffer, 37)
        assert buffer.tobytes() == expected[37:57]
        file.read_into("a", np.empty(0, np.uint8), 128)
        file.read("a")[:] = 0
        assert file.read("a").tobytes() == expected


@pytest.mark.parametrize(("first", "count"), [(-1, 4), (125, 4), (0, 129), (1 << 70, 0)])
def test_bytes_outside_a_tensor_are_refused(every: Path, first: int, count: int) -> None:
    with File.open(every) as file, pytest.raises(FileError, match="tensor 'a' has 128 bytes"):
        file.read_into("a", np.empty(count, np.uint8), first)


def test_buffers_of_other_kinds_are_our_mistake(every: Path) -> None:
    with File.open(every) as file:
        for buffer in (np.empty(4, np.int8), np.empty(8, np.uint8)[::2]):
            with pytest.raises(AssertionError):
                file.read_into("a", buffer)  # type: ignore[arg-type]


def test_an_unknown_tensor_is_named(every: Path) -> None:
    with File.open(every) as file, pytest.raises(FileError, match="has no tensor 'b'"):
        file.read("b")


def test_a_closed_file_keeps_its_metadata_only(every: Path) -> None:
    file = File.open(every)
    file.close()
    file.close()
    assert file.metadata["a8"] == ["", "token", "漢", "\udcff\udcfe bad"]
    with pytest.raises(FileError, match=r"every\.gguf is closed"):
        file.read("a")


def test_views_cannot_be_changed(every: Path) -> None:
    with File.open(every) as file:
        with pytest.raises(TypeError):
            file.metadata["x"] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            del file.tensors["a"]  # type: ignore[attr-defined]


class SlowSeek:
    """A stream that gives way between finding a place and reading there."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.readinto, self.close = stream.readinto, stream.close  # type: ignore[attr-defined]

    def seek(self, place: int) -> None:
        self._stream.seek(place)
        time.sleep(1e-4)


@pytest.mark.parametrize("portable", [False, True])
def test_many_threads_read_the_right_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portable: bool) -> None:
    if portable:
        monkeypatch.delattr(os, "preadv")
    noise = np.random.default_rng(0).integers(0, 256, (40, 4096), np.uint8)
    tensors = [RawTensor(b"t%d" % row, [4096], 24, 4096 * row, noise[row].tobytes()) for row in range(40)]
    with File.open(RawFile([], tensors).save(tmp_path / "many.gguf")) as file, ThreadPoolExecutor(8) as pool:
        if portable:
            monkeypatch.setattr(file._headers[0].part, "_stream", SlowSeek(file._headers[0].part._stream))
        for row, blocks in zip(
            [*range(40)] * 10, pool.map(file.read, [f"t{row}" for row in range(40)] * 10), strict=True
        ):
            assert np.array_equal(blocks, noise[row])


def test_a_file_cut_short_while_open_is_an_error(every: Path) -> None:
    with File.open(every) as file:
        os.truncate(every, file.tensors["a"].offset + 100)
        with pytest.raises(FileError, match="the file ends at byte .*, 28 bytes too early"):
            file.read("a")
        buffer = np.empty(100, np.uint8)
        file.read_into("a", buffer)
        assert buffer.tobytes() == f32(b"a", 0, 4).data[:100]


def test_a_failing_disk_is_an_error(every: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    with File.open(every) as file:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(FileError, match="reading at byte .* failed: Input/output error"):
            file.read("a")


def test_short_reads_are_continued(every: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, place: honest(fd, [buffers[0][:7]], place))
    with File.open(every) as file:
        assert file.read("a").tobytes() == f32(b"a", 0, 4).data
        assert file.metadata["s8"] == "naïve 漢字 🙂"


def test_a_file_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = RawFile([(b"bad", 99, 1)]).save(tmp_path / "bad.gguf")
    closed: list[Path] = []
    honest = OpenFile.close
    monkeypatch.setattr(OpenFile, "close", lambda part: (closed.append(part.path), honest(part)))
    with pytest.raises(FileError):
        File.open(path)
    assert closed == [path]


def test_a_large_vocabulary_opens_small(tmp_path: Path) -> None:
    words = [f"word{number:x}" for number in range(262_144)]
    merges = [f"{number:x} {number * 7:x}" for number in range(500_000)]
    arrays = {"scores": np.arange(262_144, dtype=np.float32), "token_type": np.ones(262_144, np.int32)}
    path = tmp_path / "vocabulary.gguf"
    write(path, {"tokens": words, "merges": merges, **arrays}, [])
    tracemalloc.start()
    try:
        with File.open(path) as file:
            assert tracemalloc.get_traced_memory()[1] < 1.55 * path.stat().st_size
            assert file.metadata["tokens"] == words
            assert file.get_strs("merges")[-1] == merges[-1]
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(120)  # seconds; 30,000 copies of 32 MiB take far longer
def test_many_small_arrays_do_not_each_copy_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "WINDOW_BYTES", 1 << 26)
    metadata = [(b"key%d" % number, ARRAY, (STRING, [b"a", b"b"])) for number in range(30_000)]
    path = RawFile(metadata, [RawTensor(b"a", [1 << 25], 24, 0, bytes(1 << 25))]).save(tmp_path / "many.gguf")
    with File.open(path) as file:
        assert len(file.metadata) == 30_000


def test_a_file_beyond_four_gigabytes_is_read(tmp_path: Path) -> None:
    numbers = np.arange(8, dtype="<f4").tobytes()
    tensors = [f32(b"near"), RawTensor(b"far", [8], 0, 5 << 30, numbers)]
    path = RawFile([(b"words", ARRAY, (STRING, [b"a", b"bc"]))], tensors).save(tmp_path / "large.gguf")
    start = path.stat().st_size - 32
    with path.open("r+b") as stream:  # a hole, which takes no place on the disk
        stream.seek(start + (5 << 30))
        stream.write(numbers)
    with File.open(path) as file:
        assert file.metadata["words"] == ["a", "bc"]
        assert file.read("far").tobytes() == numbers
        assert file.tensors["far"].offset == start + (5 << 30)


@pytest.mark.model
def test_a_real_model_reads_as_gguf_py_reads_it(smollm2: Path) -> None:
    path = smollm2
    theirs = gguf.GGUFReader(path)
    with File.open(path) as file:
        fields = {key: value for key, value in theirs.fields.items() if not key.startswith("GGUF.")}
        assert list(file.metadata) == list(fields)
        for key, value in file.metadata.items():
            expected = fields[key].contents()
            assert (list(value) if isinstance(expected, list) else value) == expected, key  # type: ignore[arg-type]
        assert list(file.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            info = file.tensors[tensor.name]
            assert (info.type, info.offset, info.nbytes) == (tensor.tensor_type, tensor.data_offset, tensor.n_bytes)
            assert list(info.shape[::-1]) == tensor.shape.tolist()
            assert np.array_equal(file.read(tensor.name), np.asarray(tensor.data).reshape(-1).view(np.uint8))
