"""What another system does not give: Windows and macOS, as far as this machine can pretend to be them."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from waiting import wait_for

from opsin.cli import memory
from opsin.config import from_environment
from opsin.engine import media_cache
from opsin.errors import RequestError
from opsin.media import fetch
from opsin.ops.cpu import Cpu, team
from opsin.serve import heap, server
from opsin.serve.options import Options


def test_threads_wait_by_what_windows_has(monkeypatch):
    yielded, slept = [], []
    give_way = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: yielded.append(1) or 1)
    sleep = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_int64)(lambda time, _: slept.append(time) or 0)
    library = SimpleNamespace(SwitchToThread=give_way, Sleep=sleep)
    with monkeypatch.context() as patch:
        patch.setattr(team, "sys", SimpleNamespace(platform="win32"))
        patch.setattr(ctypes, "CDLL", {"kernel32": library}.__getitem__)
        cpu = Cpu(from_environment(), threads=2)
    try:
        wait_for(lambda: slept)  # a worker that has nothing to do
        ops, tape = cpu.record()
        x = tape.input(ops, "x", (tape.count("rows", 8), 64), "f32")
        program = tape.finish({"y": x + x})
        program.inputs["x"][:] = 3
        for _ in range(3):
            program.run(rows=8)
            np.testing.assert_array_equal(program.output("y"), np.full((8, 64), 6))
    finally:
        cpu.close()
    assert yielded
    assert set(slept) == {1}


def test_embeddings_are_read_where_files_have_no_such_flags(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        for name in ("O_NOFOLLOW", "O_NONBLOCK"):
            patch.delattr(os, name)
        kept = importlib.reload(media_cache).MediaCache(tmp_path, b"encoder", 4, 1 << 20)
        kept.keep(b"digest", np.ones((3, 4), np.float32))
        np.testing.assert_array_equal(kept.find(b"digest", 3), np.ones((3, 4)))
    importlib.reload(media_cache)


def test_local_files_are_refused_where_links_cannot_be_kept_out(monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(b"a picture")
    rules = fetch.FetchRules(folders=(tmp_path,))
    address = (tmp_path / "a.png").as_uri()
    assert fetch.fetch(address, rules) == b"a picture"
    monkeypatch.setattr(os, "supports_dir_fd", set())
    with pytest.raises(RequestError, match="cannot be read safely on this system") as caught:
        fetch.fetch(address, rules)
    assert "data: URL" in str(caught.value)


def test_a_unix_socket_is_refused_in_a_line_where_there_are_none(monkeypatch, tmp_path):
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(RequestError, match="this system has no Unix sockets"):
        server.listen(Options(host=str(tmp_path / "opsin.sock")))
    (made,) = server.listen(Options(host="127.0.0.1", port=0))
    with made:
        assert server.address(made, Options()).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])  # macOS, musl, Windows
def test_a_c_library_without_knobs_is_left_alone(monkeypatch, error):
    def missing(name):
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    heap.give_memory_back()
    heap.trim()


class TestMemory:
    def test_macos_counts_in_bytes(self, monkeypatch):
        monkeypatch.setattr(memory.Path, "read_text", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
        monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=4096))
        assert memory.peak_bytes() == 4096 * 1024
        monkeypatch.setattr(sys, "platform", "darwin")
        assert memory.peak_bytes() == 4096

    def test_windows_is_not_asked(self, monkeypatch):
        monkeypatch.setattr(memory.Path, "read_text", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
        monkeypatch.setitem(sys.modules, "resource", None)
        monkeypatch.delattr(os, "sysconf")
        assert memory.peak_bytes() == memory.machine_bytes() == 0
