"""What copies and other processes may have: embeddings. A model, its parts and its answers stay where they are."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from tiny_sight import tiny_pair

import opsin
from opsin.errors import ContextError, FieldError, RequestError

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
GREEDY = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))[0]


@pytest.fixture(scope="module")
def model(pair):
    with opsin.load(pair, threads=2, context=256) as made:
        yield made


def ask(picture):
    return [{"role": "user", "content": [picture, "?"]}]


STAY = {
    "a Model": lambda model: model,
    "an Engine": lambda model: model.engine,
    "a Tokenizer": lambda model: model.tokenizer,
    "a Cpu": lambda model: model.device,
    "an Answer": lambda model: model.chat(ask("Hi"), **GREEDY),
    "a Stream": lambda model: model.chat(ask("Hi"), **GREEDY)._stream,
}


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps, lambda it: copy.deepcopy({"inside": [it]})])
@pytest.mark.parametrize("name", STAY)
def test_what_lives_in_a_process_says_so(model, capfd, name, way):
    said = f"{name} cannot be copied or sent to another process: load the model there"
    with pytest.raises(TypeError, match=re.escape(said)):
        way(STAY[name](model))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_embeddings_are_copied_and_sent(model, way):
    embeddings = model.encode(PICTURE)
    again = way(embeddings)
    assert np.array_equal(again.values, embeddings.values)
    assert (again.patches.rows, again.patches.markers) == (embeddings.patches.rows, embeddings.patches.markers)
    assert model.chat(ask(again), **GREEDY).text == model.chat(ask(embeddings), **GREEDY).text
    assert model.chat(ask(embeddings.patches), **GREEDY).text  # the first ones have kept all


def test_another_model_takes_embeddings_that_were_sent(model, pair):
    sent = pickle.dumps(model.encode(PICTURE))
    expected = model.chat(ask(PICTURE), **GREEDY).text
    with opsin.load(pair, threads=1, context=256) as other:
        assert other.chat(ask(pickle.loads(sent)), **GREEDY).text == expected


def test_a_picture_of_embeddings_that_were_sent_is_not_encoded_again(model):
    sent = pickle.loads(pickle.dumps(model.encode(PICTURE)))
    with pytest.raises(RequestError, match="neither features nor embeddings"):
        model.encode(sent.patches)


@pytest.mark.parametrize("way", [copy.deepcopy, pickle.dumps])
def test_a_prepared_picture_says_what_to_send_in_its_place(model, way):
    with pytest.raises(TypeError, match="a prepared picture cannot be copied .*: send the picture"):
        way(model.prepare(PICTURE))


def test_a_tokenizer_that_guards_markers_is_another_one(model):
    tokenizer = model.tokenizer
    escaping = tokenizer.escaping("the")
    assert escaping.encode("the in", special=True) == tokenizer.encode("the in", special=True)
    assert escaping.escaper is not tokenizer.escaper


def test_prompts_sampling_and_errors_are_sent(model):
    for value in (model.question(ask("Hi")).prompt, opsin.Sampling(seed=3)):
        assert pickle.loads(pickle.dumps(value)) == value
    field = FieldError("messages[0]", "no", hint="do this").below("body.")
    for error in (RequestError("no", hint="do this"), field, ContextError("no", prompt_tokens=3, context_tokens=2)):
        sent = pickle.loads(pickle.dumps(error))
        assert (type(sent), str(sent), sent.__dict__) == (type(error), str(error), error.__dict__)
    assert str(sent_field := pickle.loads(pickle.dumps(field))) == "body.messages[0]: no (do this)"
    assert sent_field.param == "body.messages[0]"
