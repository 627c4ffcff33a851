"""`context` is the cache of all sequences together: larger than what one may have, where several share it."""

from __future__ import annotations

import pytest

import opsin
from opsin.errors import RequestError

TRAINED = 128  # tokens


@pytest.fixture(scope="module")
def path(tiny_file):
    return tiny_file(context=TRAINED)


def answers(model, prompts):
    """Of all prompts at once."""
    options = {"max_tokens": 20, "temperature": 0, "ignore_eos": True}
    return [answer.text for answer in [model.complete(prompt, **options) for prompt in prompts]]


def test_sequences_share_more_than_one_may_have(path):
    prompts = [chr(ord("a") + number) * 90 for number in range(3)]
    with (
        opsin.load(path, threads=1, context=TRAINED) as small,
        opsin.load(path, threads=1, context=3 * TRAINED) as made,
    ):
        assert made.context == small.context == TRAINED
        assert answers(made, prompts) == answers(small, prompts)
        assert made.text.runner.limits.pages - small.text.runner.limits.pages == 2 * TRAINED // 64
        with pytest.raises(RequestError, match="128"):
            made.complete("a" * 200, max_tokens=1)


def test_more_than_all_sequences_can_fill_is_refused(path):
    with pytest.raises(RequestError, match=r"context=257.*trained for 1 to 128, times 2 sequences"):
        opsin.load(path, threads=1, context=2 * TRAINED + 1, sequences=2)
    with pytest.raises(RequestError, match=r"context=129.*trained for 1 to 128\)"):
        opsin.load(path, threads=1, context=TRAINED + 1, sequences=1)
