"""The engine with a decoder that has recurrent states: every answer is what it is alone, wherever it began."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
import recurrent_decoder as toy
from memory_decoder import Made
from waiting import until

from opsin.engine.engine import Engine
from opsin.engine.kept_rows import forget_rows, read_rows, write_rows
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scoring import prompt_logprobs, score
from opsin.engine.states import count_slots
from opsin.engine.trace import trace
from opsin.errors import ModelError, RequestError
from opsin.nn.batch import StateShape
from opsin.ops.device import Stopped
from opsin.spans import Features, MediaSpan, Prompt

LIMITS = Limits(rows=64, outputs=16, sequences=8, context=1024, pages=60, states=20)


class Eye:
    """Gives features as they are."""

    def __init__(self, device):
        self.device = device

    def load(self, turn):
        self.ops = self.device.eager(turn)
        return self

    def encode(self, features):
        return self.ops.constant(features.reshape(-1, toy.WIDTH))


def picture(rows, seed=0):
    values = np.random.default_rng(seed).standard_normal((rows, toy.WIDTH)).astype(np.float32)
    digest = blake2b(values.tobytes(), digest_size=16).digest()
    return MediaSpan(digest, rows, rows, features=Features(values.shape, lambda: values))


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, toy.VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def decoder(device):
    return toy.RecurrentDecoder.load(Made(device.eager(), toy.tensors()))


class Watched:
    """An engine, the rows that its steps computed, and the logits that they gave, by sequence."""

    def __init__(self, device, decoder, limits):
        self.limits = limits
        self.runner = Runner(device, decoder, limits, "f32", MediaStore(1 << 22))
        self.engine = Engine(self.runner, frozenset(), Eye(device).load)
        self.step, self.rows, self.logits = self.runner.step, 0, {}
        self.runner.step = self._step

    def _step(self, plan):
        candidates = self.step(plan)
        self.rows += sum(part.rows for part in plan)
        whole = candidates.whole()
        for row, part in enumerate(part for part in plan if part.wanted):
            self.logits.setdefault(id(part.sequence.stream), []).append(whole[row].copy())
        return candidates

    def submit(self, prompt, seed=0, tokens=12):
        prompt = prompt if isinstance(prompt, Prompt) else Prompt.of([prompt])
        return self.engine.submit(prompt, Sampling(seed=seed, temperature=0.8, max_tokens=tokens))

    def read(self, stream):
        """Ids and logits."""
        ids = [output.id for output in stream if output.id is not None]
        return ids, np.array(self.logits.pop(id(stream)))

    def ask(self, prompt, seed=0, tokens=12):
        stream = self.submit(prompt, seed, tokens)
        return *self.read(stream), stream.cached

    def close(self):
        pool = self.engine.states.pool
        assert until(lambda: not self.engine.watch.figures().leaked), self.engine.watch.figures()
        assert until(lambda: (self.engine.pool.free, pool.free) == (self.limits.pages, self.limits.states))
        assert self.engine.watch.figures().states == 0
        pool.check()
        self.engine.pool.check()
        self.engine.close()


@pytest.fixture
def start(device, decoder):
    """Engines, which hold nothing in the end."""
    made = []

    def make(**limits):
        made.append(Watched(device, decoder, replace(LIMITS, **limits)))
        return made[-1]

    yield make
    for watched in made:
        watched.close()


def equal(one, other):
    return one[0] == other[0] and np.array_equal(one[1], other[1])


def test_answers_follow_from_a_whole_pass_in_any_chunks(start):
    engine, prompt = start(), ids_of(150)
    ids, logits, _ = engine.ask(prompt, tokens=40)
    known = Prompt.of([prompt + ids])
    whole = score(engine.engine, engine.runner, known)
    assert np.array_equal(logits, whole[len(prompt) - 1 : -1])
    for sizes in ([1, 1, 5, 64], [64, 3], [20] * 9):
        assert np.array_equal(score(engine.engine, engine.runner, known, sizes), whole)
    told = prompt_logprobs(engine.engine, engine.runner, known, 1)
    assert len(told) == len(known) - 1
    traced = trace(engine.runner.device, engine.runner.decoder, prompt + ids, ["logits"], {})["logits"]
    assert np.array_equal(traced, whole)


def test_company_neighbours_that_leave_and_small_pools_change_nothing(start):
    jobs = [(ids_of(5 + 37 * i, seed=i), i, 10 + 7 * i) for i in range(8)]
    lonely = start()
    alone = [lonely.ask(*job) for job in jobs]
    assert len({tuple(ids[:8]) for ids, _, _ in alone}) == 8
    for limits in ({}, {"states": 2}, {"states": 5, "pages": 10}, {"states": 1, "pages": 6, "context": 384}):
        engine = start(**limits)
        leaving = [engine.submit(ids_of(100, seed=50 + i), tokens=300) for i in range(3)]
        streams = [engine.submit(*job) for job in jobs]
        next(iter(streams[0]))
        for stream in leaving:
            stream.cancel()
        ids = [output.id for output in streams[0] if output.id is not None]
        assert ids == alone[0][0][1:]
        for stream, expected in zip(streams[1:], alone[1:], strict=True):
            assert equal(engine.read(stream), expected)


def test_forks_share_their_prompt_and_differ_as_alone(start):
    prompt, engine, lonely = ids_of(300), start(), start()
    streams = [engine.submit(prompt, seed) for seed in range(6)]
    answers = [engine.read(stream) for stream in streams]
    assert engine.rows == 300 + 5 * (300 - 256) + 6 * 11
    assert [stream.cached for stream in streams] == [0, *[256] * 5]
    assert len({tuple(ids) for ids, _ in answers}) == 6
    for seed, answer in enumerate(answers):
        assert equal(answer, lonely.ask(prompt, seed))


def test_an_answer_is_the_same_from_every_place_where_a_state_is_kept(start, device, decoder):
    system, image, question = ids_of(200, 1), picture(150), ids_of(250, 2)
    first = Prompt.of([system, image, question])
    engine = start()
    answer, _, _ = engine.ask(first, tokens=70)
    computed = len(first) + 69
    other, more = ids_of(90, 3), ids_of(30, 4)
    prompts = {
        576: Prompt.of([system, image, question]),  # before the prompt's end
        320: Prompt.of([system, image, other]),  # within the picture
        640: Prompt.of([system, image, question, answer[:60], more]),  # the last full page of the answer
        computed: Prompt.of([system, image, question, answer, more]),  # the end of the answer
        0: Prompt.of([system, picture(150, seed=9), other]),
    }
    for cached, prompt in prompts.items():
        again = engine.ask(prompt, seed=5)
        assert again[2] == cached
        assert equal(again, Fresh(device, decoder)(prompt, seed=5))
    assert engine.ask(Prompt.of([system, picture(150, seed=8), other]))[2] == 192  # others began so, too


class Fresh:
    """An engine of its own for one answer."""

    def __init__(self, device, decoder):
        self.made = Watched(device, decoder, replace(LIMITS, rows=48))

    def __call__(self, prompt, seed):
        answer = self.made.ask(prompt, seed)
        assert answer[2] == 0
        self.made.close()
        return answer


def test_a_second_turn_computes_a_twentieth_of_the_first(start):
    engine = start(rows=512, context=4096, pages=80)
    first = Prompt.of([ids_of(1200, 1), picture(600), ids_of(1200, 2)])
    answer, _, _ = engine.ask(first, tokens=80)
    before, engine.rows = engine.rows - 79, 0
    question = ids_of(40, 3)
    second = Prompt.of([*first.spans, answer, question])
    _, _, cached = engine.ask(second, tokens=1)
    assert before == len(first) == 3000
    assert cached == 3079
    assert engine.rows * 20 <= before
    engine.rows = 0  # a template that writes the beginning of an answer otherwise, and leaves its thoughts out
    _, _, cached = engine.ask(Prompt.of([*first.spans[:2], ids_of(1200, 2)[:-8], question]), tokens=1)
    assert cached == 2944
    assert engine.rows * 20 <= before


def test_an_answer_that_was_stopped_goes_on_from_its_last_full_page(start, monkeypatch):
    """Its own state may be half written by the step that was stopped."""
    engine, lonely = start(), start()
    prompt = ids_of(100)
    stream, step, ids = engine.submit(prompt, tokens=300), engine.step, []

    def stopped(plan):
        if plan[0].sequence.known < 200:
            return step(plan)
        step(plan)  # what it computed is not told to anybody
        stream.cancel()
        raise Stopped

    monkeypatch.setattr(engine, "step", stopped)
    ids = [output.id for output in stream if output.id is not None]
    monkeypatch.undo()
    assert len(ids) == 100
    prompt = [*prompt, *ids, 1, 2, 3]
    answer = engine.ask(prompt)
    assert answer[2] == 192
    assert equal(answer, lonely.ask(prompt))


def test_whoever_scores_needs_room_for_two_states(start):
    engine = start(states=1)
    with pytest.raises(RequestError, match="no room for another recurrent state"):
        score(engine.engine, engine.runner, Prompt.of([[1, 2, 3]]))


def test_a_slot_that_is_held_while_nobody_is_there_is_told(start):
    engine = start().engine
    held = engine.call(lambda: engine.states.pool.take(1))
    assert engine.watch.figures().leaked == {"states": 1}
    engine.call(lambda: engine.states.pool.give_back(held))
    assert engine.watch.figures().states_total == LIMITS.states


# How many


SHAPES = {"conv": StateShape(24, (3, 8192)), "delta": StateShape(24, (32, 128, 128))}  # of Qwen 3.5 4B: 52.7 MB


@pytest.mark.parametrize(
    ("size", "sequences", "pages", "slots"),
    [
        (None, 32, 160, 20), (None, 1, 4, 5), (2 << 30, 32, 160, 40), (1 << 40, 32, 160, 192),
        (2 * 52690944, 4, 100, 2),
    ],
)  # fmt: skip
def test_slots_that_a_size_holds(size, sequences, pages, slots):
    assert sum(shape.bytes for shape in SHAPES.values()) == 52690944
    assert count_slots(SHAPES, size, sequences=sequences, pages=pages) == slots


def test_at_least_two_states_have_room_or_it_is_told():
    assert count_slots({"delta": StateShape(48, (64, 256, 256))}, None, sequences=4, pages=9) == 2
    with pytest.raises(RequestError, match=r"1000 bytes for recurrent states") as told:
        count_slots(SHAPES, 1000, sequences=4, pages=9)
    assert "105381888" in str(told.value.hint)
    with pytest.raises(ModelError, match="take 17592186044416 bytes"):
        count_slots({"delta": StateShape(1 << 14, (1 << 4, 1 << 12, 1 << 12))}, None, sequences=4, pages=9)
    assert count_slots({}, None, sequences=4, pages=9) == 1


def test_rows_that_were_read_out_are_gone_on_from_in_another_engine(start):
    prompt = Prompt.of([ids_of(200, 9)])
    first, second = start(), start()
    ids, _, _ = first.ask(prompt)
    whole = prompt.gone_on(ids)
    kept = first.engine.call(lambda: read_rows(first.engine, first.runner, whole))
    assert kept.rows == len(whole) - 1
    second.engine.call(lambda: write_rows(second.engine, second.runner, whole, kept))
    longer = whole.gone_on(ids_of(30, 10))
    there, again = second.ask(longer), first.ask(longer)
    assert there[2] == again[2] == kept.rows
    assert equal(there, again)
    erased = second.engine.call(lambda: forget_rows(second.engine, second.runner, longer))
    assert erased >= 192
    alone = second.ask(longer)
    assert alone[2] == 0
    assert equal(alone, again)
