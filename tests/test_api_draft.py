"""A smaller model guesses (`opsin.load(draft=...)`), or a layer of a file's own; answers stay what they are."""

from __future__ import annotations

import pytest
from tiny import MIXED, tiny_llama
from tiny_next_token import tiny_next_token
from tiny_sight import tiny_pair

import opsin
from opsin.errors import FileError, ModelError, RequestError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drafts")


@pytest.fixture(scope="module")
def path(folder):
    return tiny_llama(folder / "m.gguf", types=MIXED)


def said(path, **options):
    """Some answers, greedy and drawn."""
    with opsin.load(path, threads=2, context=512, sequences=2, **options) as model:
        drawn = {"temperature": 4, "top_p": 1, "min_p": 0, "seed": 3, "max_tokens": 60}
        likeliest = {"temperature": 0, "max_tokens": 60}
        return [model.complete("The rain in Spain stays", **some).text for some in (drawn, likeliest)]


def test_answers_are_the_same_with_a_draft_model_and_without_any_guess(path, folder):
    plain = said(path, guesses=0)
    other = tiny_llama(folder / "other.gguf", layers=1, seed=5)
    assert said(path) == said(path, guesses=3) == plain
    assert said(path, draft=path) == said(path, draft=other) == said(path, draft=other, guesses=0) == plain
    assert len(set(plain)) == 2


def test_answers_are_the_same_with_a_layer_that_guesses(path, folder):
    file = tiny_next_token(folder / "next.gguf", gain=0.5, wrong=0.2)
    kinds = {"draft-mtp": {}, "draft-simple": {"draft": path}, "": {"guesses": 0}}
    plain = said(file, guesses=0)
    assert len(set(plain)) == 2
    for kind, options in kinds.items():
        assert said(file, **options) == plain
        with opsin.load(file, threads=1, context=64, **options) as model:
            assert model.guesses == ((kind, "ngram-simple") if kind else ())


def test_a_draft_model_with_other_tokens_is_refused(path, folder):
    one = tiny_llama(folder / "one.gguf", specials=("<one>",))
    other = tiny_llama(folder / "other-tokens.gguf", specials=("<other>",))
    with pytest.raises(ModelError, match="cannot guess for this model: token 265 is b'<other>' there") as told:
        opsin.load(one, threads=1, context=64, draft=other)
    with opsin.load(path, threads=1, context=64, draft=other) as fewer, opsin.load(other, draft=path) as more:
        assert fewer.chat("Hi", max_tokens=3).text and more.chat("Hi", max_tokens=3).text is not None
    assert "same family" in str(told.value.hint)


def test_what_is_no_draft_model_is_refused(folder, path):
    text, mmproj = tiny_pair(folder)
    with pytest.raises(ModelError, match="cannot guess for another model"):
        opsin.load(path, threads=1, context=64, draft=mmproj)
    with pytest.raises(FileError):
        opsin.load(path, threads=1, context=64, draft=folder / "nothing.gguf")
    for wrong in (-1, 64, True, "3", None):
        with pytest.raises(RequestError, match="guesses="):
            opsin.load(path, guesses=wrong)
