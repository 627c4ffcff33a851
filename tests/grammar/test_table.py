"""Every kind of vocabulary as llguidance sees it."""

from __future__ import annotations

import json

import pytest
from walks import ENDED, follow, walk

from opsin.grammar import Grammar

VALUE = {"name": "Zoë \U0001f600 日本 <b>", "n": -12.5e3, "tags": ["a b", "", '"\\'], "none": None}
TEXT = "Ünïcödé, tabs\tand\nlines: 12 + 3 = 15"


def test_json_as_it_is_cut_into_tokens_obeys_any_object(published):
    for indent in (None, 2):
        text = json.dumps(VALUE, ensure_ascii=False, indent=indent)
        ids = published.tokenizer.encode(text, first=False)
        if published.tokenizer.decode(ids).strip() != text:
            pytest.skip("this vocabulary writes other texts")  # without case, or with unknown words
        assert follow(published.start(Grammar.json_object()), ids, published.tokenizer.end_ids) == ENDED


def test_each_token_is_let_through_where_its_bytes_may_follow_and_special_ones_never(published):
    """The first byte decides: a grammar of one letter and anything lets just those tokens follow that begin with it."""
    tokenizer = published.tokenizer
    mask = published.start(Grammar.regex(r"(?s:e.*)")).mask()
    special = set(tokenizer.special_ids)
    for id in range(0, tokenizer.vocabulary_size, 7):
        piece, is_let = tokenizer.piece(id), bool(mask[id >> 3] >> (id & 7) & 1)
        if id in special:
            assert not is_let or id in tokenizer.end_ids
        elif piece.isascii():
            assert is_let == piece.startswith(b"e"), piece
    padding = [mask[id >> 3] >> (id & 7) & 1 for id in range(tokenizer.vocabulary_size, tokenizer.vocabulary_size + 37)]
    assert not any(padding)


def test_all_ends_of_an_answer_may_come_where_the_grammar_may_end(published):
    mask = published.start(Grammar.regex("e*")).mask()
    assert all(mask[id >> 3] >> (id & 7) & 1 for id in published.tokenizer.end_ids)


def test_special_tokens_are_matched_by_id_and_by_no_text(smol):
    assert walk(smol, Grammar.lark('start: "a" <[1]> "b"'), "a<|im_start|>b")
    assert walk(smol, Grammar.lark('start: "a<|im_start|>b"'), "a<|im_start|>b") is None
    assert walk(smol, Grammar.lark('start: "a<|im_start|>b"'), "a<|im_start|>b", special=False)


def test_pieces_are_those_of_each_token(published):
    tokenizer = published.tokenizer
    pieces = tokenizer.pieces()
    assert len(pieces) == tokenizer.vocabulary_size
    assert all(pieces[id] == tokenizer.piece(id, special=True) for id in range(0, len(pieces), 3))


def test_a_text_is_split_at_special_tokens_alone(smol):
    assert smol.tokenizer.split("a<|im_start|>b c<|im_end|>") == ["a", 1, "b c", 2]
    assert smol.tokenizer.split("plain") == ["plain"]
    assert smol.tokenizer.split("") == []


def test_text_goes_on_without_the_space_of_a_beginning(sources, published):
    tokenizer = published.tokenizer
    ids = tokenizer.encode("on", first=False)
    assert b"".join(map(tokenizer.piece, ids)) in (b"on", b" on", b"on ")
