"""States of prompts, pooled: beside the states that a trace sees, alone and in company."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tiny import tiny_llama
from waiting import until

import opsin
from opsin.errors import ContextError, DeviceError, FileError, RequestError
from opsin.spans import Prompt

LENGTHS = (1, 2, 63, 64, 65, 200)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_llama(tmp_path_factory.mktemp("pool") / "m.gguf")
    with opsin.load(path, threads=2, context=640, sequences=4, pages="f32") as made:
        yield made


def ids(length: int) -> list[int]:
    return [7 * i % 90 + 3 for i in range(length)]


def pool(model, lengths, pooling, **more):
    return model.text.pooler.pool([Prompt.of([ids(length)]) for length in lengths], pooling, **more)


def test_they_are_what_the_definitions_make_of_the_states(model):
    states = {length: model.trace(ids(length), ["norm"])["norm"] for length in LENGTHS}
    made = {pooling: pool(model, LENGTHS, pooling) for pooling in ("mean", "cls", "last", "none")}
    for number, length in enumerate(LENGTHS):
        truth = states[length].astype(np.float64)
        for pooling, value in (("mean", truth.mean(axis=0)), ("cls", truth[0]), ("last", truth[-1]), ("none", truth)):
            np.testing.assert_allclose(made[pooling][number], value, rtol=0, atol=1e-4)
            assert made[pooling][number].dtype == np.float32


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "none"])
def test_a_text_gets_the_same_bits_alone_in_company_and_in_small_steps(model, pooling, monkeypatch):
    together = pool(model, (*LENGTHS, *LENGTHS), pooling)
    monkeypatch.setattr(model.engine, "rows_between", lambda: 13)
    for number, length in enumerate(LENGTHS):
        (alone,) = pool(model, [length], pooling)
        assert np.array_equal(alone, together[number])
        assert np.array_equal(alone, together[number + len(LENGTHS)])


def test_requests_of_many_threads_share_steps(model):
    steps, go = [], threading.Event()
    program = pool(model, [1], "last") and model.text.pooler._program
    run, made, threads = program.run, {}, []
    program.run = lambda parts: (steps.append(len(parts)), run(parts))[1]
    threading.Thread(target=lambda: model.engine.call(go.wait), daemon=True).start()
    try:
        for length in LENGTHS:
            ask = threading.Thread(target=lambda length=length: made.update({length: pool(model, [length], "mean")[0]}))
            ask.start()
            threads.append(ask)
        until(lambda: len(model.text.pooler._coming) == len(LENGTHS))
    finally:
        go.set()
        for ask in threads:
            ask.join()
        program.run = run
    assert sum(steps) == len(LENGTHS)  # each in one step
    assert max(steps) == 4  # of as many sequences as a step takes
    for length, value in made.items():
        assert np.array_equal(value, pool(model, [length], "mean")[0])


def test_answers_go_on_meanwhile_and_are_the_same(model):
    options = {"temperature": 9.0, "seed": 1, "max_tokens": 40, "ignore_eos": True}
    alone, told = str(model.complete("the rain", **options)), pool(model, [600], "mean")[0]
    running = model.complete("the rain", **options)
    assert np.array_equal(pool(model, [600], "mean")[0], told)
    assert str(running) == alone


def test_whoever_does_not_wait_any_more_ends_it_and_no_page_is_lost(model, monkeypatch):
    free, looks = model.engine.pool.free, []
    monkeypatch.setattr(model.engine, "rows_between", lambda: 16)

    def check():
        looks.append(1)
        if len(looks) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool(model, [200] * 6, "mean", check=check)
    assert model.engine.pool.free == free
    assert not model.text.pooler._begun
    assert len(pool(model, [3], "last")) == 1
    assert not model.text.pooler._coming


def test_what_is_empty_too_long_or_no_id_is_refused_and_the_longest_fits(model):
    with pytest.raises(RequestError, match="empty"):
        pool(model, [0], "mean")
    with pytest.raises(ContextError, match=r"641 tokens\) is too large: it exceeds the available context size \(640"):
        pool(model, [641], "mean")
    with pytest.raises(RequestError, match="vocabulary"):
        model.text.pooler.pool([Prompt.of([[1 << 20]])], "mean")
    assert len(pool(model, [640], "last")) == 1


def test_states_that_are_no_numbers_are_the_file_s_fault(model, monkeypatch):
    free, program = model.engine.pool.free, pool(model, [1], "last") and model.text.pooler._program
    run = program.run
    monkeypatch.setattr(program, "run", lambda parts: np.where(np.arange(64) == 3, np.nan, run(parts)))
    with pytest.raises(FileError, match="no numbers"):
        pool(model, [3, 5], "mean")
    assert model.engine.pool.free == free


def test_a_step_that_fails_is_the_failure_of_those_in_it(model, monkeypatch):
    free, program = model.engine.pool.free, pool(model, [1], "last") and model.text.pooler._program
    with monkeypatch.context() as broken, pytest.raises(opsin.OpsinError):
        broken.setattr(program, "run", lambda parts: 1 // 0)
        pool(model, [3, 5], "mean")
    assert model.engine.pool.free == free
    assert len(pool(model, [3, 5], "mean")) == 2


def test_a_model_that_is_closed_says_so(tmp_path):
    model = opsin.load(tiny_llama(tmp_path / "m.gguf"), threads=1, context=64, sequences=1)
    model.close()
    with pytest.raises(DeviceError, match="closed"):
        pool(model, [3], "mean")
