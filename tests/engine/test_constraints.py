"""Answers that are held to a form: the likeliest of what may follow, alone and in company, up to their end."""

from __future__ import annotations

import threading

import pytest
from forms import Anything, Places, some_places
from prompts import LIMITS, ids_of, prompt_of
from waiting import PATIENCE, until

from opsin.engine.engine import Engine
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.errors import DeviceError, RequestError
from opsin.spans import Prompt

GREEDY = Sampling(temperature=0.0, max_tokens=40)


def answer(stream):
    """Its ids, and why it ended."""
    outputs = list(stream)
    return [output.id for output in outputs if output.id is not None], outputs[-1].reason


@pytest.fixture(scope="module")
def runner(decoder):
    return Runner(*decoder, LIMITS, "f16")


@pytest.fixture
def engine(runner):
    made = Engine(runner, frozenset({7}))
    yield made
    assert until(lambda: made.pool.free == LIMITS.pages)
    made.close()


def test_the_likeliest_of_what_may_follow_is_taken_up_to_the_end_of_the_form(engine, runner):
    prompt, places = ids_of(70), some_places(20)
    form = Places(*places)
    ids, reason = answer(engine.submit(Prompt.of([prompt]), GREEDY, constraint=form))
    assert (len(ids), reason) == (20, "stop")
    assert form.taken == ids
    logits = engine.call(lambda: runner.score(prompt + ids, list(range(3))))
    for place, row, id in zip(form.places, logits[len(prompt) - 1 :], ids, strict=False):
        assert id == max(place, key=lambda i: row[i])


def test_the_end_of_the_form_takes_no_step_more(engine, runner, monkeypatch):
    steps, step = [], runner.step
    monkeypatch.setattr(runner, "step", lambda plan: steps.append(len(plan)) or step(plan))
    assert answer(engine.submit(prompt_of(5), GREEDY, constraint=Places({1}, {2}, {3}))) == ([1, 2, 3], "stop")
    assert len(steps) == 3


def test_an_end_of_the_answer_is_taken_where_the_form_lets_it_and_is_not_told_to_it(engine):
    form = Places({1}, {7}, {2})
    assert answer(engine.submit(prompt_of(5), GREEDY, constraint=form)) == ([1], "stop")
    assert form.taken == [1]
    ignoring = Sampling(temperature=0.0, ignore_eos=True)
    assert answer(engine.submit(prompt_of(5), ignoring, constraint=Places({1}, {7}, {2}))) == ([1, 7, 2], "stop")


def test_a_form_that_goes_on_is_cut_by_the_length(engine):
    sampling = Sampling(temperature=0.0, max_tokens=2)
    assert answer(engine.submit(prompt_of(5), sampling, constraint=Places({1}, {2}, {3}))) == ([1, 2], "length")
    assert answer(engine.submit(prompt_of(5), sampling, constraint=Places({1}, {2}))) == ([1, 2], "stop")


def test_a_constraint_that_lets_all_changes_nothing(engine):
    sampling = Sampling(seed=1, max_tokens=12)
    assert answer(engine.submit(prompt_of(5), sampling, constraint=Anything())) == answer(
        engine.submit(prompt_of(5), sampling)
    )


def test_answers_in_company_equal_those_alone(engine):
    """Held and free, greedy and drawn, with a top k, without and with log-probabilities."""
    kinds = [{"temperature": 0.0}, {}, {"top_k": 0}, {"logprobs": 3}, {"temperature": 2.0, "top_p": 1.0}]
    jobs = [
        (prompt_of(5 + 23 * i, seed=i), Sampling(seed=i, max_tokens=20, **kinds[i % 5]), some_places(10 + i, i))
        for i in range(15)
    ]

    def submit(prompt, sampling, places):
        held = None if sampling.seed % 4 == 3 else Places(*places)
        return engine.submit(prompt, sampling, constraint=held)

    alone = [list(submit(*job)) for job in jobs]
    together = [list(stream) for stream in [submit(*job) for job in jobs]]
    assert together == alone
    assert {outputs[-1].reason for outputs in together} == {"stop", "length"}


def test_a_sequence_that_starts_again_goes_on_in_its_form(decoder, engine):
    jobs = [(prompt_of(40 + i, seed=i), Sampling(seed=i, max_tokens=60), some_places(60, i)) for i in range(6)]
    plain = [answer(engine.submit(p, s, constraint=Places(*places))) for p, s, places in jobs]
    assert all(reason == "stop" and len(ids) == 60 for ids, reason in plain)
    small = Engine(Runner(*decoder, Limits(rows=64, outputs=8, sequences=8, context=192, pages=5), "f16"), frozenset())
    started = [small.submit(p, s, constraint=Places(*places)) for p, s, places in jobs]
    assert [answer(stream) for stream in started] == plain
    small.close()


def test_a_cancelled_answer_ends_while_its_mask_is_made(engine):
    asked, let_go = threading.Event(), threading.Event()

    class Slow(Anything):
        def mask(self):
            asked.set()
            let_go.wait(PATIENCE)

    stream = engine.submit(prompt_of(5), Sampling(max_tokens=500), constraint=Slow())
    assert asked.wait(PATIENCE)
    stream.cancel()
    let_go.set()
    assert answer(stream)[1] == "cancelled"
    assert answer(engine.submit(prompt_of(5), GREEDY, constraint=Places({1}))) == ([1], "stop")


class Broken(Places):
    """Raises at the second place."""

    def __init__(self, *, where):
        super().__init__({1}, {2}, {3})
        self.where = where

    def _fail(self, where):
        if where == self.where and len(self.taken) == 1:
            raise RequestError("the form broke")

    def mask(self):
        self._fail("mask")
        return super().mask()

    def accept(self, id):
        self._fail("accept")
        super().accept(id)


@pytest.mark.parametrize("where", ["mask", "accept"])
def test_what_a_constraint_raises_ends_its_own_answer_alone(engine, where):
    stream = engine.submit(prompt_of(5), GREEDY, constraint=Broken(where=where))
    other = engine.submit(prompt_of(6), GREEDY, constraint=Places({1}, {2}, {3}))
    with pytest.raises(RequestError, match="the form broke"):
        answer(stream)
    assert answer(other) == ([1, 2, 3], "stop")


def test_a_form_that_lets_nothing_follow_is_an_error_of_its_own(engine):
    with pytest.raises(RequestError, match="no token can follow"):
        answer(engine.submit(prompt_of(5), GREEDY, constraint=Places({1}, set(), {2})))


def test_a_panic_of_a_library_ends_its_answer_alone(engine):
    class Panics(Anything):
        def mask(self):
            raise BaseException("panicked")

    with pytest.raises(DeviceError):
        answer(engine.submit(prompt_of(5), GREEDY, constraint=Panics()))
    assert answer(engine.submit(prompt_of(5), GREEDY, constraint=Places({1}))) == ([1], "stop")


def test_masks_are_made_while_the_device_computes(engine, runner, monkeypatch):
    """A step that ends only when its mask is there would otherwise never end."""
    made, step = threading.Event(), runner.step

    class Telling(Places):
        def mask(self):
            made.set()
            return super().mask()

    def waiting(plan):
        assert made.wait(PATIENCE)
        made.clear()
        return step(plan)

    monkeypatch.setattr(runner, "step", waiting)
    assert answer(engine.submit(prompt_of(5), GREEDY, constraint=Telling({1}, {2}, {3}))) == ([1, 2, 3], "stop")
