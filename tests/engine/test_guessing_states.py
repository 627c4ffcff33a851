"""Guesses where states cannot be cut back, and beside pictures: answers and what is kept of them are as without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import recurrent_decoder as toy
from memory_decoder import Made
from oracles import know
from test_recurrent_engine import LIMITS, Eye, ids_of, picture
from waiting import until

from opsin.engine.engine import Engine
from opsin.engine.guessing import Guessing
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.ops.device import Stopped
from opsin.spans import Prompt

ALWAYS = Guessing(most=5, always=True)


@pytest.fixture(scope="module")
def decoder(device):
    return toy.RecurrentDecoder.load(Made(device.eager(), toy.tensors()))


@pytest.fixture
def make(device, decoder):
    """Engines, which hold nothing in the end."""
    made = []

    def engine(guessing=ALWAYS, **limits):
        runner = Runner(device, decoder, replace(LIMITS, **limits), "f32", MediaStore(1 << 22))
        made.append(Engine(runner, frozenset(), Eye(device).load, guessing))
        return made[-1]

    yield engine
    for one in made:
        pool = one.states.pool
        assert until(lambda one=one: not one.watch.figures().leaked), one.watch.figures()
        assert until(lambda one=one, pool=pool: (one.pool.free, pool.free) == (one.pool.count, pool.count))
        pool.check()
        one.pool.check()
        one.close()


def drawn(seed, tokens):
    return Sampling(seed=seed, temperature=0.8, max_tokens=tokens)


def ids(stream):
    return [output.id for output in stream if output.id is not None]


def jobs_of(count):
    """Prompts of text, every third with a picture, and how they are answered."""
    texts = [ids_of(5 + 37 * i, seed=i) for i in range(count)]
    spans = [[text, picture(40, seed=i), text[:4]] if i % 3 == 2 else [text] for i, text in enumerate(texts)]
    return [(Prompt.of(some), drawn(i, 50 + 3 * i)) for i, some in enumerate(spans)]


def texts_of(prompt):
    return tuple(id for span in prompt.spans if hasattr(span, "ids") for id in span.ids)


@pytest.mark.parametrize("mistakes", [0.0, 0.15, 1.0])
def test_answers_are_those_without_guesses_in_any_company_and_pool(make, monkeypatch, mistakes):
    jobs = jobs_of(4)
    plain = make(None)
    expected = [ids(plain.submit(*job)) for job in jobs]
    assert len({tuple(answer[:8]) for answer in expected}) == 4
    know(monkeypatch, {texts_of(p): answer for (p, _), answer in zip(jobs, expected, strict=True)}, mistakes)
    for limits in ({}, {"states": 1}, {"states": 5, "pages": 8}):
        engine = make(**limits)
        assert ids(engine.submit(*jobs[2])) == expected[2]
        streams = [engine.submit(*job) for job in jobs]
        assert [ids(stream) for stream in streams] == expected


def test_right_guesses_save_steps_and_wrong_ones_have_rows_computed_again(make, monkeypatch):
    prompt, sampling = ids_of(10), drawn(3, 20)
    answer = ids(make(None).submit(Prompt.of([prompt]), sampling))
    wrong = [*answer]
    wrong[3] ^= 1
    for told, expected in (
        (answer, [(10, 0), (1, 5), (1, 5), (1, 5), (1, 0)]),
        # Of the first five two are right: three rows come again with the next one, and room for two guesses is left.
        (wrong, [(10, 0), (1, 5), (4, 2), (1, 5), (1, 5), (1, 0)]),
    ):
        know(monkeypatch, {tuple(prompt): told})
        engine, seen = make(), []
        step = engine._runner.step

        def watched(plan, step=step, seen=seen):
            seen.append((plan[0].rows, len(plan[0].guesses)))
            assert plan[0].sequence.is_ready or plan[0].rows == 10  # no prompt goes before its next id
            return step(plan)

        engine._runner.step = watched
        assert ids(engine.submit(Prompt.of([prompt]), sampling)) == answer
        assert seen == expected


@pytest.mark.parametrize("mistakes", [0.0, 0.2])
def test_states_of_answers_are_kept_where_they_are_without_guesses(make, monkeypatch, mistakes):
    prompt, sampling = ids_of(100), drawn(1, 90)
    plain = make(None)
    answer = ids(plain.submit(Prompt.of([prompt]), sampling))
    after = Prompt.of([[*prompt, *answer[:60], *ids_of(20, 5)]])  # its last full page
    ended = Prompt.of([[*prompt, *answer, *ids_of(20, 6)]])
    expected = []
    for following in (after, ended):
        stream = plain.submit(following, drawn(2, 10))
        expected.append((ids(stream), stream.cached))
    assert [cached for _, cached in expected] == [128, 189]
    know(monkeypatch, {tuple(prompt): answer}, mistakes)
    engine = make()
    assert ids(engine.submit(Prompt.of([prompt]), sampling)) == answer
    for following, (said, cached) in zip((after, ended), expected, strict=True):
        stream = engine.submit(following, drawn(2, 10))
        assert ids(stream) == said
        assert stream.cached == cached if following is after or not mistakes else stream.cached >= 128


def test_an_answer_that_was_stopped_among_guesses_goes_on_from_what_is_whole(make, monkeypatch):
    prompt, sampling = ids_of(100), drawn(1, 90)
    plain = make(None)
    answer = ids(plain.submit(Prompt.of([prompt]), sampling))
    longer = Prompt.of([[*prompt, *answer[:60], 1, 2, 3]])
    expected = ids(plain.submit(longer, drawn(2, 10)))
    know(monkeypatch, {tuple(prompt): answer})
    engine = make()
    stream, step = engine.submit(Prompt.of([prompt]), sampling), engine._runner.step

    def stopped(plan):
        made = step(plan)
        if plan[0].sequence.known < 150 or not plan[0].guesses:
            return made
        stream.cancel()
        raise Stopped

    monkeypatch.setattr(engine._runner, "step", stopped)
    assert list(stream)[-1].reason == "cancelled"
    monkeypatch.setattr(engine._runner, "step", step)
    assert ids(engine.submit(longer, drawn(2, 10))) == expected


def test_who_waits_for_a_slot_gets_it_while_others_guess(make, monkeypatch):
    """A slot beside a state is held for a step alone."""
    jobs = [(Prompt.of([ids_of(20, seed=i)]), drawn(i, 50)) for i in range(3)]
    plain = make(None)
    expected = [ids(plain.submit(*job)) for job in jobs]
    know(monkeypatch, {texts_of(p): answer for (p, _), answer in zip(jobs, expected, strict=True)}, 0.2)
    engine, running = make(states=2), []
    step = engine._runner.step
    engine._runner.step = lambda plan: running.append(len(plan)) or step(plan)
    streams = [engine.submit(*job) for job in jobs]
    assert [ids(stream) for stream in streams] == expected
    assert max(running) == 2
