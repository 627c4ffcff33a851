"""What another system does not give: Windows and macOS, as far as this machine can pretend to be them."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import socket
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from waiting import wait_for

from opsin import config
from opsin.cli import memory
from opsin.config import from_environment
from opsin.engine import media_cache
from opsin.errors import RequestError
from opsin.media import fetch
from opsin.ops.cpu import Cpu, team, weight_cache
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.code import is_ours
from opsin.serve import heap, server
from opsin.serve.options import Options


def without_file(*_, **__):
    """Stands for reading what only Linux has."""
    raise FileNotFoundError


class TestThreads:
    """Those that wait, where there is no futex: they give way, then sleep for a moment, again and again."""

    @pytest.fixture
    def waits(self):
        """What C functions were given, by name: they are called from compiled code."""
        return {name: [] for name in ("SwitchToThread", "Sleep", "sched_yield", "nanosleep")}

    @pytest.fixture
    def libraries(self, waits):
        word, none = ctypes.c_int64, ctypes.CFUNCTYPE(ctypes.c_int)
        two = ctypes.CFUNCTYPE(ctypes.c_int, word, word)

        def give_way(name):
            return none(lambda: waits[name].append(None) or 1)

        def sleep(name):
            return two(lambda time, rest: waits[name].append((time, rest)) or 0)

        windows = SimpleNamespace(SwitchToThread=give_way("SwitchToThread"), Sleep=sleep("Sleep"))
        unix = SimpleNamespace(sched_yield=give_way("sched_yield"), nanosleep=sleep("nanosleep"))
        return {"win32": {"kernel32": windows}, "darwin": {None: unix}}

    @pytest.mark.parametrize(("system", "used"), [
        ("win32", ("SwitchToThread", "Sleep")), ("darwin", ("sched_yield", "nanosleep")),
    ])  # fmt: skip
    def test_wait_by_what_the_system_has(self, monkeypatch, waits, libraries, system, used):
        with monkeypatch.context() as patch:
            patch.setattr(team, "sys", SimpleNamespace(platform=system))
            patch.setattr(ctypes, "CDLL", libraries[system].__getitem__)
            cpu = Cpu(from_environment(), threads=2)
        try:
            wait_for(lambda: waits[used[1]])  # a worker that has nothing to do
            ops, tape = cpu.record()
            x = tape.input(ops, "x", (tape.count("rows", 8), 64), "f32")
            program = tape.finish({"y": x + x})
            program.inputs["x"][:] = 3
            for _ in range(3):
                program.run(rows=8)
                np.testing.assert_array_equal(program.output("y"), np.full((8, 64), 6))
            times = {time for time, _ in waits[used[1]]}
            if system == "darwin":  # the address of seconds and nanoseconds
                (place,) = times
                times = {tuple(np.ctypeslib.as_array((ctypes.c_int64 * 2).from_address(place)))}
        finally:
            cpu.close()
        assert {name for name, calls in waits.items() if calls} == set(used)
        assert times == ({1} if system == "win32" else {(0, 50_000)})


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


class TestPorts:
    def test_are_nobody_elses_where_others_could_take_them_over(self, monkeypatch):
        monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)  # one that is here, too
        (made,) = server.listen(Options(host="127.0.0.1", port=0))
        with made:
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0

    def test_are_not_shared_where_no_system_shares_them(self, monkeypatch):
        monkeypatch.delattr(socket, "SO_REUSEPORT")
        with pytest.raises(RequestError, match="--reuse-port: this system does not share a port"):
            server.listen(Options(host="127.0.0.1", port=0, reuse_port=True))


class TestKeptWeights:
    def test_are_none_where_files_cannot_go_while_they_are_mapped(self, monkeypatch, tmp_path, device):
        options = replace(from_environment(), weights=tmp_path)
        assert weight_cache.open_cache(options, device.code) is not None
        monkeypatch.setattr(weight_cache, "os", SimpleNamespace(name="nt"))
        assert weight_cache.open_cache(options, device.code) is None

    def test_are_copied_where_nobody_says_how_they_are_mapped(self, monkeypatch, tmp_path):
        monkeypatch.setattr(weight_cache.Path, "read_text", without_file)
        kept = weight_cache.WeightCache(tmp_path, "maker", most=1 << 30, least=1)
        assert not kept.maps(Block(16 << 20))


def test_files_are_ours_where_they_have_no_owners(monkeypatch):
    others = SimpleNamespace(st_uid=os.getuid() + 1, st_mode=0o777)
    assert not is_ours(others)
    monkeypatch.delattr(os, "getuid")
    assert is_ours(others)


def test_all_processors_are_ours_where_nobody_says_which(monkeypatch):
    monkeypatch.setattr(config.Path, "read_text", without_file)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    assert config.available_threads() == 24


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])  # macOS, musl, Windows
def test_a_c_library_without_knobs_is_left_alone(monkeypatch, error):
    def missing(name):
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    heap.give_memory_back()
    heap.trim()


class TestMemory:
    def test_macos_counts_in_bytes(self, monkeypatch):
        monkeypatch.setattr(memory.Path, "read_text", without_file)
        monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=4096))
        assert memory.peak_bytes() == 4096 * 1024
        monkeypatch.setattr(sys, "platform", "darwin")
        assert memory.peak_bytes() == 4096

    def test_windows_is_not_asked(self, monkeypatch):
        monkeypatch.setattr(memory.Path, "read_text", without_file)
        monkeypatch.setitem(sys.modules, "resource", None)
        monkeypatch.delattr(os, "sysconf")
        assert memory.peak_bytes() == memory.machine_bytes() == 0
