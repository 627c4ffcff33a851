"""The table of tensor types, against gguf-py's and against itself."""

from __future__ import annotations

import gguf
import pytest

from opsin.gguf import TENSOR_TYPES
from opsin.gguf.tensor_type import check_shape


def test_names_and_sizes_are_those_of_gguf_py() -> None:
    theirs = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {kind.id: (kind.name, kind.block_elements, kind.block_bytes) for kind in TENSOR_TYPES.values()}
    theirs[9] = ("Q8_1", 32, 36)  # gguf-py counts two 32-bit floats, but ggml's block has two of 16 bits
    ours = {type_id: ours[type_id] for type_id in ours if type_id in theirs or type_id <= 40}  # it may lag behind ggml
    assert ours == theirs


def test_scalars_lie_inside_their_block_and_apart() -> None:
    for kind in TENSOR_TYPES.values():
        taken = [byte for run in kind.scalars for byte in range(run.start, run.start + run.width * run.count)]
        assert len(taken) == len(set(taken)), kind.name
        assert all(0 <= byte < kind.block_bytes for byte in taken), kind.name
        assert all(run.width in (2, 4, 8) for run in kind.scalars), kind.name


def test_a_shape_takes_the_bytes_of_its_blocks() -> None:
    assert TENSOR_TYPES[12].bytes_of((3, 512)) == 3 * 2 * 144
    assert TENSOR_TYPES[0].bytes_of(()) == 4


@pytest.mark.parametrize(
    ("shape", "type_id", "complaint"),
    [
        ((4,), 4, "unknown type 4"),
        ((4,), 99, "unknown type 99"),
        ((1, 1, 1, 1, 1), 0, "5 dimensions"),
        ((0,), 0, r"impossible shape \[0\]"),
        ((2, -1), 0, "impossible shape"),
        ((1 << 32, 1 << 32), 0, "impossible shape"),
        ((2, 31), 2, "rows of 31 elements, no multiple of the 32 of Q4_0"),
        ((), 8, "rows of 1"),
    ],
)
def test_impossible_shapes_are_refused(shape: tuple[int, ...], type_id: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_shape(shape, type_id)
