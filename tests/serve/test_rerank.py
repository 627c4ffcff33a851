"""Ranking over HTTP, in Jina's and TEI's shapes."""

from __future__ import annotations

import pytest

QUERY, DOCUMENTS = "the rain", ["sun", "the rain in Spain", "", "rain"]


def test_documents_come_from_the_best_to_the_worst(server, text_model):
    documents = [text or "x" for text in DOCUMENTS]
    truth = text_model.rerank(QUERY, documents)
    for path in ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking"):
        reply = server.ask(path, {"query": QUERY, "documents": documents, "model": "any"})
        assert reply.status == 200
        told = [(one["index"], one["relevance_score"]) for one in reply.json["results"]]
        assert told == [(one.index, one.score) for one in truth]
        tokens = sum(len(text_model.tokenize(text)) for text in (QUERY, *documents))
        assert reply.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        assert set(reply.json["results"][0]) == {"index", "relevance_score"}


def test_texts_are_answered_as_tei_does(server, text_model):
    body = {"query": QUERY, "texts": ["sun", "rain"]}
    truth = [{"index": one.index, "score": one.score} for one in text_model.rerank(QUERY, ["sun", "rain"])]
    assert server.ask("/rerank", body).json == truth
    told = server.ask("/rerank", {**body, "return_text": True}).json
    assert [one["text"] for one in told] == [["sun", "rain"][one["index"]] for one in truth]


@pytest.mark.parametrize(("most", "count"), [(None, 2), (1, 1), (2, 2), (99, 2)])
def test_so_many_of_the_best_are_told(server, most, count):
    for name in ("documents", "texts"):
        reply = server.ask("/rerank", {"query": QUERY, name: ["sun", "rain"], "top_n": most}).json
        assert len(reply if name == "texts" else reply["results"]) == count


def test_documents_may_be_objects_and_are_told_where_that_is_asked(server):
    body = {"query": QUERY, "documents": [{"text": "sun"}, "rain"], "return_documents": True}
    told = server.ask("/rerank", body).json["results"]
    assert sorted(one["document"]["text"] for one in told) == ["rain", "sun"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"documents": ["a"]}, "query"), ({"query": 3, "documents": ["a"]}, "query"), ({"query": "a"}, "0 of them"),
        ({"query": "a", "documents": []}, "0 of them"), ({"query": "a", "documents": 123}, "documents"),
        ({"query": "a", "documents": [1, 2]}, "documents[0]"), ({"query": "a", "texts": []}, "texts"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n"), ({"query": "a", "documents": ["a"] * 2049}, "2049"),
        ({"query": "a", "documents": [""]}, "empty"), ({"query": "a", "documents": ["a" * 3000]}, "too large"),
        ({"query": "a", "documents": [{"words": "a"}]}, "text"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_400_that_says_what(server, body, said):
    reply = server.ask("/rerank", body)
    assert reply.status == 400, reply.json
    assert said in reply.json["error"]["message"], reply.json
