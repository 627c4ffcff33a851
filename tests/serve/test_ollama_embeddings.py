"""Embeddings through Ollama's own client, unmodified."""

from __future__ import annotations

import numpy as np
import ollama
import pytest


@pytest.fixture(scope="module")
def client(server):
    made = ollama.Client(host=server.url)
    yield made
    made.close()


def test_embed_gives_a_vector_of_length_1_of_each_text(client, text_model):
    told = client.embed("any", ["the rain", "sun"])
    for ours, theirs in zip(text_model.embed(["the rain", "sun"]), told.embeddings, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)
    assert told.prompt_eval_count == sum(len(text_model.tokenize(text)) for text in ("the rain", "sun"))
    assert told.total_duration > 0
    assert len(client.embed("any", "the rain").embeddings) == 1
    cut = client.embed("any", "the rain", dimensions=8).embeddings[0]
    np.testing.assert_allclose(cut, text_model.embed("the rain", dimensions=8), atol=1e-6)


def test_the_older_one_gives_it_as_it_is(client, text_model):
    told = client.embeddings("any", "the rain").embedding
    np.testing.assert_allclose(told, text_model.embed("the rain", normalize=False), rtol=1e-5)
    assert list(client.embeddings("any", "").embedding) == []


def test_nothing_has_no_vectors(server):
    assert server.ask("/api/embed", {"model": "any", "input": []}).json["embeddings"] == []


def test_what_is_too_long_is_cut_or_refused(client, server, text_model):
    text = "rain " * 400
    ids = text_model.tokenize(text)[:512]
    np.testing.assert_allclose(client.embed("any", text).embeddings[0], text_model.embed([ids])[0], atol=1e-6)
    reply = server.ask("/api/embed", {"model": "any", "input": text, "truncate": False})
    assert reply.status == 400
    assert reply.json["error"].startswith("the input length exceeds the context length")


@pytest.mark.parametrize(
    "body", [{"input": 3}, {"input": ["a", 3]}, {"input": "a", "dimensions": 0}, {"input": "a", "dimensions": 9999},
             {"input": ["a"] * 2049}, {"input": [""]}]
)  # fmt: skip
def test_what_cannot_be_is_a_400(server, body):
    reply = server.ask("/api/embed", {"model": "any", **body})
    assert reply.status == 400
    assert isinstance(reply.json["error"], str)
