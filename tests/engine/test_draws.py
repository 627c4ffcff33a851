"""Ids for all rows of a step in one call: to the bit what each row gives by itself, whatever its company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_of_logits import candidates_of, choose, choose_by_itself

from opsin.engine import draws, steering
from opsin.engine.draws import sample
from opsin.engine.masked import few_ids
from opsin.engine.sampler import Sampler
from opsin.engine.sampling import Sampling
from opsin.engine.steering import Draw
from opsin.errors import FileError, RequestError

KNOBS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-30, 0.3, 0.8, 1.0, 7.5]),
    top_k=st.sampled_from([0, 1, 2, 20, 40, 63, 64, 65, 400]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]) | st.floats(0, 1),
    min_p=st.sampled_from([0.0, 0.05, 1.0]) | st.floats(0, 1),
    seed=st.integers(0, 1000),
)


def logits_of(rows, vocabulary, seed=0, decimals=6):
    return np.random.default_rng(seed).normal(0, 3, (rows, vocabulary)).astype(np.float32).round(decimals)


def packed(allowed, vocabulary):
    """A mask that lets these ids through."""
    bits = np.zeros(vocabulary, bool)
    bits[allowed] = True
    return np.packbits(bits, bitorder="little")


@settings(max_examples=300, deadline=None)
@given(
    knobs=st.lists(KNOBS, min_size=1, max_size=9), vocabulary=st.integers(1, 500), seed=st.integers(0, 1 << 30),
    decimals=st.sampled_from([0, 1, 6]), k=st.sampled_from([1, 20, 40, 64]),
)  # fmt: skip
def test_rows_together_equal_each_by_itself(knobs, vocabulary, seed, decimals, k):
    ours, others = ([Sampler(s) for s in knobs] for _ in range(2))
    for step in range(3):
        logits = logits_of(len(knobs), vocabulary, seed + step, decimals)
        drawn = sample(candidates_of(logits, k), [Draw(sampler) for sampler in ours])
        assert drawn == [choose_by_itself(*pair) for pair in zip(others, logits, strict=True)]
    assert [s.roll() for s in ours] == [s.roll() for s in others]


def test_thirty_two_rows_of_a_large_vocabulary_for_many_steps():
    ours, others = ([Sampler(Sampling(seed=i, temperature=1.5, min_p=0.0)) for i in range(32)] for _ in range(2))
    for step in range(40):
        logits = logits_of(32, 32_000, step, decimals=2)
        drawn = sample(candidates_of(logits, 40), [Draw(sampler) for sampler in ours])
        assert drawn == [choose_by_itself(*pair) for pair in zip(others, logits, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    knobs=st.lists(KNOBS, min_size=1, max_size=6), vocabulary=st.integers(2, 300), seed=st.integers(0, 1 << 30),
    data=st.data(),
)  # fmt: skip
def test_masks_and_biases_act_before_the_top_k(knobs, vocabulary, seed, data):
    """As if the model had given those logits; of ids that the mask leaves out there are none."""
    others, steered, expected = [Sampler(s) for s in knobs], [], []
    logits, ids = logits_of(len(knobs), vocabulary, seed, 1), st.integers(0, vocabulary - 1)
    for knob, other, row in zip(knobs, others, logits, strict=True):
        mask, biases = None, {}
        allowed, row = np.arange(vocabulary), row.copy()
        if data.draw(st.booleans()):
            biased = np.array(sorted(data.draw(st.sets(ids, max_size=5))), np.int32)
            values = np.linspace(-20, 20, len(biased), dtype=np.float32)
            biases = dict(zip(biased.tolist(), values.tolist(), strict=True))
            row[biased] += values
        if data.draw(st.booleans()):
            few = st.sets(ids, min_size=1, max_size=data.draw(st.sampled_from([1, vocabulary])))
            allowed = np.array(sorted(data.draw(few)))
            mask = packed(allowed, vocabulary)
        known = None if mask is None or data.draw(st.booleans()) else few_ids(mask)
        steered.append(Draw(Sampler(replace(knob, logit_bias=biases)), mask, known))
        expected.append(int(allowed[choose_by_itself(other, row[allowed])]))
    assert sample(candidates_of(logits), steered) == expected


@pytest.mark.parametrize("vocabulary", [1, 7, 8, 9, 5000])
def test_few_ids_of_a_mask_are_those_that_it_lets_through(vocabulary):
    random = np.random.default_rng(vocabulary)
    for size in (0, 1, 3, 200, vocabulary):
        allowed = np.sort(random.choice(vocabulary, min(size, vocabulary), replace=False))
        found = few_ids(packed(allowed, vocabulary))
        assert found is None if size == 5000 else found.tolist() == allowed.tolist()


def test_few_ids_that_may_come_are_read_alone(monkeypatch):
    logits, mask = logits_of(1, 1000), packed([5, 17, 900], 1000)
    logits[0, 17] = -np.inf
    monkeypatch.setattr(steering, "_from_all", None)
    for knobs in ({"temperature": 0.0}, {"seed": 1}, {"seed": 2, "top_k": 2}):
        draw = Draw(Sampler(Sampling(**knobs)), mask, few_ids(mask))
        (id,) = sample(candidates_of(logits), [draw])
        assert id in (5, 900)
    none = packed([17], 1000)
    (error,) = sample(candidates_of(logits), [Draw(Sampler(Sampling()), none, few_ids(none))])
    assert isinstance(error, RequestError)


def test_whole_rows_are_sorted_only_where_candidates_prove_nothing(monkeypatch):
    logits, reads, by_all = logits_of(1, 1000), [], steering._from_all
    likeliest = np.argsort(-logits[0])
    monkeypatch.setattr(steering, "_from_all", lambda *given: reads.append(1) or by_all(*given))

    def reads_of(k=64, mask=None, seen=(), **knobs):
        reads.clear()
        sampler = Sampler(Sampling(**knobs), None, [*seen], vocabulary=1000)
        sample(candidates_of(logits, k), [Draw(sampler, mask)])
        return len(reads)

    assert reads_of() == reads_of(temperature=0.0) == reads_of(top_k=64) == 0
    assert reads_of(top_k=0) == reads_of(top_k=65) == reads_of(k=20) == 1
    assert reads_of(mask=packed(likeliest[10:], 1000)) == 0
    assert reads_of(mask=packed(likeliest[30:], 1000)) == 1
    assert reads_of(mask=packed(likeliest[30:], 1000), temperature=0.0) == 0
    assert reads_of(mask=packed(likeliest[64:], 1000), temperature=0.0) == 1
    assert reads_of(logit_bias={3: 1.0}) == reads_of(logit_bias={int(likeliest[0]): -9.0}, temperature=0.0) == 0
    assert reads_of(logit_bias=dict.fromkeys(likeliest[:20].tolist(), -9.0)) == 0
    assert reads_of(logit_bias=dict.fromkeys(likeliest[:30].tolist(), -9.0)) == 1
    assert reads_of(repeat_penalty=1.3, seen=likeliest[5:25]) == reads_of(presence_penalty=-2.0, seen=[7, 8]) == 0
    assert reads_of(repeat_penalty=9.0, seen=likeliest[:64]) == 1
    assert reads_of(dry_multiplier=1.0, seen=[1, 2, 3, 1, 2]) == reads_of(bad_words=()) == 0
    assert reads_of(top_n_sigma=1.0) == reads_of(mirostat=2) == 1


def test_the_one_id_that_is_allowed_is_drawn_whatever_its_logit():
    sampler = Sampler(Sampling(temperature=9.0, top_k=0, top_p=1.0, min_p=0.0))
    assert {choose(sampler, LOGITS[0], mask=packed([7], 300)) for _ in range(50)} == {7}


LOGITS = logits_of(5, 300)


@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.0}, {"top_k": 0}])
def test_no_id_left_is_the_requests_error_and_nobody_elses(knobs):
    never = dict.fromkeys(range(300), False)
    steered = [{}, {"mask": packed([], 300)}, {}, {"logit_bias": never}, {}]
    masks = [s.pop("mask", None) for s in steered]
    samplers = [Sampler(Sampling(seed=1, **knobs, **s)) for s in steered]
    drawn = sample(candidates_of(LOGITS), [Draw(*pair) for pair in zip(samplers, masks, strict=True)])
    assert [isinstance(id, RequestError) for id in drawn] == [False, True, False, True, False]
    assert [drawn[i] for i in (0, 2, 4)] == [choose(Sampler(Sampling(seed=1, **knobs)), LOGITS[i]) for i in (0, 2, 4)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 150, 299])
def test_a_row_that_is_no_numbers_harms_no_other(bad, at):
    logits = LOGITS.copy()
    logits[2, at] = bad
    knobs = [{}, {}, {}, {"temperature": 0.0}, {"top_k": 0}]
    drawn = sample(candidates_of(logits), [Draw(Sampler(Sampling(seed=1, **k))) for k in knobs])
    assert isinstance(drawn.pop(2), FileError)
    alone = [choose(Sampler(Sampling(seed=1, **k)), row) for k, row in zip(knobs, LOGITS, strict=True)]
    assert drawn == alone[:2] + alone[3:]


def test_where_rows_cannot_be_drawn_together_each_is_drawn_alone(monkeypatch):
    expected = [choose(Sampler(Sampling(seed=i)), row) for i, row in enumerate(LOGITS)]
    drawn_together = draws._drawn

    def failing(candidates, rolled):
        if any(one.row == 3 for one in rolled):
            raise MemoryError
        return drawn_together(candidates, rolled)

    monkeypatch.setattr(draws, "_drawn", failing)
    drawn = sample(candidates_of(LOGITS), [Draw(Sampler(Sampling(seed=i))) for i in range(5)])
    assert isinstance(drawn.pop(3), MemoryError)
    assert drawn == expected[:3] + expected[4:]
