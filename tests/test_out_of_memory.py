"""Memory that runs out: known by any of its names, the failure of who asked, and nothing is left behind."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest
from tiny_sight import tiny_pair

import opsin
import opsin.engine.draws
import opsin.engine.engine
import opsin.engine.sequence
from opsin.errors import DeviceError, FileError, OpsinError, OutOfMemoryError, RequestError, is_out_of_memory, known

HI = [{"role": "user", "content": "Hi"}]
GREEDY = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}
PICTURE = np.zeros((32, 32, 3), np.uint8)


def caused(error, cause):
    """The error as it is after `raise error from cause`."""
    error.__cause__ = cause
    return error


FORMS = [
    MemoryError(), np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f4")),
    OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("can't start new thread"),
    ImportError("x.so: failed to map segment from shared object"),
    OSError("libz.so: cannot allocate memory in static TLS block"),
    RuntimeError("LLVM ERROR: out of memory"), OutOfMemoryError("memory ran out"),
    caused(OSError("Could not find/load shared object file 'libllvmlite.so'"), OSError("failed to map segment")),
    caused(FileError("m.gguf cannot be opened"), OSError(errno.ENOMEM, "Cannot allocate memory")),
]  # fmt: skip
OTHERS = [
    None, OSError(errno.ENOENT, "No such file"), RuntimeError("out of luck"), ValueError("out of memory"),
    RequestError("out of memory"), ImportError("No module named 'x'"), KeyboardInterrupt(),
]  # fmt: skip


@pytest.mark.parametrize("error", FORMS, ids=repr)
def test_each_form_is_known(error):
    assert is_out_of_memory(error)
    told = known(error, "it failed")
    assert told is error if isinstance(error, OpsinError) else isinstance(told, OutOfMemoryError)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_others_are_not(error):
    assert not is_out_of_memory(error)


def test_causes_may_go_round_in_a_circle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert not is_out_of_memory(one)


def test_what_is_told_has_nothing_from_inside():
    told = known(KeyError("/home/me/secret.gguf"), "the engine failed")
    assert type(told) is DeviceError
    assert "secret" not in str(told)
    assert isinstance(told.__cause__, KeyError)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))[0]


@pytest.fixture
def model(pair):
    with opsin.load(pair, threads=2, context=256) as made:
        yield made


def once(monkeypatch, owner, name, error):
    """The method fails once, then it is itself again."""
    plain, left = getattr(owner, name), [1]

    def failing(*args, **options):
        if left:
            left.pop()
            raise error
        return plain(*args, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("form", [MemoryError(), RuntimeError("can't start new thread")], ids=repr)
@pytest.mark.parametrize("where", ["step", "sample", "sampler", "features", "encoder"])
def test_one_requests_lack_of_memory_is_its_own(model, monkeypatch, where, form):
    expected = model.chat(HI, **GREEDY).text
    question = [{"role": "user", "content": [PICTURE, "?"]}]
    if where == "step":
        once(monkeypatch, model.runner, "step", form)
    elif where == "sample":
        once(monkeypatch, opsin.engine.draws, "sample", form)
    elif where == "sampler":
        once(monkeypatch, opsin.engine.sequence.Sampler, "roll", form)
    elif where == "features":
        once(monkeypatch, type(model.vision._meta.preparation), "patches", form)
    else:
        once(monkeypatch, model.engine._media._encoding, "_load", form)
    with pytest.raises(OutOfMemoryError, match="memory ran out"):
        assert model.chat(question, **(GREEDY | {"temperature": float(where == "sampler")})).text
    assert model.chat(HI, **GREEDY).text == expected
    assert model.chat(question, **GREEDY).text


def test_a_step_that_cannot_be_sampled_fails_and_who_waits_is_answered(pair, monkeypatch):
    plain, waits, left = opsin.engine.draws.sample, threading.Event(), [1]

    def failing(*args):
        if left:
            left.pop()
            assert waits.wait(60)
            raise MemoryError
        return plain(*args)

    with opsin.load(pair, threads=2, context=256, sequences=1) as model:
        expected = model.chat(HI, **GREEDY).text
        monkeypatch.setattr(opsin.engine.draws, "sample", failing)
        first, second = model.chat(HI, **GREEDY), model.chat(HI, **GREEDY)
        waits.set()
        with pytest.raises(OutOfMemoryError, match="memory ran out"):
            assert first.text
        assert second.text == expected


@pytest.mark.parametrize("door", ["logits", "trace", "encode"])
def test_doors_that_look_inside_tell_it_as_it_is(model, monkeypatch, door):
    doors = {
        "logits": lambda: model.logits([1, 2, 3]),
        "trace": lambda: model.trace([1, 2, 3]),
        "encode": lambda: model.encode(PICTURE),
    }
    expected = doors["encode"]()
    once(monkeypatch, type(model.device.team), "run", MemoryError("no"))
    with pytest.raises((MemoryError, OutOfMemoryError)):
        doors[door]() if door != "encode" else model.encode(np.ones((32, 32, 3), np.uint8))
    assert np.array_equal(doors["encode"]().values, expected.values)
    assert len(doors["logits"]()) == 3


@pytest.mark.parametrize("which", range(1, 6))
def test_no_thread_is_left_where_one_cannot_be_started(pair, monkeypatch, which):
    before, start, started = set(threading.enumerate()), threading.Thread.start, []

    def limited(thread):
        started.append(thread)
        if len(started) == which:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        opsin.load(pair, threads=4, context=256)
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("opsin")}
    monkeypatch.undo()
    with opsin.load(pair, threads=4, context=256) as model:
        assert model.chat(HI, **GREEDY).text


@pytest.mark.parametrize("which", ["opsin-encoding", "opsin-engine"])
def test_an_engine_without_its_threads_leaves_none(pair, monkeypatch, which):
    before, start = set(threading.enumerate()), threading.Thread.start

    def limited(thread):
        if thread.name == which:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        opsin.load(pair, threads=2, context=256)
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("opsin")}
