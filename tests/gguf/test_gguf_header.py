"""Damaged headers: each is refused with the file, the key or tensor, the value, and what to do."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from raw_gguf import ARRAY, STRING, RawFile, RawTensor, every_value, f32

from opsin.errors import FileError
from opsin.gguf import File
from opsin.gguf import cursor as cursor_module
from opsin.gguf import header as header_module

HUGE = 1 << 60


def refuse(path: Path, complaint: str) -> FileError:
    with pytest.raises(FileError, match=complaint) as caught:
        File.open(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


BAD_METADATA: list[tuple[list[tuple[bytes, int, Any]], str]] = [
    ([(b"twice", 4, 1), (b"twice", 4, 2)], "key 'twice' appears twice"),
    ([(b"", 4, 1)], "metadata key 0 has 0 bytes"),
    ([(b"k" * 65536, 4, 1)], "metadata key 0 has 65536 bytes; 1 to 65535"),
    ([(b"ok", 4, 1), (b"bad\xff", 4, 1)], r"metadata key 1 is b'bad\\xff', which is not UTF-8"),
    ([(b"strange", 13, 1)], "key 'strange' has the unknown value type 13"),
    ([(b"nested", ARRAY, (ARRAY, []))], "key 'nested' is an array of arrays"),
    ([(b"strange", ARRAY, (77, []))], "key 'strange' has the unknown value type 77"),
    ([(b"flag", 7, 2)], "key 'flag' is 2, not a boolean"),
    ([(b"flags", ARRAY, (7, [0, 1, 200]))], "key 'flags' holds 200, not a boolean"),
    ([(b"general.alignment", 4, 0)], "'general.alignment' is 0, not a power of two"),
    ([(b"general.alignment", 4, 48)], "'general.alignment' is 48, not a power of two"),
    ([(b"general.alignment", 5, -32)], "'general.alignment' is -32, not a power of two"),
    ([(b"general.alignment", 7, 1)], "'general.alignment' is True, not a power of two"),
    ([(b"general.alignment", STRING, b"32")], "'general.alignment' is '32', not a power of two"),
]


@pytest.mark.parametrize(("metadata", "complaint"), BAD_METADATA)
def test_bad_metadata_is_refused(tmp_path: Path, metadata: list[tuple[bytes, int, Any]], complaint: str) -> None:
    refuse(RawFile(metadata).save(tmp_path / "bad.gguf"), complaint)


BAD_TENSORS: list[tuple[list[RawTensor], str]] = [
    ([f32(b"a"), f32(b"a", 32)], "tensor 'a' appears twice"),
    ([f32(b"")], "a tensor name has 0 bytes"),
    ([f32(b"n" * 64)], "a tensor name has 64 bytes; 1 to 63"),
    ([f32(b"\xc3")], "which is not UTF-8"),
    ([RawTensor(b"a", [1] * 5, 0, 0)], "tensor 'a' has 5 dimensions"),
    ([RawTensor(b"a", [8, 0], 0, 0)], r"tensor 'a' has the impossible shape \[0, 8\]"),
    ([RawTensor(b"a", [1 << 63, 2], 0, 0)], "tensor 'a' has the impossible shape"),
    ([RawTensor(b"a", [(1 << 64) - 8], 0, 0)], "tensor 'a' has the impossible shape"),
    ([RawTensor(b"a", [1 << 32, 1 << 32], 0, 0)], "tensor 'a' has the impossible shape"),
    ([RawTensor(b"a", [HUGE], 0, 0)], "tensor 'a' ends at byte"),
    ([RawTensor(b"a", [33], 2, 0)], "tensor 'a' has rows of 33 elements, no multiple of the 32 of Q4_0"),
    ([RawTensor(b"a", [32], 4, 0)], "tensor 'a' has the unknown type 4"),
    ([RawTensor(b"a", [32], 31, 0)], "tensor 'a' has the unknown type 31"),
    ([RawTensor(b"a", [8], 0, 8, bytes(32))], "tensor 'a' has the offset 8, no multiple of 32"),
    ([RawTensor(b"a", [8], 0, HUGE)], "tensor 'a' ends at byte"),
    ([f32(b"a"), RawTensor(b"b", [8], 0, (1 << 64) - 32)], "tensor 'b' ends at byte"),
    ([f32(b"a", 0, 2), f32(b"b", 32)], "tensors 'a' and 'b' overlap at byte"),
    ([f32(b"b", 32), f32(b"a", 0, 2)], "tensors 'a' and 'b' overlap at byte"),
    ([f32(b"a"), f32(b"b")], "overlap"),
]


@pytest.mark.parametrize(("tensors", "complaint"), BAD_TENSORS)
def test_bad_tensors_are_refused(tmp_path: Path, tensors: list[RawTensor], complaint: str) -> None:
    refuse(RawFile([], tensors).save(tmp_path / "bad.gguf"), complaint)


@pytest.mark.parametrize("count", [30, 1 << 20, 1 << 62, (1 << 64) - 1])
def test_counts_beyond_the_file_are_refused(tmp_path: Path, count: int) -> None:
    refuse(RawFile([(b"k", 4, 1)], key_count=count).save(tmp_path / "a"), f"{count} metadata keys do not fit in the")
    refuse(RawFile([], [f32()], tensor_count=count).save(tmp_path / "b"), f"{count} tensors do not fit")


def test_endless_dimensions_are_refused_before_they_are_read(tmp_path: Path) -> None:
    raw = RawFile([], [RawTensor(b"abc", [7, 7, 7], 0, 0)]).to_bytes()
    path = tmp_path / "bad.gguf"
    at = raw.index(b"abc") + 3
    path.write_bytes(raw[:at] + struct.pack("<I", (1 << 32) - 1) + raw[at + 4 :])
    refuse(path, f"tensor 'abc' has {(1 << 32) - 1} dimensions, more than 4")


@pytest.mark.parametrize("what", ["MAX_KEYS", "MAX_TENSORS"])
def test_more_entries_than_any_model_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = RawFile([(b"a", 4, 1), (b"b", 4, 2)], [f32(b"a"), f32(b"b", 32)]).save(tmp_path / "many.gguf")
    monkeypatch.setattr(header_module, what, 1)
    refuse(path, "2 .* are more than the 1 that we read")


@pytest.mark.parametrize("length", [5, 1 << 27, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("place", ["key", "string", "first element", "last element"])
def test_lengths_beyond_the_file_are_refused(tmp_path: Path, length: int, place: str) -> None:
    raw = RawFile([(b"aaaa", STRING, b"bbbb"), (b"cc", ARRAY, (STRING, [b"xxx", b"yyy", b"zzz"]))]).to_bytes()
    text = {"key": b"aaaa", "string": b"bbbb", "first element": b"xxx", "last element": b"zzz"}[place]
    at = raw.index(text) - 8
    path = tmp_path / "bad.gguf"
    path.write_bytes((raw[:at] + struct.pack("<Q", length) + raw[at + 8 :]).rstrip(b"\0"))
    complaint = refuse(path, "byte").message
    if length > 5 and "element" in place:
        assert f"key 'cc': string {2 if place == 'last element' else 0}" in complaint


@pytest.mark.parametrize("inner", [0, 8, 12])
def test_arrays_longer_than_the_file_are_refused(tmp_path: Path, inner: int) -> None:
    raw = RawFile([(b"list", ARRAY, (inner, []))]).to_bytes()
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw[: raw.index(b"list") + 12] + struct.pack("<Q", HUGE))
    refuse(path, f"key 'list' has {HUGE} elements, which do not fit in the 0 bytes left")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = RawFile(every_value(), [f32(b"a", 0, 2), f32(b"b", 64)]).to_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        refuse(path, "byte|empty")


def test_an_endless_string_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor_module, "MAX_STRING_BYTES", 8)
    path = RawFile([(b"text", STRING, b"nine char")]).save(tmp_path / "long.gguf")
    refuse(path, "key 'text' has 9 bytes, but 8 are left or allowed")


@pytest.mark.parametrize(("version", "shown"), [(1, 1), (4, 4), (0, 0), (1 << 24, 1), (5 << 24, 5)])
def test_other_versions_are_refused(tmp_path: Path, version: int, shown: int) -> None:
    refuse(RawFile(version=version).save(tmp_path / "old.gguf"), f"of GGUF version {shown}; we read 2 and 3")


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"GGUF")
    refuse(path, "has only 4 bytes")
    path.write_bytes(b"PK\3\4" + bytes(60))
    refuse(path, "is not a GGUF file: it is a zip archive")
    with pytest.raises(FileError, match="is no path: .*embedded null"):
        File.open("a\0b.gguf")
    refuse(tmp_path / "nothing", "cannot be opened: No such file")
    refuse(tmp_path, "is a folder, not a file")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_value_type_is_read(tmp_path: Path, version: int, order: str) -> None:
    metadata = every_value()
    path = RawFile(metadata, [f32()], order, version).save(tmp_path / "all.gguf")
    with File.open(path) as file:
        assert list(file.metadata) == [key.decode() for key, _, _ in metadata]
        for key, kind, value in metadata:
            inner, expected = value if kind == ARRAY else (kind, value)
            found = file.metadata[key.decode()]
            if inner == STRING and kind == ARRAY:
                assert found == [text.decode("utf-8", "surrogateescape") for text in expected]
            elif inner == STRING:
                assert found == expected.decode()
            elif kind == ARRAY:
                assert isinstance(found, cursor_module.np.ndarray) and found.tolist() == expected
            else:
                assert found == expected
            assert file.types[key.decode()] == inner
        assert file.metadata["s7"] is True
        assert type(file.metadata["s6"]) is float


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    with File.open(RawFile(every_value()).save(tmp_path / "a.gguf")) as file:
        for key in ("a0", "a5", "a7"):
            with pytest.raises(ValueError, match="read-only"):
                file.metadata[key][0] = 1  # type: ignore[index]


def test_gaps_and_any_order_of_tensors_are_read(tmp_path: Path) -> None:
    tensors = [f32(b"late", 512), f32(b"early", 64)]
    with File.open(RawFile([(b"general.alignment", 4, 64)], tensors, alignment=64).save(tmp_path / "gap.gguf")) as file:
        assert list(file.tensors) == ["late", "early"]
        assert file.tensors["late"].offset == file.tensors["early"].offset + 448
        assert file.read("late").tobytes() == file.read("early").tobytes() == tensors[0].data


def test_shapes_are_rows_first(tmp_path: Path) -> None:
    tensors = [RawTensor(b"conv", [2, 3, 4, 1], 24, 0, bytes(24)), RawTensor(b"one", [], 24, 32, b"\7")]
    with File.open(RawFile([], tensors).save(tmp_path / "shape.gguf")) as file:
        conv, one = file.tensors["conv"], file.tensors["one"]
        assert (conv.shape, conv.type, conv.nbytes, conv.part) == ((1, 4, 3, 2), 24, 24, 0)
        assert conv.kind.name == "I8"
        assert (one.shape, one.nbytes) == ((), 1)
        assert file.read("one").tolist() == [7]
