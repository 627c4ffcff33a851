"""Log-probabilities of prompts, beside logits of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_llama

import opsin
from opsin.errors import RequestError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with opsin.load(tiny_llama(tmp_path_factory.mktemp("s") / "m.gguf"), threads=2, context=256, sequences=2) as made:
        yield made


@pytest.mark.parametrize("count", [1, 2, 64, 65, 130])
def test_they_are_log_softmax_of_the_logits_before_each_id(model, count):
    ids = [i % 90 + 3 for i in range(0, 7 * count, 7)]
    logits = model.logits(ids).astype(np.float64)
    truth = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    told = model.prompt_logprobs(ids, 2)
    assert [one.chosen[0] for one in told] == ids[1:]
    for one, row in zip(told, truth, strict=False):
        assert one.chosen[1] == pytest.approx(row[one.chosen[0]], abs=1e-6)
        assert [p for _, p in one.likeliest] == pytest.approx(sorted(row)[:-3:-1], abs=1e-6)


def test_answers_go_on_meanwhile_and_are_the_same(model):
    ids, options = list(range(3, 203)), {"temperature": 9.0, "seed": 1, "max_tokens": 40, "ignore_eos": True}
    alone, told = str(model.complete("the rain", **options)), model.prompt_logprobs(ids, 1)
    running = model.complete("the rain", **options)
    assert model.prompt_logprobs(ids, 1) == told
    assert str(running) == alone


def test_whoever_does_not_wait_any_more_ends_it_and_no_page_is_lost(model):
    free, looks = model.engine.pool.free, []

    def check():
        looks.append(1)
        if len(looks) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.prompt_logprobs(list(range(3, 203)), check=check)
    assert model.engine.pool.free == free


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(RequestError, match="257 tokens"):
        model.prompt_logprobs([5] * 257)
