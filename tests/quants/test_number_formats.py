"""The list of formats: complete, found by their files, and clear about what is missing."""

from __future__ import annotations

import subprocess
import sys

import gguf
import pytest

from opsin.errors import FileError, ModelError
from opsin.quants import BY_NAME, TYPES, by_id

# Formats of activations, which files do not hold.
NOT_IN_FILES = {"Q8_1", "Q8_K"}


def test_every_format_that_gguf_names_is_here_with_its_block() -> None:
    theirs = {kind.name: (int(kind), *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {name: (kind.id, kind.elements, kind.bytes) for name, kind in BY_NAME.items()}
    for name in theirs.keys() - NOT_IN_FILES:
        assert ours[name] == theirs[name]


def test_ids_and_names_lead_to_the_same_formats() -> None:
    assert {kind.name: kind for kind in TYPES.values()} == BY_NAME
    assert all(by_id(id) is kind and kind.id == id for id, kind in TYPES.items())


@pytest.mark.parametrize(("id", "says"), [(4, "Q4_2"), (36, "IQ4_NL_4_4"), (99, "99"), (-1, "-1")])
def test_an_id_without_format_is_named_in_the_error(id: int, says: str) -> None:
    with pytest.raises(FileError, match=says):
        by_id(id)


def test_row_bytes_counts_whole_blocks() -> None:
    assert BY_NAME["Q4_K"].row_bytes(512) == 288
    assert BY_NAME["F16"].row_bytes(7) == 14
    with pytest.raises(ModelError, match="4304 elements"):
        BY_NAME["Q4_K"].row_bytes(4304)


def test_planes_name_what_kernels_know() -> None:
    for kind in TYPES.values():
        if kind.planes is None:
            continue
        assert 2 <= kind.planes.bits <= 8
        assert kind.planes.group in (16, 32)
        assert kind.elements % kind.planes.group == 0
        assert not (kind.planes.minimum and kind.planes.zero)
        if kind.planes.table:
            assert (kind.planes.bits, len(kind.planes.table), kind.planes.zero) == (4, 16, 128)
            assert all(0 <= byte < 256 for byte in kind.planes.table)
        else:
            assert kind.planes.zero < 1 << kind.planes.bits


def test_importing_the_formats_imports_no_compiler_and_no_tables() -> None:
    code = "import sys, opsin.quants; print([name for name in ('numba', 'gguf', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
