"""What strangers' safetensors files may hold: right ones are read, all others are refused before anything is read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.convert.safetensors import Safetensors
from opsin.errors import FileError


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def write(path, header, data=bytes(24)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", [(7, 5), (3,), (2, 3, 4, 5), (), (0, 4)])
def test_values_equal_those_that_the_reference_writes(tmp_path, dtype, shape):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    values = torch.randn(shape).to(kinds[dtype])
    save_file({"first": torch.ones(3), "x": values}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with Safetensors(tmp_path / "x.safetensors") as opened:
        assert set(opened.tensors) == {"first", "x"}
        assert opened.tensors["x"].shape == shape
        assert np.array_equal(opened.read("x"), values.float().numpy())
        if len(shape) == 2 and shape[0]:
            assert np.array_equal(opened.read("x", 2, 5), values.float().numpy()[2:5])


BROKEN = {
    "empty": b"",
    "seven bytes": bytes(7),
    "a header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "a header of all bits": b"\xff" * 40,
    "no JSON": (4).to_bytes(8, "little") + b"{{{{",
    "no object": (4).to_bytes(8, "little") + b"[{}]",
    "no UTF-8": (4).to_bytes(8, "little") + b'{"\xff"',
    "very deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
}
WRONG = {
    "no entry": {"x": 5},
    "no dtype": {"x": {"shape": [1], "data_offsets": [0, 4]}},
    "an unknown dtype": {"x": entry("F128")},
    "a shape of text": {"x": entry(shape="23")},
    "a negative size": {"x": entry(shape=(-2, -3))},
    "a size that is no integer": {"x": entry(shape=(2.0, 3.0))},
    "a size that is true": {"x": entry(shape=(True, 6))},
    "a huge size": {"x": entry(shape=(1 << 61, 1 << 61), offsets=(0, 1 << 61))},
    "too many dimensions": {"x": entry(shape=[1] * 200 + [6])},
    "offsets behind the file": {"x": entry(offsets=(8, 32))},
    "offsets that do not fit the shape": {"x": entry(offsets=(0, 20))},
    "offsets backwards": {"x": entry(offsets=(24, 0))},
    "negative offsets": {"x": entry(offsets=(-24, 0))},
    "three offsets": {"x": {**entry(), "data_offsets": [0, 8, 24]}},
    "tensors that overlap": {"x": entry(shape=(5,), offsets=(0, 20)), "y": entry(shape=(2,), offsets=(16, 24))},
    "a name of a megabyte": {"x" * (1 << 20): entry()},
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_file_of_that_kind_is_refused(tmp_path, what):
    (tmp_path / "x.safetensors").write_bytes(BROKEN[what])
    with pytest.raises(FileError, match="is no safetensors file"):
        Safetensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("what", WRONG)
def test_a_header_that_does_not_go_with_the_file_is_refused(tmp_path, what):
    with pytest.raises(FileError, match="x.safetensors"):
        Safetensors(write(tmp_path / "x.safetensors", WRONG[what]))


def test_a_name_that_stands_twice_is_refused(tmp_path):
    one = json.dumps(entry())
    with pytest.raises(FileError, match="no JSON"):
        Safetensors(write(tmp_path / "x.safetensors", f'{{"x": {one}, "x": {one}}}'.encode()))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8", "BOOL"])
def test_numbers_that_are_no_plain_floats_are_not_read(tmp_path, dtype):
    path = write(tmp_path / "x.safetensors", {"x": entry(dtype, (24,))})
    with Safetensors(path) as opened, pytest.raises(FileError, match=f"x holds {dtype}"):
        opened.read("x")


def test_a_file_that_shrinks_while_it_is_open_is_told(tmp_path):
    path = write(tmp_path / "x.safetensors", {"x": entry()})
    with Safetensors(path) as opened:
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(FileError, match="ended within tensor x"):
            opened.read("x")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    good = bytearray(
        write(path, {"__metadata__": {}, "x": entry(), "y": entry("F16", (4,), (24, 32))}, bytes(32)).read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        with Safetensors(path) as opened:
            for name in opened.tensors:
                assert opened.read(name).dtype == np.float32
    except FileError as error:
        assert "x.safetensors" in str(error)
