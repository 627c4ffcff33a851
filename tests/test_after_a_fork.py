"""A model in a forked child: every door says at once what is wrong, whatever its threads held; the parent goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from tiny_sight import tiny_pair, tiny_tower

BEGIN = """
    import gc, json, multiprocessing.pool, os, signal, sys, threading, warnings
    import numpy as np
    import opsin
    from opsin.spans import Prompt
    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads

    def holding(*locks):
        '''A thread that holds these locks, as one may when somebody forks.'''
        held, leave = threading.Event(), threading.Event()
        def hold():
            for lock in locks:
                lock.acquire()
            held.set()
            leave.wait()
            for lock in reversed(locks):
                lock.release()
        thread = threading.Thread(target=hold, daemon=True)  # what fails here ends
        thread.start()
        held.wait()
        return lambda: (leave.set(), thread.join())

    def in_child(doors):
        '''What each door says in a child; "hangs" where it says nothing within a minute.'''
        said = {}
        for name, door in doors.items():
            read, write = os.pipe()
            child = os.fork()
            if not child:
                os.close(read)
                signal.alarm(60)
                try:
                    told = f"gave {door()!r:.40}"
                except BaseException as error:
                    told = f"{type(error).__name__}: {error}"
                os.write(write, told.encode())
                os._exit(0)
            os.close(write)
            with os.fdopen(read) as pipe:
                said[name] = pipe.read() or "hangs"
            os.waitpid(child, 0)
        return said

    HI = [{"role": "user", "content": "Hi"}]
    OPTIONS = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}
"""


def run(script, *arguments):
    """What a script prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGIN) + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "OPSIN_THREADS": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


DOORS = """
    model = opsin.load(sys.argv[1], context=256)
    before = model.chat(HI, **OPTIONS).text
    picture = np.zeros((32, 32, 3), np.uint8)
    prepared, question = model.prepare(picture), model.question(HI)
    model.encode(prepared)
    begun, half = model.chat(HI, **OPTIONS), model.chat(HI, **OPTIONS)
    next(half)
    stream = model.engine.submit(question.prompt, opsin.Sampling(**OPTIONS))
    ops, engine = model.device.eager(), model.engine
    array = ops.constant(np.ones((2, 4), np.float32))
    program = model.runner.program
    sees = model.vision
    let_go = holding(engine._lock, model.device.code._lock, model.device.team._running, ops.tape.arena._taking,
                     engine._media._encoding._changed)
    permits = [sees.decoding.acquire(blocking=False) for _ in range(64)]

    def forgotten():
        global half
        half = None
        gc.collect()
        return "quiet"

    def closed():
        with model:
            pass
        model.close()
        return "quiet"

    said = in_child({
        "chat": lambda: model.chat(HI).text,
        "complete": lambda: model.complete("Hi").text,
        "generate": lambda: model.generate(question, opsin.Sampling()),
        "nothing": lambda: model.generate(question, opsin.Sampling(max_tokens=0)),
        "begun": lambda: begun.text,
        "half": lambda: list(half),
        "stream": lambda: list(stream),
        "picture": lambda: model.chat([{"role": "user", "content": [picture, "?"]}]).text,
        "prepare": lambda: model.prepare(picture),
        "encode": lambda: model.encode(picture),
        "prepared": lambda: model.encode(prepared),
        "logits": lambda: model.logits([1, 2, 3]),
        "trace": lambda: model.trace([1, 2, 3]),
        "call": lambda: engine.call(lambda: 1),
        "embed": lambda: engine.embed(prepared.spans),
        "borrow": lambda: engine.borrow_pages(3),
        "add": lambda: array + array,
        "relu": lambda: ops.activate(array, "relu"),
        "eager": lambda: ops.constant(np.ones((2, 4), np.float32)) * 2.0,
        "run": lambda: program.run(rows=1, outputs=1, candidates=1),
        "thread": lambda: multiprocessing.pool.ThreadPool(1).apply(lambda: model.logits([1, 2])),
        "cancel": lambda: (begun.cancel(), "quiet"),
        "forget": forgotten,
        "close": closed,
        "tokenize": lambda: model.tokenize("Hi"),
    })
    for permit in permits:
        if permit:
            sees.decoding.release()
    let_go()
    print(json.dumps({"said": said, "same": model.chat(HI, **OPTIONS).text == before == begun.text,
                      "half": len(half.text) > 0, "pictures": len(model.encode(picture)) > 0}))
    model.close()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return run(DOORS, tiny_pair(tmp_path_factory.mktemp("fork"))[0])


SAID = "DeviceError: this model was loaded before a fork"
QUIET = ("cancel", "forget", "close")


def test_every_door_of_a_forked_child_raises(told):
    doors = {name: said for name, said in told["said"].items() if name not in (*QUIET, "tokenize")}
    assert len(doors) > 15
    assert {name: said for name, said in doors.items() if not said.startswith(SAID)} == {}
    assert all("load it in the child, or start processes with spawn" in said for said in doors.values())


def test_what_ends_something_is_quiet_in_a_forked_child(told):
    assert {name: told["said"][name] for name in QUIET if "quiet" not in told["said"][name]} == {}


def test_text_is_tokenized_in_a_forked_child(told):
    assert told["said"]["tokenize"].startswith("gave [")


def test_the_parent_goes_on(told):
    assert told["same"]
    assert told["half"]
    assert told["pictures"]


def test_a_tower_alone_raises_too(tmp_path):
    script = """
        model = opsin.load(sys.argv[1])
        picture = np.zeros((32, 32, 3), np.uint8)
        rows = model.encode(picture)
        prepared = model.prepare(picture)
        let_go = holding(model._tower._lock)
        said = in_child({"encode": lambda: model.encode(prepared), "close": lambda: model.close()})
        let_go()
        print(json.dumps([said, bool(np.array_equal(model.encode(picture), rows))]))
    """
    said, same = run(script, tiny_tower(tmp_path / "mmproj.gguf"))
    assert said["encode"].startswith(SAID)
    assert said["close"] == "gave None"
    assert same


def test_pools_of_forked_processes_raise_and_a_child_may_load_for_itself(tmp_path):
    """Also where another thread than the first one forks, while an answer runs."""
    script = """
        path = sys.argv[1]
        model = opsin.load(path, context=256)
        expected = model.chat(HI, **OPTIONS).text
        running = model.chat(HI, temperature=0.0, max_tokens=200, ignore_eos=True)
        next(running)

        def inherited(question):
            try:
                return model.chat(HI, **OPTIONS).text
            except opsin.OpsinError as error:
                return str(error)

        def own(question):
            with opsin.load(path, context=256) as mine:
                return mine.chat(HI, **OPTIONS).text

        def work():
            with multiprocessing.get_context("fork").Pool(1) as pool:
                results.append(pool.apply_async(inherited, ("",)).get(60))
                results.append(pool.apply_async(own, ("",)).get(60) == expected)

        results = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        results.append(len(running.text) > 0)
        print(json.dumps(results))
        model.close()
    """
    said, own, ran = run(script, tiny_pair(tmp_path)[0])
    assert "loaded before a fork" in said
    assert own
    assert ran
