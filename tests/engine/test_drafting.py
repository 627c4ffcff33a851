"""A smaller model guesses: answers are those without it, and it keeps up with what was drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles import know
from prompts import LIMITS, ids_of
from waiting import until

from opsin.engine.draft_model import DraftModel
from opsin.engine.engine import Engine
from opsin.engine.guessing import Guessing
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.errors import FileError
from opsin.spans import Prompt

GREEDY = Sampling(temperature=0.0, max_tokens=40, ignore_eos=True)


def ids(stream):
    return [output.id for output in stream if output.id is not None]


@pytest.fixture(scope="module")
def runner(decoder):
    return Runner(*decoder, LIMITS, "f16")


@pytest.fixture(autouse=True)
def blind(monkeypatch):
    """Nothing is looked up in texts."""
    know(monkeypatch, {})


@pytest.fixture
def make(decoder, runner):
    """Engines whose draft model is the model itself; in the end neither holds a page."""
    made = []

    def engine(draft=True, limits=LIMITS, always=True):
        drafter = DraftModel(Runner(*decoder, limits, "f16")) if draft else None
        guessing = Guessing(most=4, always=always, drafter=drafter)
        made.append((Engine(runner, frozenset(), guessing=guessing), drafter))
        return made[-1]

    yield engine
    for one, drafter in made:
        assert until(lambda one=one: one.pool.free == LIMITS.pages)
        if drafter is not None:
            assert until(lambda drafter=drafter: drafter.pool.free == drafter.pool.count)
            one.call(drafter.pool.check)
        one.close()


@pytest.fixture
def steps(runner, monkeypatch):
    seen, step = [], runner.step
    monkeypatch.setattr(
        runner, "step", lambda plan: seen.append(sum(p.rows + len(p.guesses) for p in plan)) or step(plan)
    )
    return seen


def test_a_draft_model_that_is_the_model_is_always_right_and_greedy_answers_are_the_same(make, steps):
    prompt = Prompt.of([ids_of(100)])
    answer = ids(make(draft=False)[0].submit(prompt, GREEDY))
    steps.clear()
    stream = make()[0].submit(prompt, GREEDY)
    assert ids(stream) == answer
    assert stream.guessed == stream.right
    assert steps == [64, 36, 1, *[5] * 7, 3]  # it reads what a step may have, and is a step late


def test_drawn_answers_in_company_are_those_without(make):
    """Drawn ids are often not the likeliest: the draft model goes on from what was drawn."""
    jobs = [
        (Prompt.of([ids_of(5 + 23 * i, seed=i)]), Sampling(seed=i, max_tokens=20 + i, temperature=0.5))
        for i in range(8)
    ]
    plain = make(draft=False)[0]
    expected = [ids(plain.submit(*job)) for job in jobs]
    for limits in (LIMITS, replace(LIMITS, pages=6), replace(LIMITS, rows=16, context=64)):
        engine, _ = make(limits=limits)
        streams = [engine.submit(*job) for job in jobs]
        assert [ids(stream) for stream in streams] == expected
        right, guessed = (sum(getattr(stream, name) for stream in streams) for name in ("right", "guessed"))
        assert 0 < right <= guessed
        assert limits is not LIMITS or right < guessed


def test_pages_of_a_prompt_are_found_again(make):
    prompt = Prompt.of([ids_of(200)])
    engine, drafter = make()
    rows, step = [], drafter._runner.step
    drafter._runner.step = lambda plan: rows.append(sum(part.rows for part in plan)) or step(plan)
    first = ids(engine.submit(prompt, GREEDY))
    assert sum(rows) > 200
    rows.clear()
    assert ids(engine.submit(prompt, GREEDY)) == first
    assert sum(rows) < 70


def test_a_draft_model_whose_logits_are_no_numbers_guesses_nothing(make):
    prompt = Prompt.of([ids_of(20)])
    answer = ids(make(draft=False)[0].submit(prompt, GREEDY))
    engine, drafter = make()
    step = drafter._runner.step
    drafter._runner.step = lambda plan: (made := step(plan))._replace(sums=made.sums * np.float32("nan"))
    stream = engine.submit(prompt, GREEDY)
    assert ids(stream) == answer
    assert stream.guessed == 0


def test_a_draft_model_that_fails_fails_those_that_take_part(make):
    engine, drafter = make()

    def fails(plan):
        raise FileError("the draft broke")

    step, drafter._runner.step = drafter._runner.step, fails
    with pytest.raises(FileError, match="the draft broke"):
        ids(engine.submit(Prompt.of([ids_of(20)]), GREEDY))
    drafter._runner.step = step
    assert len(ids(engine.submit(Prompt.of([ids_of(20)]), GREEDY))) == 40


def test_what_never_pays_is_left_alone_but_for_a_try_now_and_then(make):
    """A draft model that costs more than the model itself."""
    engine, drafter = make(always=False)
    guesses, asked = drafter.guesses, []

    def slow(wanted):
        asked.append(wanted)
        made = guesses(wanted)
        drafter.seconds = 10.0
        return made

    drafter.guesses = slow
    stream = engine.submit(Prompt.of([ids_of(20)]), replace(GREEDY, max_tokens=200))
    assert len(ids(stream)) == 200
    assert 1 < len(asked) <= 8
