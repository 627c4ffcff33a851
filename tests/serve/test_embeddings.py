"""Embeddings over HTTP: OpenAI's client unmodified, llama-server's shapes, pictures, and what is refused."""

from __future__ import annotations

import base64
import threading

import numpy as np
import openai
import pytest
from running_server import running
from test_serve_pictures import data_url, part, picture, text

import opsin
from opsin.api.prompt_options import PromptOptions
from opsin.serve import embeddings


def vectors(reply):
    assert reply.status == 200, reply.json
    return [np.array(one["embedding"], np.float32) for one in reply.json["data"]]


def test_openai_s_client_gets_what_the_library_gives(client, text_model):
    truth = text_model.embed(["the rain", "sun"])
    for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):  # it asks for base64 unasked
        told = client.embeddings.create(model="any", input=["the rain", "sun"], **more)
        assert [one.index for one in told.data] == [0, 1]
        for one, value in zip(told.data, truth, strict=True):
            given = one.embedding
            if isinstance(given, str):
                given = np.frombuffer(base64.b64decode(given), "<f4")
            np.testing.assert_array_equal(np.float32(given), value)
        tokens = sum(len(text_model.tokenize(said)) for said in ("the rain", "sun"))
        assert told.usage.prompt_tokens == told.usage.total_tokens == tokens
    cut = client.embeddings.create(model="any", input="the rain", dimensions=8).data[0].embedding
    np.testing.assert_allclose(cut, text_model.embed("the rain", dimensions=8), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("string", 1), ([12, 34, 56], 1), ([12, 34, "string", 56], 1), (["one", "two"], 2), (["one", [12, 34]], 2),
        ([[12, 34], [12, "string", 34]], 2), ({"prompt_string": "string"}, 1),
        (["one", {"prompt_string": "two"}, {"content": [{"type": "text", "text": "three"}]}], 3),
    ],
)  # fmt: skip
def test_inputs_of_all_forms_are_read(server, given, count):
    made = vectors(server.ask("/v1/embeddings", {"input": given}))
    assert len(made) == count
    assert all(np.linalg.norm(one) == pytest.approx(1, abs=1e-5) for one in made)


def test_a_conversation_is_embedded_as_the_template_writes_it(server, text_model):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the rain"}]
    (made,) = vectors(server.ask("/v1/embeddings", {"messages": messages}))
    prompt = text_model.question(messages, PromptOptions(begins=False)).prompt
    assert np.array_equal(made, text_model.embed(prompt))
    (begun,) = vectors(server.ask("/v1/embeddings", {"messages": messages, "add_generation_prompt": True}))
    assert np.array_equal(begun, text_model.embed(text_model.question(messages).prompt))
    assert not np.array_equal(begun, made)
    both = server.ask("/v1/embeddings", {"messages": messages, "input": "the rain"})
    assert both.status == 400 and both.json["error"]["param"] == "messages"
    assert server.ask("/v1/embeddings", {"messages": [{"role": "user"}]}).status == 400


def test_one_text_in_three_forms_is_one(server):
    parts = {"content": [text("the "), text("rain")]}
    one, two, three = vectors(
        server.ask("/v1/embeddings", {"input": ["the rain", parts, {"prompt_string": "the rain"}]})
    )
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_llama_server_s_shape_and_lengths(server, text_model):
    whole = text_model.embed("the rain", normalize=False)
    lengths = {-1: whole, 0: whole / np.abs(whole).max() * 32760, 1: whole / np.abs(whole).sum(),
               3: whole / (np.abs(whole) ** 3).sum() ** (1 / 3)}  # fmt: skip
    for path in ("/embedding", "/embeddings"):
        for norm, value in lengths.items():
            (told,) = server.ask(path, {"content": "the rain", "embd_normalize": norm}).json
            assert told["index"] == 0
            np.testing.assert_allclose(told["embedding"], [value], rtol=1e-5)
    assert isinstance(server.ask("/v1/embeddings", {"content": "the rain"}).json, list)


def test_an_operator_says_which_states_become_an_embedding(text_model):
    with running(lambda: text_model, pooling="none") as made:
        (told,) = made.ask("/embeddings", {"input": "the rain"}).json
        np.testing.assert_allclose(told["embedding"], text_model.embed(["the rain"], pooling="none")[0], rtol=1e-6)
        assert "OpenAI" in made.ask("/v1/embeddings", {"input": "the rain"}).json["error"]["message"]
    with running(lambda: text_model, pooling="mean") as made:
        (value,) = vectors(made.ask("/v1/embeddings", {"input": "the rain"}))
        np.testing.assert_allclose(value, text_model.embed("the rain", pooling="mean"), atol=1e-7)


def test_pictures_and_texts_stand_in_one_batch(sight):
    images = [picture(1), picture(2)]
    marker = sight.ask("/props").json["media_marker"]
    raw = [{"prompt_string": f"{marker}!", "multimodal_data": [base64.b64encode(image).decode()]} for image in images]
    told = [{"content": [part(data_url(image)), text("!")]} for image in images]
    made = vectors(sight.ask("/v1/embeddings", {"input": [raw[0], "sun", told[0], raw[1], told[1]]}))
    assert np.array_equal(made[0], made[2])
    assert np.array_equal(made[3], made[4])
    assert not np.allclose(made[0], made[3])
    assert np.array_equal(made[1], vectors(sight.ask("/v1/embeddings", {"input": "sun"}))[0])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "input: there is none"),
        ({"input": []}, "0 of them"),
        ({"input": True}, "input"),
        ({"input": [[]]}, "nothing in it"),
        ({"input": {}}, "neither prompt_string nor content"),
        ({"input": {"content": "string"}}, "content"),
        ({"input": {"content": [{"type": "unknown"}]}}, "unknown"),
        ({"input": {"content": [part("data:image/png;base64,AAAA")]}}, "text only"),
        ({"input": ["a"] * 2049}, "2049 of them"),
        ({"input": "a", "encoding_format": "int8"}, "float, base64"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 100_000}, "embeddings have"),
        ({"input": "a", "embd_normalize": -2}, "embd_normalize"),
        ({"input": [1 << 30]}, "vocabulary"),
        ({"input": "", "content": "x"}, "empty"),
        ({"input": "a" * 3000}, "too large"),
        ({"input": "a", "truncate_prompt_tokens": 3}, "not supported"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_400_that_says_what(server, body, said):
    reply = server.ask("/v1/embeddings", body)
    assert reply.status == 400, reply.json
    assert said in reply.json["error"]["message"], reply.json


def test_a_request_has_no_more_tokens_and_numbers_than_its_limits_say(server, monkeypatch):
    monkeypatch.setattr(embeddings, "_MOST_TOKENS", 5)
    assert (
        "more than 5 tokens" in server.ask("/v1/embeddings", {"input": [[1, 2, 3], [4, 5, 6]]}).json["error"]["message"]
    )
    monkeypatch.setattr(embeddings, "_MOST_VALUES", 5)
    assert "more than 5" in server.ask("/v1/embeddings", {"input": "a"}).json["error"]["message"]
    assert server.ask("/v1/embeddings", {"input": "a", "encoding_format": "base64"}).status == 200


def test_many_clients_get_what_each_gets_alone_while_an_answer_goes_on(server, client):
    asked = [[i + 3] * (i % 9 + 1) for i in range(16)]
    made, chat = {}, {"prompt": "the rain", "n_predict": 60, "temperature": 0, "ignore_eos": True}

    def ask(number):
        made[number] = vectors(server.ask("/v1/embeddings", {"input": [asked[number]]}))[0]

    for number in range(len(asked)):
        ask(number)
    alone, said = dict(made), server.ask("/completion", chat).json["content"]
    threads = [threading.Thread(target=ask, args=[number]) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    assert server.ask("/completion", chat).json["content"] == said
    for thread in threads:
        thread.join()
    assert all(np.array_equal(made[i], value) for i, value in alone.items())
    assert server.service.leaked() == {}


def test_an_unknown_key_of_the_file_s_pooling_is_none(tmp_path):
    from tiny import tiny_llama

    with opsin.load(tiny_llama(tmp_path / "m.gguf", metadata={"llama.pooling_type": 77}), threads=1) as model:
        assert model.pooling == "last"


def test_the_client_raises_its_own_error(client):
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="any", input="a", dimensions=100_000)


def test_a_server_of_an_encoder_embeds_and_says_that_it_writes_nothing(tmp_path):
    encoder_folders = pytest.importorskip("encoder_folders", reason="needs transformers")
    encoder_folders.save(tmp_path, "bert")
    with opsin.load(tmp_path, threads=1) as model, running(lambda: model) as made:
        (value,) = vectors(made.ask("/v1/embeddings", {"input": "rain in spain"}))
        assert np.array_equal(value, model.embed("rain in spain"))
        for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
                           ("/completion", {"prompt": "a"})):  # fmt: skip
            reply = made.ask(path, body)
            assert reply.status == 400
            assert "writes nothing" in reply.json["error"]["message"]
        for path in ("/health", "/props", "/v1/models", "/metrics", "/slots", "/api/tags", "/"):
            assert made.ask(path).status == 200, path
        (entry,) = made.ask("/v1/models").json["data"]
        assert entry["architecture"]["output_modalities"] == ["embeddings"]
        assert made.ask("/tokenize", {"content": "rain", "add_special": True}).json["tokens"][0] == 2
        assert made.service.leaked() == {}
