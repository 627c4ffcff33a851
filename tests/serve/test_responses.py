"""OpenAI's responses through its own client, unmodified: whole, streamed, gone on with, with tools and pictures."""

from __future__ import annotations

import json

import openai
import pydantic
import pytest
from running_server import calling_model, running
from scripted import scripted
from test_serve_pictures import data_url, part, picture, text, user
from test_tools import PARAMETERS, SPECIALS, TEMPLATE, call

from opsin.serve.response_store import ResponseStore

TOOLS = [{"type": "function", "name": "weather", "description": "Tells.", "parameters": PARAMETERS},
         {"type": "function", "name": "noon", "parameters": {}}]  # fmt: skip
ASK = {"model": "x", "input": "weather?", "max_output_tokens": 400}
REPLY = "<think>\nLook?\n</think>\n\nI look.\n" + call() + "\n" + call("noon", "{}")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with calling_model(tmp_path_factory.mktemp("calling"), TEMPLATE, SPECIALS) as made:
        yield made


@pytest.fixture(scope="module")
def server(model):
    with running(lambda: model) as made:
        yield made


def whole(client, **fields):
    return client.responses.create(**{**ASK, **fields})


def streamed(client, **fields):
    with client.responses.stream(**{**ASK, **fields}) as stream:
        events = list(stream)
    response = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert {event.response.id for event in events if hasattr(event, "response")} == {response.id}
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == response.output_text
    return response


@pytest.mark.parametrize("read", [whole, streamed])
def test_thoughts_text_and_calls_are_items(model, client, read):
    with scripted(model, REPLY):
        response = read(client, tools=TOOLS)
    thought, said, first, second = response.output
    assert (thought.type, thought.content[0].text) == ("reasoning", "Look?")
    assert (said.type, said.role, response.output_text) == ("message", "assistant", "I look.")
    assert json.loads(first.arguments) == {"city": "Björk<b>", "days": 3}
    assert [(one.type, one.name) for one in (first, second)] == [
        ("function_call", "weather"),
        ("function_call", "noon"),
    ]
    assert len({one.id for one in response.output} | {one.call_id for one in (first, second)}) == 6
    assert {one.status for one in response.output} == {"completed"}
    assert (response.status, response.id[:5], response.usage.output_tokens) == (
        "completed", "resp_", len(model.tokenize(REPLY, special=True)),
    )  # fmt: skip


@pytest.mark.parametrize("read", [whole, streamed])
def test_an_answer_that_is_cut_is_incomplete(model, client, read):
    with scripted(model, "one two three"):
        response = read(client, max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.output_tokens == 2


@pytest.mark.parametrize("read", [whole, streamed])
def test_what_was_stored_is_gone_on_with(model, server, client, read):
    with scripted(model, "It rains."):
        first = read(client, instructions="Be.")
    messages = [
        {"role": "system", "content": "Stay."}, {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "It rains."}, {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    extra = {"temperature": 1, "seed": 4}
    same = server.chat(messages=messages, max_tokens=12, **extra).json
    again = read(client, input="And now?", instructions="Stay.", previous_response_id=first.id, max_output_tokens=12,
                 temperature=1, extra_body={"seed": 4})  # fmt: skip
    assert again.output_text == same["choices"][0]["message"]["content"]
    assert (again.previous_response_id, again.usage.input_tokens) == (first.id, same["usage"]["prompt_tokens"])


def test_a_conversation_of_items_is_that_of_messages(server, client):
    items = [
        {"role": "developer", "content": "Be."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look?"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city": "Ur"}'},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "wet"}]},
        {"role": "user", "content": "And now?"},
    ]
    function = {"name": "weather", "arguments": '{"city": "Ur"}'}
    messages = [
        {"role": "developer", "content": "Be."},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant", "content": "I look.", "reasoning_content": "Look?",
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "wet"},
        {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    bodies = {"/v1/responses": {"input": items}, "/v1/chat/completions": {"messages": messages}}
    counts = [server.ask(f"{path}/input_tokens", body).json["input_tokens"] for path, body in bodies.items()]
    assert counts[0] == counts[1]
    wanted = server.chat(messages=messages, temperature=1, seed=4, max_tokens=12).json
    made = whole(client, input=items, temperature=1, max_output_tokens=12, extra_body={"seed": 4})
    assert made.output_text == wanted["choices"][0]["message"]["content"]


def test_a_stored_response_is_told_until_it_is_forgotten(client):
    made = whole(client, max_output_tokens=3)
    assert client.responses.retrieve(made.id).output_text == made.output_text
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    for id in (made.id, whole(client, max_output_tokens=3, store=False).id):
        with pytest.raises(openai.BadRequestError, match="previous_response_id: there is no response"):
            whole(client, previous_response_id=id)


def test_the_oldest_give_way():
    store = ResponseStore(most=10_000)
    for number in range(4):
        store.keep({"id": f"resp_{number}"}, [{"role": "user", "content": "x" * 3000}])
    assert [store.find(f"resp_{number}") is not None for number in range(4)] == [False, False, True, True]
    store.keep({"id": "large"}, [{"role": "user", "content": [{"type": "text", "text": "x" * 20_000}]}])
    assert store.find("large") is None
    assert store.find("resp_3") is not None


class City(pydantic.BaseModel):
    """What an answer is parsed into."""

    kind: bool


def test_an_answer_is_parsed(client):
    made = client.responses.parse(model="x", input="weather?", text_format=City, max_output_tokens=300)
    assert isinstance(made.output_parsed, City)


def test_a_call_can_be_required(client):
    made = whole(client, tools=TOOLS, tool_choice={"type": "function", "name": "noon"}, extra_body={"seed": 1})
    assert {one.name for one in made.output if one.type == "function_call"} == {"noon"}


def test_log_probabilities_come_with_the_text(client):
    made = whole(client, max_output_tokens=4, include=["message.output_text.logprobs"], top_logprobs=2)
    told = made.output[0].content[0].logprobs
    assert [len(one.top_logprobs) for one in told] == [2] * 4


def test_a_picture_is_seen_as_in_a_chat(sight):
    url = data_url(picture(1))
    content = [{"type": "input_image", "image_url": url, "detail": "auto"}, {"type": "input_text", "text": "what?"}]
    ours = user(part(url), text("what?"))
    counted = sight.ask("/v1/chat/completions/input_tokens", {"messages": ours}).json["input_tokens"]
    with sight.openai() as client:
        made = client.responses.create(model="x", input=[{"role": "user", "content": content}], max_output_tokens=1)
    assert made.usage.input_tokens == counted


WRONG = {
    "no input": ({"input": []}, "input"),
    "a file": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    "a damaged picture": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]},
        "input[0].content[0]",
    ),
    "a server's tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "in the background": ({"background": True}, "background"),
    "a call without a name": ({"input": [{"type": "function_call", "call_id": "a"}]}, "input[0].name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_by_the_clients_path(sight, name):
    fields, path = WRONG[name]
    reply = sight.ask("/v1/responses", {**ASK, **fields})
    assert reply.status == 400
    assert reply.json["error"]["message"].startswith(f"{path}: ")
