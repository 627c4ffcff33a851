"""A file's stamp is that of what is open: another file, another time of writing or other bytes give another one."""

from __future__ import annotations

import os

import numpy as np
import pytest

from opsin.gguf import File, NewTensor, write
from opsin.gguf.unwritten import open_unwritten

TIME = 1_700_000_000


def written(path, value=1.0, seconds=TIME):
    write(path, {"general.architecture": "llama"}, [NewTensor.of("a", np.full((64, 64), value, np.float32))])
    os.utime(path, (seconds, seconds))
    return path


def stamp(path):
    with File.open(path) as file:
        return file.stamp()


def test_equal_files_have_equal_stamps_and_others_do_not(tmp_path):
    first = stamp(written(tmp_path / "a.gguf"))
    assert stamp(written(tmp_path / "b.gguf")) == first
    assert stamp(written(tmp_path / "b.gguf", value=2.0)) != first
    assert stamp(written(tmp_path / "b.gguf", seconds=TIME + 1)) != first


def test_what_lies_at_the_path_since_does_not_matter(tmp_path):
    path = written(tmp_path / "a.gguf")
    with File.open(path) as file, file.again() as twin:
        first = file.stamp()
        written(tmp_path / "b.gguf", value=2.0).replace(path)
        assert file.stamp() == twin.stamp() == first != stamp(path)
        path.unlink()
        assert twin.stamp() == first


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_a_file_that_is_not_written_has_the_stamps_of_its_sources(tmp_path, value):
    source = written(tmp_path / "source", value)
    tensor = NewTensor.of("a", np.zeros((4, 4), np.float32))
    with open_unwritten(tmp_path / "x", {"general.architecture": "llama"}, [tensor], sources=[source]) as file:
        assert file.stamp() == stamp(source)
