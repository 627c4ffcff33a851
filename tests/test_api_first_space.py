"""Where a SentencePiece model goes on with a text, the space before its first word is part of what it wrote."""

from __future__ import annotations

import pytest
from tiny import tiny_llama, tokens

import opsin


def spaced_llama(folder):
    """A model whose words have their spaces before them."""
    texts = [text.replace("\u0120", "\u2581") for text in tokens()[0]]
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.scores": [-float(place) for place in range(len(texts))],
    }
    return tiny_llama(folder / "t.gguf", metadata=keys)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with opsin.load(spaced_llama(tmp_path_factory.mktemp("spaces")), threads=1, context=64) as made:
        yield made


@pytest.mark.parametrize(("prompt", "text"), [("in", " the the"), ("", "the the")])
def test_a_text_that_is_gone_on_with_keeps_the_space(model, prompt, text):
    the = model.tokenizer.encode("the")[0]
    said = model.complete(prompt, temperature=0, max_tokens=2, logit_bias={the: 100})
    assert "".join(said) == text
