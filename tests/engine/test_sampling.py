"""The choice of an id by the usual samplers, against plain definitions; options out of range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_of_logits import any_row, choose, choose_some
from sampler_definitions import chain

from opsin.engine.ranking import top_ids
from opsin.engine.sampler import Sampler
from opsin.engine.sampling import _CHECKS, Sampling
from opsin.errors import FileError, RequestError

LOGITS = np.random.default_rng(3).normal(0, 3, 300).astype(np.float32)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 2.0, "top_k": 5, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 1.0, "top_k": 0, "top_p": 0.5, "min_p": 0.0},
        {"temperature": 3.0, "top_k": 0, "top_p": 0.1, "min_p": 0.0},
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.2},
        {"temperature": 0.3, "top_k": 9, "top_p": 0.9, "min_p": 0.01},
    ],
)
def test_ids_come_as_often_as_the_book_says(knobs):
    s = Sampling(seed=1, **knobs)
    expected, sampler, count = chain(LOGITS, s), Sampler(s), 8_000
    found = np.bincount(choose_some(sampler, LOGITS, count), minlength=300) / count
    assert set(np.flatnonzero(found)) <= set(expected)
    for id, share in expected.items():
        assert abs(found[id] - share) < 5 * np.sqrt(share * (1 - share) / count) + 1e-4, id


def test_a_seed_gives_the_same_ids_and_another_seed_others():
    first, again, other = (
        [choose(sampler, LOGITS) for _ in range(50)]
        for sampler in (Sampler(Sampling(seed=4)), Sampler(Sampling(seed=4)), Sampler(Sampling(seed=5)))
    )
    assert first == again != other


def test_without_a_seed_two_requests_differ():
    flat = np.zeros(300, np.float32)
    first, other = ([choose(s, flat) for _ in range(50)] for s in (Sampler(Sampling()), Sampler(Sampling())))
    assert first != other  # of forty ids, equally likely: the same fifty by chance once in 10^80


@pytest.mark.parametrize("knobs", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
def test_the_likeliest_id(knobs):
    sampler = Sampler(Sampling(**knobs))
    assert {choose(sampler, LOGITS) for _ in range(20)} == {int(LOGITS.argmax())}


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
def test_a_temperature_near_nothing_takes_the_likeliest(temperature):
    assert choose(Sampler(Sampling(temperature=temperature)), LOGITS) == int(LOGITS.argmax())


def test_equal_logits_are_drawn_alike():
    sampler = Sampler(Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=2))
    found = np.bincount(choose_some(sampler, np.zeros(8, np.float32), 8000))
    assert len(found) == 8
    assert abs(found - 1000).max() < 160


def test_an_id_of_minus_infinity_is_never_chosen():
    logits = np.full(200, -np.inf, np.float32)
    logits[[3, 150]] = 1.0
    sampler = Sampler(Sampling(temperature=50.0, top_k=0, top_p=1.0, min_p=0.0))
    assert {choose(sampler, logits) for _ in range(100)} == {3, 150}


@pytest.mark.parametrize("top_k", [0, 2, 40])
@pytest.mark.parametrize("places", [slice(5, None), slice(5, 6), slice(-1, None), slice(0, 64)], ids=str)
def test_a_logit_that_is_no_number_is_an_error_although_others_are(top_k, places):
    logits = np.zeros(10_010, np.float32)
    logits[70] = 9.0
    logits[places] = np.nan
    with pytest.raises(FileError, match="no numbers"):
        choose(Sampler(Sampling(top_k=top_k)), logits)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.0}, {"top_k": 0}])
@pytest.mark.parametrize("where", [0, 100, 299])
def test_logits_that_are_no_numbers_are_an_error(bad, knobs, where):
    logits = LOGITS.copy()
    logits[where] = bad
    with pytest.raises(FileError, match="no numbers"):
        choose(Sampler(Sampling(**knobs)), logits)


def test_no_finite_logit_at_all_is_an_error():
    with pytest.raises(FileError, match="no numbers"):
        choose(Sampler(Sampling()), np.full(99, -np.inf, np.float32))


@settings(max_examples=300, deadline=None)
@given(logits=any_row(700), k=st.integers(0, 80))
def test_top_ids_equal_a_full_sort(logits, k):
    assert np.array_equal(top_ids(logits, k), np.argsort(-logits, kind="stable")[: k or None])


def test_top_ids_of_a_large_vocabulary_equal_a_full_sort():
    logits = np.random.default_rng(0).normal(0, 4, 49_157).astype(np.float32).round(1)  # many are equal
    for k in (1, 40, 700, 800, 49_156):
        assert np.array_equal(top_ids(logits, k), np.argsort(-logits, kind="stable")[:k])


def test_what_holds_where_nobody_says_is_what_could_be_said():
    options = Sampling()
    for name, check in _CHECKS.items():
        default = getattr(options, name)
        assert default is None or check(name, default) == default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "hot"),
        ("temperature", None), ("top_k", -1), ("top_k", 2.5), ("top_p", 1.1), ("top_p", -0.1), ("min_p", 2),
        ("min_p", [0.5]), ("max_tokens", -1), ("max_tokens", 1.5), ("seed", -1), ("seed", "x"), ("seed", 1 << 64),
    ],
)  # fmt: skip
def test_a_knob_out_of_range_is_named(name, value):
    with pytest.raises(RequestError, match=f"{name}="):
        Sampling(**{name: value})


@pytest.mark.parametrize("value", [0, np.int64(7), (1 << 64) - 1])
def test_seeds_of_any_integer_kind_work(value):
    assert choose(Sampler(Sampling(seed=value)), LOGITS) == choose(Sampler(Sampling(seed=int(value))), LOGITS)
