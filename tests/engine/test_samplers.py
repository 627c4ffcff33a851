"""Each sampler, alone and in any order with others, against its plain definition: the same ids, the same shares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_of_logits import candidates_of
from sampler_definitions import OFF, adaptive_p, chain, mirostat_1, mirostat_2, ordered, shares

from opsin.engine.draws import sample
from opsin.engine.sampler import Sampler
from opsin.engine.sampling import SAMPLERS, Sampling, read_samplers
from opsin.engine.steering import Draw
from opsin.engine.token_rules import TokenRules

VOCABULARY = 300
LOGITS = np.random.default_rng(7).normal(0, 3, VOCABULARY).astype(np.float32)
ALL = {"logprobs": VOCABULARY, "post_sampling_probs": True}


def drawn_from(s, logits=LOGITS, seen=(), k=64):
    """{id: probability} of what one id is drawn from, as it is told."""
    sampler = Sampler(replace(s, **ALL), None, [*seen], vocabulary=len(logits))
    (id,) = sample(candidates_of(logits[None], k), [Draw(sampler)])
    assert not isinstance(id, Exception), id
    told = {i: math.exp(p) for i, p in sampler.told.likeliest}
    assert sampler.told.chosen == (id, pytest.approx(math.log(told[id])))
    return told


def check(s, logits=LOGITS, seen=(), **options):
    told, expected = drawn_from(s, logits, seen), chain(logits, s, seen, **options)
    assert told.keys() == {i for i, p in expected.items() if p > 1e-300}
    assert told == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert list(told.values()) == sorted(told.values(), reverse=True)


ALONE = [
    {"top_k": 7}, {"top_p": 0.7}, {"min_p": 0.05}, {"typical_p": 0.5}, {"typical_p": 0.95}, {"top_n_sigma": 1.5},
    {"temperature": 0.4}, {"temperature": 3.0}, {"temperature": 0.0}, {"temperature": 1.0, "dynatemp_range": 0.7},
    {"temperature": 0.5, "dynatemp_range": 2.0, "dynatemp_exponent": 0.5}, {"top_p": 0.0}, {"min_p": 1.0},
    {"top_p": 0.3, "min_keep": 9}, {"min_p": 0.9, "min_keep": 5}, {"typical_p": 0.1, "min_keep": 20}, {"samplers": ()},
    {"repeat_penalty": 1.3}, {"repeat_penalty": 0.7, "repeat_last_n": 3}, {"presence_penalty": 1.5},
    {"frequency_penalty": 0.5}, {"frequency_penalty": -0.5, "repeat_last_n": -1}, {"dry_multiplier": 0.8},
    {"repeat_penalty": 2.0, "repeat_last_n": 0}, {"dry_multiplier": 3.0, "dry_allowed_length": 0, "dry_base": 1.0},
    {"logit_bias": {3: 5.0, 9: False, 11: -2.5}},
]  # fmt: skip
SEEN = [3, 7, 9, 3, 7, 9, 250, 3, 7]


@pytest.mark.parametrize("options", ALONE, ids=str)
def test_a_sampler_alone_equals_its_definition(options):
    check(Sampling(**{**OFF, **options}), seen=SEEN)


@pytest.mark.parametrize("options", ALONE, ids=str)
def test_beside_the_usual_ones_too(options):
    check(Sampling(**options), seen=SEEN)


@settings(max_examples=150, deadline=None)
@given(
    order=st.permutations([*SAMPLERS]).flatmap(lambda names: st.integers(0, 9).map(lambda n: names[:n])),
    vocabulary=st.integers(1, 200), seed=st.integers(0, 1 << 20), data=st.data(),
)  # fmt: skip
def test_any_samplers_in_any_order_equal_their_definitions(order, vocabulary, seed, data):
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    random = np.random.default_rng(seed)
    s = Sampling(
        samplers=order, seed=seed, temperature=pick(0.7, 1.0, 2.0), top_k=pick(0, 3, 40), top_p=pick(0.4, 0.9, 1.0),
        min_p=pick(0.0, 0.1), typical_p=pick(0.5, 1.0), top_n_sigma=pick(-1.0, 1.0, 2.0), min_keep=pick(0, 1, 4),
        dynatemp_range=pick(0.0, 0.5), repeat_penalty=pick(1.0, 1.5), presence_penalty=pick(0.0, 1.0),
        frequency_penalty=pick(0.0, 0.3), dry_multiplier=pick(0.0, 1.0), xtc_probability=pick(0.0, 1.0),
        xtc_threshold=pick(0.05, 0.2), repeat_last_n=pick(-1, 4, 64), dry_penalty_last_n=pick(-1, 5, 64),
    )  # fmt: skip
    logits = random.normal(0, 3, vocabulary).astype(np.float32)
    seen = random.integers(0, min(vocabulary, 6), pick(0, 3, 30)).tolist()
    check(s, logits, seen, leaves_out=s.xtc_probability > 0)


def test_names_of_samplers_in_all_spellings():
    assert read_samplers("edskypmxt") == SAMPLERS
    assert read_samplers(["Top-K", "topp", "nucleus", "TEMP", "typ", "typical_p", "min-p", "adaptive-p"]) == (
        "top_k", "top_p", "top_p", "temperature", "typ_p", "typ_p", "min_p", "adaptive_p",
    )  # fmt: skip


def test_xtc_acts_as_often_as_it_is_asked_to_and_moves_no_other_draw():
    s = Sampling(**OFF, xtc_probability=0.3, xtc_threshold=0.05, seed=3)
    all_of_them, fewer = chain(LOGITS, s), chain(LOGITS, s, leaves_out=True)
    sampler, plain, counts, same = Sampler(s), Sampler(replace(s, xtc_probability=0.0)), np.zeros(VOCABULARY), 0
    told, rounds = candidates_of(LOGITS[None]), 4000
    for _ in range(rounds):
        (id,), (other,) = (sample(told, [Draw(one)]) for one in (sampler, plain))
        counts[id] += 1
        same += id == other
    check_distribution(counts, {i: 0.7 * p + 0.3 * fewer.get(i, 0.0) for i, p in all_of_them.items()})
    assert same > 0.65 * rounds


def check_distribution(counts, expected):
    """Chi-square, of ids expected five times and more; its mean is the degrees of freedom, its variance twice that."""
    rounds = counts.sum()
    likely = {i: p * rounds for i, p in expected.items() if p * rounds >= 5}
    rest, seen = rounds - sum(likely.values()), rounds - sum(counts[i] for i in likely)
    square = sum((counts[i] - n) ** 2 / n for i, n in likely.items())
    assert square < len(likely) + 5 * math.sqrt(2 * len(likely))
    assert abs(seen - rest) < 5 * math.sqrt(rest + 1)
    assert all(expected.get(int(i), 0) > 0 for i in np.flatnonzero(counts))


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"repeat_penalty": 1.4, "temperature": 1.3}, SEEN), ({"typical_p": 0.6}, ()), ({"top_n_sigma": 1.0}, ()),
        ({"dynatemp_range": 0.6}, ()), ({"dry_multiplier": 1.0, "samplers": "kdt"}, SEEN),
    ],
)  # fmt: skip
def test_ids_come_as_often_as_their_shares(options, seen):
    s = Sampling(seed=5, **options)
    sampler, counts = Sampler(s, None, [*seen], vocabulary=VOCABULARY), np.zeros(VOCABULARY)
    told = candidates_of(LOGITS[None])
    for _ in range(4000):
        (id,) = sample(told, [Draw(sampler)])
        counts[id] += 1
    check_distribution(counts, chain(LOGITS, s, seen))


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_follows_its_definition_step_by_step(version):
    s = Sampling(mirostat=version, mirostat_tau=3.0, mirostat_eta=0.3, temperature=1.2, seed=9, top_k=1, **ALL)
    sampler, mu = Sampler(s, vocabulary=VOCABULARY), 6.0
    for step in range(60):
        logits = np.random.default_rng(step).normal(0, 2, VOCABULARY).astype(np.float32)
        pairs = ordered((i, float(x) / 1.2) for i, x in enumerate(logits))
        kept = mirostat_1(pairs, s, mu, VOCABULARY) if version == 1 else mirostat_2(pairs, mu)
        expected = {i: p for (i, _), p in zip(kept, shares(kept), strict=True)}
        (id,) = sample(candidates_of(logits[None]), [Draw(sampler)])
        assert {i: math.exp(p) for i, p in sampler.told.likeliest} == pytest.approx(expected, rel=1e-4)
        mu -= 0.3 * (-math.log2(expected[id]) - 3.0)


def test_adaptive_p_follows_its_definition_step_by_step():
    s = Sampling(samplers=[*SAMPLERS, "adaptive_p"], adaptive_target=0.3, adaptive_decay=0.8, seed=2, **ALL)
    sampler, seen, weight = Sampler(s, vocabulary=VOCABULARY), 0.3 / 0.2, 1 / 0.2
    for step in range(60):
        logits = np.random.default_rng(step).normal(0, 2, VOCABULARY).astype(np.float32)
        before = chain(logits, s)
        target = min(max(0.6 - seen / weight, 0.0), 1.0)
        after = adaptive_p([(i, math.log(p)) for i, p in before.items()], target)
        (id,) = sample(candidates_of(logits[None]), [Draw(sampler)])
        told = {i: math.exp(p) for i, p in sampler.told.likeliest}
        assert told == pytest.approx(dict(zip(before, after, strict=True)), rel=1e-4)
        seen, weight = before[id] + 0.8 * seen, 1 + 0.8 * weight


def test_adaptive_p_acts_only_where_it_is_named_and_has_a_target():
    usual = drawn_from(Sampling())
    assert drawn_from(Sampling(adaptive_target=0.3)) == usual
    assert drawn_from(Sampling(samplers=[*SAMPLERS, "adaptive_p"])) == usual
    assert drawn_from(Sampling(samplers=[*SAMPLERS, "adaptive_p"], adaptive_target=0.3)) != usual


KNOBS = st.builds(
    Sampling, seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 0.8, 2.0]), top_k=st.sampled_from([0, 5, 40]),
    repeat_penalty=st.sampled_from([1.0, 1.3]), frequency_penalty=st.sampled_from([0.0, -0.4, 0.4]),
    dry_multiplier=st.sampled_from([0.0, 0.7]), typical_p=st.sampled_from([1.0, 0.7]),
    xtc_probability=st.sampled_from([0.0, 0.5]), mirostat=st.sampled_from([0, 0, 0, 1, 2]),
    logit_bias=st.sampled_from([{}, {5: 3.0, 2: False}]), min_tokens=st.sampled_from([0, 3]),
    allowed_token_ids=st.sampled_from([(), (1, 2, 3, 4, 5, 6, 7)]),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(knobs=st.lists(KNOBS, min_size=2, max_size=8), seed=st.integers(0, 1 << 20), k=st.sampled_from([1, 20, 40, 64]))
def test_company_changes_nothing(knobs, seed, k):
    prompt = np.random.default_rng(seed).integers(0, 9, 20).tolist()
    together, alone = ([Sampler(s, None, prompt, {8, 9}, 100) for s in knobs] for _ in range(2))
    for step in range(5):
        logits = np.random.default_rng(seed + step).normal(0, 2, (len(knobs), 100)).astype(np.float32)
        ids = sample(candidates_of(logits, k), [Draw(sampler) for sampler in together])
        by_themselves = [
            sample(candidates_of(row[None]), [Draw(sampler)])[0] for sampler, row in zip(alone, logits, strict=True)
        ]
        assert ids == by_themselves
        for samplers in (together, alone):
            for sampler, id in zip(samplers, ids, strict=True):
                sampler.accept(id)


def chosen(sampler, logits=LOGITS):
    (id,) = sample(candidates_of(logits[None]), [Draw(sampler)])
    if isinstance(id, Exception):
        raise id
    return id


def test_no_end_before_so_many_ids():
    likeliest = int(LOGITS.argmax())
    sampler = Sampler(Sampling(temperature=0, min_tokens=2), ends={likeliest}, vocabulary=VOCABULARY)
    for _ in range(2):
        assert chosen(sampler) != likeliest
        sampler.accept(5)
    assert chosen(sampler) == likeliest


class Letters:
    """A tokenizer whose ids are the codes of letters."""

    def encode(self, text):
        return [*text.encode()]

    def piece(self, id, *, special=False):
        return bytes([id % 256])


def with_words(prompt="", **options):
    sampling = Sampling(temperature=0, **options)
    rules = TokenRules.of(sampling, Letters(), vocabulary=VOCABULARY)
    return Sampler(sampling, rules, [*prompt.encode()], vocabulary=VOCABULARY)


def test_a_bad_word_is_never_finished_and_its_beginning_may_be_said():
    logits = np.zeros(VOCABULARY, np.float32)
    logits[ord("b")], logits[ord("c")] = 9, 5
    sampler = with_words(prompt="a", bad_words=["ab"])
    assert chr(chosen(sampler, logits)) == "b"  # what a person said does not begin one
    sampler.accept(ord("a"))
    assert chr(chosen(sampler, logits)) == "c"
    sampler.accept(ord("c"))
    assert chr(chosen(sampler, logits)) == "b"
    assert chr(chosen(with_words(bad_words=["b"]), logits)) == "c"


def test_a_bias_on_a_text_falls_on_each_of_its_ids_once():
    logits = np.zeros(VOCABULARY, np.float32)
    logits[ord("o")], logits[ord("x")] = 2.0, 1.5
    assert chr(chosen(with_words(logit_bias={"foo": -0.75}), logits)) == "x"
    assert chr(chosen(with_words(logit_bias={"foo": -0.25}), logits)) == "o"


def test_dry_stops_at_breakers_of_several_ids():
    logits = np.zeros(VOCABULARY, np.float32)
    logits[ord("c")] = 1.0
    options = {"dry_multiplier": 2.0, "dry_sequence_breakers": ["\r\n"]}
    assert chr(chosen(with_words("abc abc ab", **options), logits)) != "c"
    assert chr(chosen(with_words("abc a\r\nb", **options), logits)) == "c"
    assert chr(chosen(with_words("\nabc \nab", **options), logits)) != "c"
