"""Steps with guesses: every answer is, to the bit, what it is without, in fewer steps where guesses are right."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from draws import check_draws
from forms import Anything, Places, some_places
from oracles import know
from prompts import LIMITS, ids_of, prompt_of
from waiting import PATIENCE, until

from opsin.engine.engine import Engine
from opsin.engine.guessing import Guessing
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.errors import RequestError
from opsin.spans import Prompt

ALWAYS = Guessing(most=5, always=True)
END = 7
MISTAKES = [0.0, 0.3, 1.0]


def told(stream):
    """All that a stream tells, but when."""
    return [(output.id, output.reason, output.logprobs) for output in stream]


def ids(stream):
    return [output.id for output in stream if output.id is not None]


@pytest.fixture(scope="module")
def runner(decoder):
    return Runner(*decoder, LIMITS, "f16")


@pytest.fixture
def make(decoder, runner):
    """Engines on a runner of their own or the module's, which hold nothing in the end."""
    made = []

    def engine(guessing=ALWAYS, limits=None):
        own = runner if limits is None else Runner(*decoder, limits, "f16")
        made.append((Engine(own, frozenset({END}), guessing=guessing), own.limits.pages))
        return made[-1][0]

    yield engine
    for one, pages in made:
        assert until(lambda one=one, pages=pages: one.pool.free == pages)
        one.pool.check()
        one.close()


@pytest.fixture
def steps(runner, monkeypatch):
    """Rows of each step, guesses among them."""
    seen, step = [], runner.step

    def watched(plan):
        seen.append(sum(part.rows + len(part.guesses) for part in plan))
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    return seen


SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, max_tokens=40),
    "drawn": Sampling(seed=4, max_tokens=40, ignore_eos=True),
    "told": Sampling(seed=1, max_tokens=40, logprobs=3),
    "told as drawn": Sampling(seed=1, max_tokens=40, logprobs=2, post_sampling_probs=True),
    "penalties": Sampling(seed=2, max_tokens=40, repeat_penalty=1.4, presence_penalty=0.5, temperature=0.3),
    "runs": Sampling(seed=2, max_tokens=40, dry_multiplier=0.8, temperature=0.3),
    "mirostat": Sampling(seed=3, max_tokens=40, mirostat=2),
    "adaptive": Sampling(seed=3, max_tokens=40, samplers=("adaptive_p",), adaptive_target=0.4),
    "left out": Sampling(seed=3, max_tokens=40, xtc_probability=0.5, xtc_threshold=0.01),
    "all of the vocabulary": Sampling(seed=5, max_tokens=40, top_k=0, top_p=1.0, min_p=0.0),
    "at least": Sampling(seed=6, max_tokens=40, min_tokens=20),
}  # fmt: skip


@pytest.mark.parametrize("mistakes", MISTAKES)
def test_answers_are_those_without_guesses(make, monkeypatch, mistakes):
    """However they are drawn, alone and in company: ids, reasons and log-probabilities, to the bit."""
    jobs = [(ids_of(5 + 13 * i, seed=i), sampling) for i, sampling in enumerate(SAMPLINGS.values())]
    plain = make(None)
    expected = [told(plain.submit(Prompt.of([prompt]), sampling)) for prompt, sampling in jobs]
    answers = {tuple(prompt): [o[0] for o in said] for (prompt, _), said in zip(jobs, expected, strict=True)}
    know(monkeypatch, {prompt: [id for id in said if id is not None] for prompt, said in answers.items()}, mistakes)
    guessing = make()
    alone = [told(guessing.submit(Prompt.of([prompt]), sampling)) for prompt, sampling in jobs]
    assert alone == expected
    streams = [guessing.submit(Prompt.of([prompt]), sampling) for prompt, sampling in jobs]
    assert [told(stream) for stream in streams] == expected


def test_right_guesses_save_steps_and_wrong_ones_cost_none(make, steps, monkeypatch):
    prompt, sampling = ids_of(10), Sampling(seed=3, max_tokens=25, ignore_eos=True)
    answer = ids(make(None).submit(Prompt.of([prompt]), sampling))
    assert len(steps) == 25
    for mistakes, expected in ((0.0, [10, 6, 6, 6, 6]), (1.0, [10, *[6] * 19, 5, 4, 3, 2, 1])):
        steps.clear()
        know(monkeypatch, {tuple(prompt): answer}, mistakes)
        engine = make()
        stream = engine.submit(Prompt.of([prompt]), sampling)
        assert ids(stream) == answer
        assert steps == expected
        guessed, right = sum(expected) - 10 - len(expected) + 1, 0 if mistakes else 20
        assert (stream.guessed, stream.right) == (guessed, right)
        figures = engine.watch.figures()
        assert (figures.guessed, figures.right, figures.guessing) == (guessed, right, sum(n > 1 for n in expected[1:]))


def test_an_answer_that_repeats_itself_is_guessed_from_itself(make, steps):
    """A tiny model goes round: what it says again is looked up."""
    sampling = Sampling(temperature=0.0, max_tokens=60, ignore_eos=True)
    prompt = [*ids_of(6), *ids_of(6)]
    answer = ids(make(None).submit(Prompt.of([prompt]), sampling))
    steps.clear()
    assert ids(make().submit(Prompt.of([prompt]), sampling)) == answer
    assert len(steps) < 60


def test_logits_after_guesses_are_those_of_a_whole_pass(make, runner, monkeypatch):
    prompt, sampling = ids_of(60), Sampling(seed=3, max_tokens=30, ignore_eos=True)
    answer = ids(make(None).submit(Prompt.of([prompt]), sampling))
    know(monkeypatch, {tuple(prompt): answer}, 0.3)
    seen, step = {}, runner.step

    def watched(plan):
        candidates = step(plan)
        for row, logits in enumerate(candidates.whole()):
            first = plan[0].start + plan[0].rows - len(prompt)  # the place of the id that comes next
            if [*plan[0].guesses[:row]] == answer[first : first + row]:
                seen[first + row] = logits.copy()
        return candidates

    monkeypatch.setattr(runner, "step", watched)
    engine = make()
    assert ids(engine.submit(Prompt.of([prompt]), sampling)) == answer
    whole = engine.call(lambda: runner.score(prompt + answer, list(range(3))))
    assert all(np.array_equal(seen[place], whole[len(prompt) - 1 + place]) for place in range(30))


@pytest.mark.parametrize("mistakes", MISTAKES)
def test_a_form_is_asked_for_each_id_as_it_is_drawn(make, monkeypatch, mistakes):
    prompt, places = ids_of(70), some_places(20)
    sampling = Sampling(temperature=0.0, max_tokens=40)
    answer = ids(make(None).submit(Prompt.of([prompt]), sampling, constraint=Places(*places)))
    know(monkeypatch, {tuple(prompt): answer}, mistakes)
    form = Places(*places)
    outputs = list(make().submit(Prompt.of([prompt]), sampling, constraint=form))
    assert [output.id for output in outputs] == answer == form.taken
    assert outputs[-1].reason == "stop"


def test_forms_and_free_answers_share_steps_with_guesses(make, monkeypatch):
    jobs = [(ids_of(9 + i, seed=i), Sampling(seed=i, max_tokens=20), i) for i in range(8)]

    def form(number):
        return (None, Anything(), Places(*some_places(30, seed=number)))[number % 3]

    plain = make(None)
    expected = [ids(plain.submit(Prompt.of([p]), s, constraint=form(i))) for p, s, i in jobs]
    know(monkeypatch, {tuple(p): answer for (p, _, _), answer in zip(jobs, expected, strict=True)}, 0.3)
    engine = make()
    streams = [engine.submit(Prompt.of([p]), s, constraint=form(i)) for p, s, i in jobs]
    assert [ids(stream) for stream in streams] == expected


@pytest.mark.parametrize("tokens", range(1, 9))
def test_no_row_is_guessed_beyond_the_last_id(make, steps, monkeypatch, tokens):
    prompt = ids_of(10)
    answer = ids(make(None).submit(Prompt.of([prompt]), Sampling(seed=3, max_tokens=30, ignore_eos=True)))
    know(monkeypatch, {tuple(prompt): answer})
    steps.clear()
    outputs = told(make().submit(Prompt.of([prompt]), Sampling(seed=3, max_tokens=tokens, ignore_eos=True)))
    assert [output[0] for output in outputs] == answer[:tokens]
    assert outputs[-1][1] == "length"
    assert sum(steps) == 10 + tokens - 1  # the last id is not computed


def test_an_answer_ends_at_the_context_as_without_guesses(make, monkeypatch):
    prompt, limits = ids_of(100), Limits(rows=64, outputs=8, sequences=8, context=128, pages=8)
    sampling = Sampling(seed=3, ignore_eos=True)
    expected = told(make(None, limits).submit(Prompt.of([prompt]), sampling))
    know(monkeypatch, {tuple(prompt): [*(output[0] for output in expected), *range(20)]})  # it would go on
    assert told(make(limits=limits).submit(Prompt.of([prompt]), sampling)) == expected
    assert len(expected) == 28


def test_what_ends_an_answer_among_right_guesses_ends_it(make, monkeypatch):
    """The engine guessed on behind it."""
    prompt = ids_of(10)
    answer = ids(make(None).submit(Prompt.of([prompt]), Sampling(seed=3, max_tokens=20, ignore_eos=True)))
    know(monkeypatch, {tuple(prompt): answer})
    stop = answer[9]
    sampling = Sampling(seed=3, max_tokens=20, ignore_eos=True, stop_token_ids=(stop,))
    first = answer.index(stop)
    assert told(make().submit(Prompt.of([prompt]), sampling)) == [
        *((id, None, None) for id in answer[:first]), (None, "stop", None),
    ]  # fmt: skip


def test_the_cache_holds_of_an_answer_what_it_holds_without(make, monkeypatch):
    prompt, sampling = ids_of(50), Sampling(seed=3, max_tokens=100, ignore_eos=True)
    plain = make(None)
    answer = ids(plain.submit(Prompt.of([prompt]), sampling))
    following = Prompt.of([prompt + answer + ids_of(5)])
    again = plain.submit(following, sampling)
    expected = ids(again), again.cached
    know(monkeypatch, {tuple(prompt): answer}, 0.2)
    engine = make()
    assert ids(engine.submit(Prompt.of([prompt]), sampling)) == answer
    stream = engine.submit(following, sampling)
    assert (ids(stream), stream.cached) == expected
    assert stream.cached == 149


def test_guesses_never_make_others_wait(make, monkeypatch):
    """In a cache too small for all, answers are what they are alone, and pages come back."""
    jobs = [(ids_of(40 + i, seed=i), Sampling(seed=i, max_tokens=60, ignore_eos=True)) for i in range(6)]
    plain = make(None)
    expected = [ids(plain.submit(Prompt.of([prompt]), sampling)) for prompt, sampling in jobs]
    know(monkeypatch, {tuple(p): answer for (p, _), answer in zip(jobs, expected, strict=True)}, 0.2)
    small = make(limits=Limits(rows=64, outputs=8, sequences=8, context=192, pages=5))
    streams = [small.submit(Prompt.of([prompt]), sampling) for prompt, sampling in jobs]
    assert [ids(stream) for stream in streams] == expected


def test_a_step_has_no_more_outputs_than_its_program(make, monkeypatch):
    jobs = [(ids_of(10 + i, seed=i), Sampling(seed=i, max_tokens=30, ignore_eos=True)) for i in range(8)]
    plain = make(None)
    expected = [ids(plain.submit(Prompt.of([prompt]), sampling)) for prompt, sampling in jobs]
    know(monkeypatch, {tuple(p): answer for (p, _), answer in zip(jobs, expected, strict=True)})
    few = make(limits=replace(LIMITS, sequences=8, outputs=11))
    streams = [few.submit(Prompt.of([prompt]), sampling) for prompt, sampling in jobs]
    assert [ids(stream) for stream in streams] == expected


def test_cancelled_among_guesses_its_pages_are_free_and_others_go_on(make, runner, monkeypatch):
    jobs = [(ids_of(10 + i, seed=i), Sampling(seed=i, max_tokens=80, ignore_eos=True)) for i in range(4)]
    plain = make(None)
    expected = [ids(plain.submit(Prompt.of([prompt]), sampling)) for prompt, sampling in jobs]
    know(monkeypatch, {tuple(p): answer for (p, _), answer in zip(jobs, expected, strict=True)}, 0.2)
    held, gate, step = threading.Event(), threading.Event(), runner.step

    def watched(plan):
        if any(part.guesses for part in plan):
            held.set()
            gate.wait(PATIENCE)
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    engine = make()
    streams = [engine.submit(Prompt.of([prompt]), sampling) for prompt, sampling in jobs]
    assert held.wait(PATIENCE)
    streams[1].cancel()
    gate.set()
    assert [ids(stream) for stream in (streams[0], *streams[2:])] == [expected[0], *expected[2:]]
    assert list(streams[1])[-1].reason == "cancelled"


def test_a_failing_row_among_guesses_ends_its_sequence_alone(make, monkeypatch):
    def fails(ids, logits):
        if len(ids) == 15:
            raise ValueError("no fifteenth")

    jobs = [(ids_of(10, seed=i), Sampling(seed=i, max_tokens=20, ignore_eos=True)) for i in range(3)]
    plain = make(None)
    expected = [ids(plain.submit(Prompt.of([prompt]), sampling)) for prompt, sampling in jobs]
    know(monkeypatch, {tuple(p): answer for (p, _), answer in zip(jobs, expected, strict=True)})
    engine = make()
    samplings = [jobs[0][1], replace(jobs[1][1], processors=(fails,)), jobs[2][1]]
    streams = [engine.submit(Prompt.of([p]), s) for (p, _), s in zip(jobs, samplings, strict=True)]
    assert ids(streams[0]) == expected[0]
    with pytest.raises(RequestError, match="no fifteenth"):
        list(streams[1])
    assert ids(streams[2]) == expected[2]


def test_drawn_ids_have_the_distribution_of_the_model(make, runner, monkeypatch):
    """Guesses are always of the likeliest id: those who take it too often, or too seldom, are seen."""
    prompt, sampling = ids_of(10), Sampling(temperature=1.0, top_k=4, top_p=1.0, min_p=0.0, max_tokens=2)
    engine = make()
    first = engine.call(lambda: runner.score(prompt, [0]))[-1]
    likeliest = int(first.argmax())
    second = engine.call(lambda: runner.score([*prompt, likeliest], [0]))[-1]
    know(monkeypatch, {tuple(prompt): [likeliest, int(second.argmax())]})
    streams = [engine.submit(prompt_of(10), replace(sampling, seed=seed, max_tokens=3)) for seed in range(400)]
    answers = [ids(stream) for stream in streams]
    follow = [answer[1] for answer in answers if answer[0] == likeliest and len(answer) > 1]
    check_draws(follow, second)


def test_more_guesses_than_a_step_looks_at_are_refused():
    with pytest.raises(RequestError, match="64 guesses a step"):
        Guessing(most=64)


def test_what_a_form_forces_is_computed_at_once(make, steps):
    """All of it, where nothing stands in the text that could be looked up."""
    prompt, sampling = ids_of(10), Sampling(temperature=0.0, max_tokens=40)
    form = Places({8, 9}, {20}, {21}, {22}, {23}, {24, 25})
    answer = ids(make(None).submit(Prompt.of([prompt]), sampling, constraint=Places(*form.places)))
    steps.clear()
    assert ids(make().submit(Prompt.of([prompt]), sampling, constraint=form)) == answer
    assert answer[1:5] == [20, 21, 22, 23]
    assert steps == [10, 5]
