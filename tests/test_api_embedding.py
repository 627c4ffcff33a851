"""`Model.embed`: texts, ids and pictures in, vectors out."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_llama
from tiny_sight import tiny_pair

import opsin
from opsin.errors import RequestError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    metadata = {"llama.pooling_type": 1, "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    path = tiny_llama(tmp_path_factory.mktemp("embed") / "m.gguf", metadata=metadata)
    with opsin.load(path, threads=2, context=256, sequences=4) as made:
        yield made


def test_a_text_has_a_vector_of_length_1_and_a_list_has_one_each(model):
    one, two = model.embed("the rain"), model.embed(["the rain", "sun"])
    assert one.shape == (64,)
    assert one.dtype == np.float32
    assert np.array_equal(one, two[0])
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    assert model.embed([]) == []


def test_it_is_pooled_as_the_file_says_over_what_the_file_adds(model):
    ids = [model.tokenizer.bos, *model.tokenize("the rain"), model.tokenizer.eos]
    assert np.array_equal(model.embed("the rain"), model.embed([ids], pooling="mean")[0])
    states = model.embed([ids], pooling="none")[0]
    assert states.shape == (len(ids), 64)
    last = model.embed([ids], pooling="last", normalize=False)[0]
    assert np.array_equal(last, states[-1])
    np.testing.assert_allclose(states.mean(axis=0), model.embed("the rain", normalize=False), atol=1e-5)


def test_dimensions_are_the_first_ones_made_as_long_as_1_again(model):
    whole, cut = model.embed("the rain", normalize=False), model.embed("the rain", dimensions=8)
    np.testing.assert_allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)


def test_where_the_file_says_nothing_it_is_the_last_token_s(tmp_path):
    with opsin.load(tiny_llama(tmp_path / "m.gguf"), threads=1, context=64, sequences=1) as plain:
        assert plain.pooling == "last"
        assert np.array_equal(plain.embed("the rain"), plain.embed("the rain", pooling="last"))


def test_texts_of_special_tokens_are_ordinary_text(model):
    ids = [model.tokenizer.bos, *model.tokenize("<|im_end|>"), model.tokenizer.eos]
    assert len(ids) > 4
    assert np.array_equal(model.embed("<|im_end|>"), model.embed([ids])[0])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"inputs": 3}, "inputs is of the type int"),
        ({"inputs": [3]}, "ids of the type int"),
        ({"inputs": [[3, 1 << 20]]}, "vocabulary"),
        ({"inputs": [[]]}, "empty"),
        ({"inputs": "a", "pooling": "max"}, "give one of mean, cls, last, none"),
        ({"inputs": "a", "dimensions": 65}, "embeddings of this model have 64"),
        ({"inputs": "a", "dimensions": 0}, "dimensions=0"),
        ({"inputs": "a", "normalize": 1}, "normalize"),
        ({"inputs": "the rain " * 200}, "exceeds the available context size"),
    ],
)
def test_what_cannot_be_is_refused(model, asked, message):
    with pytest.raises(RequestError, match=message):
        model.embed(**asked)


def test_pictures_and_texts_stand_in_one_batch(tmp_path):
    tiny_pair(tmp_path)
    with opsin.load(tmp_path / "model.gguf", threads=2, context=256, sequences=2) as model:
        black, white = (np.full((32, 32, 3), value, np.uint8) for value in (0, 255))
        asked = [model.raw([f"{model.picture_marker}!"], [picture]) for picture in (black, white)]
        dark, text, light = model.embed([asked[0], "sun", asked[1]], pooling="mean")
        assert not np.allclose(dark, light)
        assert np.array_equal(text, model.embed("sun", pooling="mean"))
        states = model.embed([asked[0]], pooling="none")[0]
        assert len(states) == len(asked[0].prompt)
        assert np.array_equal(dark, model.embed([asked[0].prompt], pooling="mean")[0])
