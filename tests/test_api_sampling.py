"""Sampling in Python: options by their names, functions of one's own, and answers that company does not change."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_llama

import opsin
from opsin.engine.scheduler import Scheduler
from opsin.errors import RequestError

LIVELY = {"temperature": 9.0, "top_p": 1.0, "min_p": 0.0, "ignore_eos": True}
KINDS = (
    {}, {"repeat_penalty": 1.3, "frequency_penalty": 0.4}, {"dry_multiplier": 0.8}, {"typical_p": 0.9},
    {"xtc_probability": 0.5, "xtc_threshold": 0.02}, {"mirostat": 2, "mirostat_tau": 2.0}, {"mirostat": 1},
    {"top_n_sigma": 1.0, "dynatemp_range": 0.5}, {"samplers": ["top_k", "adaptive_p"], "adaptive_target": 0.4},
    {"logit_bias": {70: 3.0, " the": False}, "min_tokens": 30}, {"top_k": 0, "presence_penalty": 0.7},
    {"bad_words": ["a", "in"], "allowed_token_ids": list(range(64, 128))},
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_llama(tmp_path_factory.mktemp("sampling") / "model.gguf", peak=1.0)
    with opsin.load(path, threads=2, context=192, sequences=12) as made:
        yield made


def test_a_seed_gives_the_same_ids_alone_in_company_and_after_it_was_put_off(model, monkeypatch):
    """Pages are too few for all: the youngest are computed again later."""
    put_off, restart = [], Scheduler._restart_later
    monkeypatch.setattr(Scheduler, "_restart_later", lambda self, s: put_off.append(s) or restart(self, s))

    def asked(number):
        return model.complete(f"{number} the rain", seed=number, max_tokens=80, **{**LIVELY, **KINDS[number]})

    alone = []
    for number in range(len(KINDS)):
        answer = asked(number)
        alone.append((answer.text, answer.ids))
    assert not put_off
    together = [asked(number) for number in range(len(KINDS))]
    assert [(answer.text, answer.ids) for answer in together] == alone
    assert put_off
    assert len({tuple(ids) for _, ids in alone}) > 7


def test_processors_see_all_ids_and_change_logits(model):
    seen = []

    def only_b(ids, logits):
        seen.append(ids.tolist())
        assert logits.dtype == np.float32 and logits.shape == (model.runner.decoder.vocabulary,)
        logits[66] += 1000

    def then_c(ids, logits):
        return np.where(np.arange(len(logits)) == 67, 5000.0, logits) if len(ids) % 2 else logits

    prompt = model.tokenize("the")
    answer = model.complete("the", processors=[only_b], temperature=0, max_tokens=3)
    assert answer.text == model.detokenize([66] * 3)
    assert seen == [prompt, [*prompt, 66], [*prompt, 66, 66]]
    both = model.complete("the", processors=[only_b, then_c], max_tokens=4, ignore_eos=True)
    assert both.text and both.ids == [67 if (len(prompt) + n) % 2 else 66 for n in range(4)]


def failing(ids, logits):
    raise ValueError("what I said")


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        (failing, "failing failed: ValueError: what I said"), (lambda ids, logits: logits[:-1], "gave no logits"),
        (lambda ids, logits: logits * np.nan, "gave no logits"), (lambda ids, logits: "x", "failed: ValueError"),
        (lambda ids, logits: np.full_like(logits, -np.inf), "no token can follow"),
    ],
)  # fmt: skip
def test_a_processor_that_fails_fails_its_answer_alone(model, processor, said):
    others = [model.complete("the rain", seed=n, max_tokens=12, **LIVELY) for n in range(3)]
    with pytest.raises(RequestError, match=said):
        str(model.complete("the rain", processors=[processor]))
    assert [a.text for a in others] == [
        model.complete("the rain", seed=n, max_tokens=12, **LIVELY).text for n in range(3)
    ]


def test_probabilities_may_be_those_of_the_end(model):
    answer = model.complete("the rain", logprobs=9, post_sampling_probs=True, max_tokens=5, **{**LIVELY, "top_k": 4})
    assert answer.text
    for told in answer.logprobs:
        assert len(told.likeliest) <= 4
        assert sum(np.exp(p) for _, p in told.likeliest) == pytest.approx(1)
        assert told.chosen in told.likeliest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repeat_penalty", 0), ("repeat_penalty", np.nan), ("presence_penalty", np.inf), ("frequency_penalty", "x"),
        ("repeat_last_n", -2), ("repeat_last_n", 1 << 40), ("dry_base", 0.5), ("dry_multiplier", np.nan),
        ("dry_sequence_breakers", "x"), ("dry_sequence_breakers", [5]), ("mirostat", 3), ("mirostat", True),
        ("mirostat_tau", 10**400), ("adaptive_decay", 1.0), ("typical_p", 1.1), ("xtc_probability", -0.1),
        ("samplers", "q"), ("samplers", ["tfs"]), ("samplers", 5), ("logit_bias", {5: True}), ("logit_bias", {-1: 1}),
        ("logit_bias", {5: np.nan}), ("logit_bias", {1.5: 1}), ("logit_bias", dict.fromkeys(range(1 << 18), 1)),
        ("logit_bias", "x"), ("logit_bias", {99999: 1.0}), ("stop_token_ids", [99999]), ("allowed_token_ids", [-1]),
        ("allowed_token_ids", [1 << 31]), ("bad_words", [""]), ("bad_words", "x"), ("processors", ["x"]),
        ("processors", failing), ("min_tokens", -1), ("min_keep", 1.5), ("post_sampling_probs", 1),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_an_option_out_of_range_is_named(model, name, value):
    with pytest.raises(RequestError, match=name) as caught:
        model.complete("x", **{name: value})
    assert caught.value.param == name
