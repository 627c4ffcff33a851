"""Ctrl-C where somebody waits for the engine's thread: the work ends, and whoever asks next is answered."""

from __future__ import annotations

import _thread
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from melody import Ear, melody
from prompts import LIMITS
from tiny_sight import tiny_pair
from waiting import PATIENCE, wait_for

import opsin
from opsin.engine.engine import Engine
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.spans import Prompt

GREEDY = Sampling(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def runner(decoder):
    return Runner(*decoder, LIMITS, "f16", MediaStore(1 << 20))


@pytest.fixture
def ear(decoder):
    return Ear(decoder[1].weights.token_embd.weight)


@pytest.fixture
def engine(runner, ear):
    made = Engine(runner, frozenset(), ear.load(runner.device))
    yield made
    made.close()
    assert made.pool.free == LIMITS.pages


def interrupted(wait, begun):
    """Press Ctrl-C when it has begun, while this thread waits."""

    def press():
        wait_for(begun)
        _thread.interrupt_main()

    with ThreadPoolExecutor(1) as pool:
        pressed = pool.submit(press)
        with pytest.raises(KeyboardInterrupt):
            wait()
        pressed.result()


def answer(engine, ids=(1, 2, 3)):
    """An answer, waited for no longer than PATIENCE."""
    stream = engine.submit(Prompt.of([list(ids)]), GREEDY)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: [output.id for output in stream]).result(PATIENCE)


def test_a_call_without_an_end_ends_at_its_next_operation(engine, runner):
    expected, begun, rounds = answer(engine), threading.Event(), []

    def work():
        pages = engine.borrow_pages(100)
        try:
            while True:
                rounds.append(runner.score(list(range(100)), pages))
                begun.set()
        finally:
            engine.return_pages(pages)

    interrupted(lambda: engine.call(work), begun.is_set)
    assert answer(engine) == expected
    done = len(rounds)
    assert answer(engine, (9, 9)) is not None
    assert len(rounds) == done  # nothing goes on


def test_a_call_that_waits_is_never_begun(engine, runner):
    inside, leave, ran = threading.Event(), threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(engine.call, lambda: (inside.set(), leave.wait(PATIENCE)))
        assert inside.wait(PATIENCE)
        interrupted(lambda: engine.call(lambda: ran.append("run")), lambda: engine._calls)
        leave.set()
        first.result(PATIENCE)
    assert len(answer(engine)) == 12
    assert ran == []


def test_one_interrupted_call_does_not_end_anothers(engine, runner):
    """The stop is over when the next call begins."""
    begun = threading.Event()

    def endless():
        while True:
            runner.score([1, 2], [0])
            begun.set()

    with ThreadPoolExecutor(2) as pool:
        later = pool.submit(lambda: (begun.wait(PATIENCE), engine.call(lambda: runner.score([4, 5], [0])))[1])
        interrupted(lambda: engine.call(endless), begun.is_set)
        assert later.result(PATIENCE).shape == (2, 265)


def test_streams_go_on_after_an_interrupted_call(engine, runner):
    expected, begun = answer(engine), threading.Event()
    stream = engine.submit(Prompt.of([[1, 2, 3]]), GREEDY)

    def endless():
        while True:
            runner.score([7] * 70, engine_pages)
            begun.set()

    engine_pages = engine.call(lambda: engine.borrow_pages(70))
    interrupted(lambda: engine.call(endless), begun.is_set)
    engine.call(lambda: engine.return_pages(engine_pages))
    assert [output.id for output in stream] == expected


def test_a_step_that_nobody_wants_leaves_nothing_that_could_be_stopped(engine, runner, monkeypatch):
    """Streams are cancelled between the plan and the step; who is cancelled later stops nobody else."""
    plan, planned = engine._scheduler.plan, threading.Event()

    def cancelling(budget):
        made = [] if planned.is_set() else plan(budget)
        for part in made:
            part.sequence.stream.cancel()
            planned.set()
        return made

    with monkeypatch.context() as patched:
        patched.setattr(engine._scheduler, "plan", cancelling)
        engine.submit(Prompt.of([[1, 2, 3]]), GREEDY)
        assert planned.wait(PATIENCE)
        engine.call(lambda: None)  # the step is over
        engine.submit(Prompt.of([[1, 2]]), GREEDY).cancel()
    assert engine.call(lambda: runner.score([4, 5], [0])).shape == (2, 265)


def test_embeddings_that_nobody_waits_for_are_not_made(engine, ear):
    """The encoder computes without an end until its gate opens: it is stopped, and never finishes."""
    interrupted(lambda: engine.embed([melody((1, 2))]), ear.started.is_set)
    wait_for(lambda: not engine._media.is_busy)
    assert len(answer(engine)) == 12
    ear.gate.set()
    assert engine.embed([melody((3, 4))]).shape == (2, 64)
    assert ear.heard == 2  # the first was given up


def test_embeddings_that_another_waits_for_are_made(engine, ear):
    tune = melody((5, 6))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(engine.embed, [tune])
        interrupted(lambda: engine.embed([tune]), lambda: len(engine._media.requests) == 2 and ear.started.is_set())
        ear.gate.set()
        assert other.result(PATIENCE).shape == (2, 64)
    assert ear.heard == 1


# The same at the doors of a model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with opsin.load(tiny_pair(tmp_path_factory.mktemp("pair"))[0], threads=2, context=512) as made:
        yield made


def test_logits_are_given_up_after_a_step(model, monkeypatch):
    begun, runs, program = threading.Event(), [], model.runner.program
    run = program.run

    def watched(**counts):
        runs.append(counts)
        if len(runs) == 2:
            begun.set()
            wait_for(lambda: model.engine._calling.abandoned)
        run(**counts)

    monkeypatch.setattr(program, "run", watched)
    interrupted(lambda: model.logits([1] * 500), begun.is_set)
    wait_for(lambda: model.engine._calling is None)
    assert len(runs) == 2  # of 8
    monkeypatch.undo()
    assert model.chat([{"role": "user", "content": "Hi"}], max_tokens=3).text is not None
    assert model.logits([1] * 500).shape[0] == 500  # its pages are back


def test_a_trace_is_given_up_at_its_next_operation(model):
    begun, seen = threading.Event(), []

    def edit(values):
        seen.append(values)
        begun.set()
        wait_for(lambda: model.engine._calling.abandoned)
        return values

    interrupted(lambda: model.trace([1, 2, 3], ["*"], {"embed": edit, "blk.*.out": edit}), begun.is_set)
    wait_for(lambda: model.engine._calling is None)
    assert len(seen) == 1
    assert set(model.trace([1, 2, 3], ["logits"])) == {"logits"}


def test_a_picture_is_given_up(model, monkeypatch):
    media, begun = model.engine._media, threading.Event()
    turn, picture = media._encoding.turn, np.zeros((32, 32, 3), np.uint8)

    def watched():
        begun.set()
        wait_for(lambda: all(request.abandoned for request in media.requests))
        turn()

    monkeypatch.setattr(media._encoding, "turn", watched)
    interrupted(lambda: model.encode(picture), begun.is_set)
    wait_for(lambda: not media.is_busy)
    assert media.encoded == 0
    monkeypatch.undo()
    assert model.encode(picture).shape[1] == 64
