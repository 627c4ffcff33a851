"""A file's stamp is that of what is open: another file, another time of writing or other bytes give another one."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from opsin.gguf import File, NewTensor, open_file, write
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


class TestState:
    """What changes with every write, though somebody sets the time back and nobody looks where the change is."""

    @pytest.fixture
    def old(self, tmp_path, monkeypatch):
        """A file that nobody has changed for long."""
        path = written(tmp_path / "a.gguf")
        monkeypatch.setattr(open_file, "SETTLED", 0.0)
        return path

    def test_a_write_that_leaves_size_and_time_and_all_that_a_stamp_sees_changes_it(self, old):
        with File.open(old) as file:
            before, stamped = file.state(), file.stamp()
            assert file.state() == before
            changed = old.stat().st_ctime_ns
            while old.stat().st_ctime_ns == changed:  # its steps are some milliseconds
                with old.open("r+b") as writing:
                    writing.seek(0)
                    writing.write(b"GGUF")
                os.utime(old, (TIME, TIME))
            assert file.stamp() == stamped
            assert file.state() != before

    def test_it_is_that_of_what_is_open(self, old, tmp_path):
        with File.open(old) as file, file.again() as twin:
            written(tmp_path / "b.gguf", value=2.0).replace(old)
            assert file.state() == twin.state() != state(old)

    def test_what_was_changed_moments_ago_has_none(self, old, monkeypatch):
        monkeypatch.setattr(open_file, "SETTLED", 3600.0)
        assert state(old) is None

    def test_what_is_not_written_has_none(self, old, tmp_path):
        tensor = NewTensor.of("a", np.zeros((4, 4), np.float32))
        with open_unwritten(tmp_path / "x", {"general.architecture": "llama"}, [tensor], sources=[old]) as file:
            assert file.state() is None

    def test_big_endian_files_have_none(self, tmp_path, monkeypatch):
        monkeypatch.setattr(open_file, "SETTLED", 0.0)
        path = tmp_path / "big.gguf"
        write(
            path, {"general.architecture": "llama"}, [NewTensor.of("a", np.zeros((4, 4), np.float32))], big_endian=True
        )
        assert state(path) is None

    def test_systems_that_tell_no_change_give_none(self, old, monkeypatch):
        monkeypatch.setattr(open_file, "os", SimpleNamespace(name="nt", fstat=os.fstat, preadv=os.preadv))
        assert state(old) is None


def state(path):
    with File.open(path) as file:
        return file.state()
