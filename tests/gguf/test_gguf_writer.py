"""Files that we write: the bytes that gguf-py writes, and nothing half done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import RawFile, every_value, f32

from opsin.errors import FileError, RequestError
from opsin.gguf import File, NewTensor, Typed, ValueType, write

RNG = np.random.default_rng(5)
FLOATS = RNG.standard_normal((3, 64)).astype(np.float32)
BLOCKS = RNG.integers(0, 256, (4, 36), np.uint8)  # Q4_0, [4, 64]


def write_theirs(path: Path, *, big: bool = False, alignment: int = 32, split_max_tensors: int = 0) -> list[Path]:
    endian = gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, "llama", endianess=endian, split_max_tensors=split_max_tensors)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -30000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -5)
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 0.1)
    writer.add_float64("f64", 0.1)
    writer.add_bool("flag", True)
    writer.add_string("text", "naïve 漢字")
    writer.add_array("words", ["a", "", "漢"])
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, 1.5])
    writer.add_array("flags", [True, False])
    writer.add_key_value("mean", [1, 2], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT16)
    tensor_endian = gguf.GGUFEndian.BIG if big else None
    writer.add_tensor("floats", FLOATS.byteswap() if big else FLOATS, tensor_endianess=tensor_endian)
    if not big:
        writer.add_tensor("blocks", BLOCKS, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    half = np.arange(5, dtype=np.float16)
    writer.add_tensor("half", half.byteswap() if big else half, tensor_endianess=tensor_endian)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}*"))


def write_ours(path: Path, *, big: bool = False, alignment: int = 32, **options: Any) -> list[Path]:
    metadata = {
        "general.architecture": "llama",
        **({"general.alignment": alignment} if alignment != 32 else {}),
        "u8": Typed(ValueType.UINT8, 200),
        "i8": np.int8(-100),
        "u16": Typed(ValueType.UINT16, 60000),
        "i16": np.int16(-30000),
        "u32": 4_000_000_000,
        "i32": -5,
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "f32": 0.1,
        "f64": np.float64(0.1),
        "flag": True,
        "text": "naïve 漢字",
        "words": ["a", "", "漢"],
        "ints": [1, -2, 3],
        "floats": (0.5, 1.5),
        "flags": [True, False],
        "mean": np.array([1, 2], np.uint16),
    }
    tensors = [
        NewTensor.of("floats", FLOATS),
        *([] if big else [NewTensor("blocks", (4, 64), 2, lambda: BLOCKS.reshape(-1))]),
        NewTensor.of("half", np.arange(5, dtype=np.float16)),
    ]
    return write(path, metadata, tensors, big_endian=big, **options)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("alignment", [32, 64, 8])
def test_our_bytes_are_those_of_gguf_py(tmp_path: Path, big: bool, alignment: int) -> None:
    (theirs,) = write_theirs(tmp_path / "theirs.gguf", big=big, alignment=alignment)
    (ours,) = write_ours(tmp_path / "ours.gguf", big=big, alignment=alignment)
    assert ours.read_bytes() == theirs.read_bytes()


def test_our_parts_are_those_of_gguf_py(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    theirs = write_theirs(tmp_path / "a" / "model.gguf", split_max_tensors=1)
    ours = write_ours(tmp_path / "b" / "model.gguf", part_bytes=1)
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert ours[0].name == "model-00001-of-00003.gguf"
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    with File.open(ours[0]) as file:
        assert file.read("blocks").tobytes() == BLOCKS.tobytes()
        assert file.types["split.no"] is ValueType.UINT16


def test_gguf_py_reads_what_we_write(tmp_path: Path) -> None:
    (path,) = write_ours(tmp_path / "ours.gguf")
    reader = gguf.GGUFReader(path)
    assert reader.fields["words"].contents() == ["a", "", "漢"]
    assert reader.fields["u64"].contents() == 2**64 - 1
    assert np.array_equal(reader.tensors[0].data, FLOATS)
    assert np.array_equal(reader.tensors[1].data, BLOCKS)


def test_we_read_what_gguf_py_writes(tmp_path: Path) -> None:
    for big in (False, True):
        (path,) = write_theirs(tmp_path / f"theirs{big}.gguf", big=big)
        with File.open(path) as file:
            assert file.metadata["words"] == ["a", "", "漢"]
            assert file.get_ints("mean").tolist() == [1, 2]
            assert file.get_float("f64") == 0.1
            assert file.get_float("f32") == float(np.float32(0.1))
            assert np.array_equal(file.read("floats").view("<f4").reshape(3, 64), FLOATS)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_copy_has_the_same_bytes(tmp_path: Path, order: str) -> None:
    metadata = [*every_value(), (b"general.alignment", 4, 64)]
    tensors = [f32(b"a", 0, 3), f32(b"b", 128, 2)]
    path = RawFile(metadata, tensors, order, alignment=64).save(tmp_path / "raw.gguf")
    with File.open(path) as file:
        (copy,) = write(
            tmp_path / "copy.gguf", file.typed, [file.copy_tensor(name) for name in "ab"], big_endian=order == ">"
        )
    assert copy.read_bytes() == path.read_bytes()


def test_a_file_may_be_written_over_itself(tmp_path: Path) -> None:
    (path,) = write_ours(tmp_path / "ours.gguf")
    before = path.read_bytes()
    with File.open(path) as file:
        write(path, file.typed, [file.copy_tensor(name) for name in file.tensors])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["ours.gguf"]


def test_parts_are_filled_in_order_and_merge_again(tmp_path: Path) -> None:
    tensors = [NewTensor.of(f"t{size}", np.full(size, size % 100, np.int8)) for size in (60, 40, 30, 20, 500, 10)]
    metadata = {"general.architecture": "llama", "general.alignment": 64, "split.no": 7}
    paths = write(tmp_path / "model.gguf", metadata, tensors, part_bytes=100)
    assert [path.name for path in paths] == [f"model-{number:05}-of-00004.gguf" for number in (1, 2, 3, 4)]
    with File.open(paths[0]) as file:
        assert [info.part for info in file.tensors.values()] == [0, 0, 1, 1, 2, 3]
        assert file.get_int("split.no") == 0
        (merged,) = write(tmp_path / "merged.gguf", file.typed, [file.copy_tensor(name) for name in file.tensors])
    with File.open(merged) as file:
        assert list(file.metadata) == ["general.architecture", "general.alignment"]
        assert all(np.array_equal(file.read(tensor.name), tensor.data) for tensor in tensors)  # type: ignore[arg-type]
    (whole,) = write(tmp_path / "whole.gguf", metadata, tensors, part_bytes=10_000)
    assert whole.read_bytes() == merged.read_bytes()


def test_tensors_are_made_one_at_a_time(tmp_path: Path) -> None:
    events: list[str] = []

    def make(name: str) -> Callable[[], np.ndarray]:
        def load() -> np.ndarray:
            size = sum(each.stat().st_size for each in tmp_path.iterdir())
            events.append(f"{name} {size >= 1 << 20}")
            return np.zeros(1 << 20, np.uint8)

        return load

    write(tmp_path / "a.gguf", {}, [NewTensor(name, (1 << 20,), 24, make(name)) for name in "ab"])
    assert events == ["a False", "b True"]


@pytest.mark.parametrize("big", [False, True])
def test_a_tensor_may_come_in_pieces(tmp_path: Path, big: bool) -> None:
    rows = [BLOCKS[:1], BLOCKS[1:3], BLOCKS[3:]]
    write(tmp_path / "whole.gguf", {}, [NewTensor("a", (4, 64), 2, BLOCKS.reshape(-1))], big_endian=big)
    write(tmp_path / "pieces.gguf", {}, [NewTensor("a", (4, 64), 2, lambda: iter(rows))], big_endian=big)
    assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


BAD_VALUES: list[tuple[object, str]] = [
    ([], "an empty list does not tell its type .give a Typed"),
    (None, "no type for a NoneType"),
    (b"bytes", "no type for a bytes"),
    ([1, "a"], "no one type holds int, str"),
    ([True, 1], "no one type holds bool, int"),
    ([[1], [2]], "no one type holds list"),
    (1 << 64, "do not fit in 64 bits"),
    ([-1, 1 << 63], "do not fit in 64 bits"),
    (1e39, "too large for FLOAT32"),
    ([0.5, -1e39], "too large for FLOAT32"),
    (np.array(["a"]), "no type for NumPy's <U1"),
    (np.zeros(2, np.float16), "no type for NumPy's float16"),
    (np.zeros((2, 2), np.float32), "one dimension, not 2"),
    (Typed(ValueType.UINT8, 256), "256.* does not fit in UINT8"),
    (Typed(ValueType.UINT8, -1), "does not fit in UINT8"),
    (Typed(ValueType.INT32, [1, 1 << 40]), "does not fit in INT32"),
    (Typed(ValueType.INT32, 1.0), "is not of the type INT32"),
    (Typed(ValueType.BOOL, 1), "is not of the type BOOL"),
    (Typed(ValueType.STRING, 1), "1 is not a string"),
    (Typed(ValueType.STRING, ["a", 2]), "2 is not a string"),
    (Typed(ValueType.INT32, ["a"]), "is not of the type INT32"),
    (Typed(ValueType.UINT64, [1 << 64]), "is not of the type UINT64"),
    (Typed(ValueType.ARRAY, [1]), "type of an array is that of its elements"),
    ("lone \ud800", "surrogates not allowed"),
]


@pytest.mark.parametrize(("value", "complaint"), BAD_VALUES)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: Any, complaint: str) -> None:
    with pytest.raises(FileError, match=complaint) as caught:
        write(tmp_path / "bad.gguf", {"good": 1, "bad.key": value}, [])
    assert "bad.gguf: key 'bad.key'" in caught.value.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", "k" * 65536, "\ud800"])
def test_impossible_keys_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "bad.gguf", {key: 1}, [])


GOOD = np.zeros(8, np.uint8)
BAD_TENSORS: list[tuple[list[NewTensor], str]] = [
    ([NewTensor("", (8,), 24, GOOD)], "has a name of 0 bytes"),
    ([NewTensor("漢" * 22, (8,), 24, GOOD)], "has a name of 66 bytes"),
    ([NewTensor("a", (8,), 24, GOOD)] * 2, "tensor 'a' is given twice"),
    ([NewTensor("a", (8,), 5, GOOD)], "tensor 'a' has the unknown type 5"),
    ([NewTensor("a", (0, 8), 24, GOOD)], "tensor 'a' has the impossible shape"),
    ([NewTensor("a", (8,), 2, GOOD)], "tensor 'a' has rows of 8 elements"),
    ([NewTensor("a", (9,), 24, GOOD)], "tensor 'a' needs 9 bytes, not 8 of uint8"),
    ([NewTensor("a", (8,), 24, lambda: GOOD[:7])], "tensor 'a' needs 8 bytes, not 7"),
    ([NewTensor("a", (8,), 24, GOOD.view(np.int8))], "not 8 of int8"),  # type: ignore[arg-type]
    ([NewTensor("a", (8,), 24, lambda: iter([GOOD[:3], GOOD[:4]]))], "tensor 'a' needs 8 bytes, not 7"),
    ([NewTensor("a", (8,), 24, lambda: iter([GOOD[:3], GOOD[:6]]))], "tensor 'a' needs 8 bytes, not 9"),
    ([NewTensor("a", (64,), 2, lambda: iter([BLOCKS[0, :35], BLOCKS[0, :1]]))], "tensor 'a' needs 36 bytes, not 35"),
]


@pytest.mark.parametrize(("tensors", "complaint"), BAD_TENSORS)
def test_impossible_tensors_are_refused(tmp_path: Path, tensors: list[NewTensor], complaint: str) -> None:
    with pytest.raises(FileError, match=complaint) as caught:
        write(tmp_path / "bad.gguf", {}, tensors)
    assert "bad.gguf" in caught.value.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("alignment", [0, 48, 1 << 17, "32", True, Typed(ValueType.UINT16, 32), [32]])
def test_impossible_alignments_are_refused(tmp_path: Path, alignment: Any) -> None:
    with pytest.raises(FileError, match="key 'general.alignment' cannot be"):
        write(tmp_path / "bad.gguf", {"general.alignment": alignment}, [])


def test_an_alignment_may_be_a_numpy_number(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", {"general.alignment": np.uint32(128)}, [NewTensor("a", (8,), 24, GOOD)])
    with File.open(tmp_path / "a.gguf") as file:
        assert file.tensors["a"].offset == 128


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"old")

    def fail() -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, {}, [NewTensor("a", (8,), 24, fail)])
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.gguf"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no folder .*nowhere for a.gguf"):
        write(tmp_path / "nowhere" / "a.gguf", {}, [])


def test_too_many_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsin.gguf.writer.MAX_PARTS", 1)
    with pytest.raises(FileError, match="would have 2 parts, more than 1"):
        write(tmp_path / "a.gguf", {}, [NewTensor(name, (8,), 24, GOOD) for name in "ab"], part_bytes=1)


@pytest.mark.parametrize("code", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", ">f4"])
def test_plain_arrays_become_tensors(tmp_path: Path, code: str) -> None:
    array = np.arange(24).astype(code).reshape(4, 6)
    write(tmp_path / "a.gguf", {}, [NewTensor.of("a", array.T)])
    with File.open(tmp_path / "a.gguf") as file:
        assert file.tensors["a"].shape == (6, 4)
        little = np.dtype(code).newbyteorder("<")
        assert np.array_equal(file.read("a").view(little).reshape(6, 4), array.T)


def test_arrays_without_a_tensor_type_are_refused() -> None:
    with pytest.raises(ValueError, match="tensor 'a': GGUF has no tensor type for NumPy's uint8"):
        NewTensor.of("a", GOOD)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(width=32),
    st.text(),
    st.floats().map(np.float64),
    st.integers(0, 255).map(np.uint8),
)
LISTS = st.one_of(
    st.lists(st.booleans(), min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.floats(width=32), min_size=1),
    st.lists(st.text(), min_size=1),
    st.lists(st.integers(-128, 127)).map(lambda numbers: np.array(numbers, np.int8)),
)


@given(
    st.dictionaries(st.text(min_size=1).filter(lambda key: not key.startswith(("split.", "general."))), SCALARS | LISTS)
)
def test_all_values_survive(tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("values") / "a.gguf"
    write(path, metadata, [])
    with File.open(path) as file:
        assert list(file.metadata) == list(metadata)
        for key, value in metadata.items():
            found = file.metadata[key]
            if isinstance(found, np.ndarray):
                assert np.array_equal(found, value, equal_nan=found.dtype.kind == "f")
            else:
                assert found == value or value != value


def test_strings_of_a_file_are_written_back_byte_by_byte(tmp_path: Path) -> None:
    with File.open(RawFile(every_value()).save(tmp_path / "a.gguf")) as file:
        strings = file.metadata["a8"]
        write(tmp_path / "b.gguf", {"lazy": strings, "listed": list(strings)}, [])  # type: ignore[arg-type]
    with File.open(tmp_path / "b.gguf") as file:
        assert file.get_strs("lazy").raw(3) == b"\xff\xfe bad"  # type: ignore[attr-defined]
        assert file.get_strs("listed").raw(3) == b"\xff\xfe bad"  # type: ignore[attr-defined]
