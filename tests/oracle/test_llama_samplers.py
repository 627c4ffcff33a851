"""Our samplers leave what llama.cpp's leave, with the same probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from llama_samplers import LlamaSamplers, find_library
from rows_of_logits import candidates_of
from sampler_definitions import OFF

from opsin.engine.draws import sample
from opsin.engine.sampler import Sampler
from opsin.engine.sampling import Sampling
from opsin.engine.steering import Draw

COUNT = 300
SEEN = [3, 7, 9, 3, 7, 9, 250, 3, 7, 9, 3]


@pytest.fixture(scope="module")
def library():
    return find_library()


def theirs(library, s, logits, seen):
    """The chain of llama-server's default order."""
    chain = [
        ("penalties", (COUNT, s.repeat_last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty)),
        ("dry", (None, s.dry_multiplier, s.dry_base, s.dry_allowed_length, s.dry_penalty_last_n, None, 0)),
        ("top_n_sigma", (s.top_n_sigma,)), ("top_k", (s.top_k,)), ("typical", (s.typical_p, s.min_keep)),
        ("top_p", (s.top_p, s.min_keep)), ("min_p", (s.min_p, s.min_keep)),
        ("xtc", (s.xtc_probability, s.xtc_threshold, s.min_keep, 1)),
        ("temp_ext", (s.temperature, s.dynatemp_range, s.dynatemp_exponent)),
    ]  # fmt: skip
    return LlamaSamplers(library, *chain).left(logits, seen)


def ours(s, logits, seen):
    told = replace(s, logprobs=COUNT, post_sampling_probs=True, dry_sequence_breakers=[])
    sampler = Sampler(told, None, seen, vocabulary=COUNT)
    (id,) = sample(candidates_of(logits[None]), [Draw(sampler)])
    assert isinstance(id, int)
    return {i: math.exp(p) for i, p in sampler.told.likeliest}


CASES = [
    {}, {"top_k": 7}, {"top_p": 0.7}, {"min_p": 0.1}, {"typical_p": 0.5}, {"top_n_sigma": 1.5, "top_k": 0},
    {"temperature": 0.4}, {"temperature": 0.0}, {"dynatemp_range": 0.7, "dynatemp_exponent": 1.5},
    {"repeat_penalty": 1.3}, {"repeat_penalty": 1.2, "repeat_last_n": 3, "frequency_penalty": 0.4},
    {"presence_penalty": 1.5}, {"presence_penalty": -1.5}, {"dry_multiplier": 0.8}, {"min_keep": 12, "top_p": 0.1},
    {"dry_multiplier": 2.0, "dry_base": 3.0, "dry_allowed_length": 1, "dry_penalty_last_n": 6},
    {"xtc_probability": 1.0, "xtc_threshold": 0.05}, {**OFF, "repeat_penalty": 1.5}, {**OFF, "typical_p": 0.8},
    {"repeat_penalty": 1.1, "dry_multiplier": 0.8, "typical_p": 0.9, "xtc_probability": 1.0, "xtc_threshold": 0.1,
     "dynatemp_range": 0.5, "top_p": 0.99, "min_keep": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_and_how_likely_it_is(library, options, seed):
    logits = np.random.default_rng(seed).normal(0, 3, COUNT).astype(np.float32)
    s = Sampling(**options)
    found, expected = ours(s, logits, SEEN), theirs(library, s, logits, SEEN)
    assert found.keys() == {i for i, p in expected.items() if p > 0}
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-7)
