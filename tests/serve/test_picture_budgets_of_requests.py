"""How finely pictures are looked at, as fields of requests; what was done is told in `usage`."""

from __future__ import annotations

import base64

import pytest
from running_server import running
from test_serve_pictures import data_url, picture, text, user
from tiny_sight import ROWS, SIDE, tiny_pair

import opsin
from opsin.media.budget import MOST

CHAT, COUNT, NATIVE = "/v1/chat/completions", "/v1/chat/completions/input_tokens", "/completion"
DATA = picture(1, (120, 60))  # two rows of four tiles, and the whole


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    text_file, _ = tiny_pair(tmp_path_factory.mktemp("tiled"), "idefics3")
    with opsin.load(text_file, threads=2, context=1024, sequences=4) as model, running(lambda: model) as made:
        yield made


def part(beside=None, **within):
    return {"type": "image_url", "image_url": {"url": data_url(DATA), **within}, **(beside or {})}


def used(server, *parts, **fields):
    reply = server.chat(messages=user(*parts, text("?")), max_tokens=1, **fields)
    assert reply.status == 200, reply.body
    usage = reply.json["usage"]
    assert usage["prompt_tokens_details"]["image_tokens"] == sum(one["tokens"] for one in usage["pictures"])
    count = server.ask(COUNT, {"messages": user(*parts, text("?")), **fields})
    assert count.json["input_tokens"] == usage["prompt_tokens"]
    return usage["pictures"]


def test_a_picture_says_it_where_openai_does_beside_or_for_all(server):
    assert [one["tokens"] for one in used(server, part(), part(detail="low"), part({"detail": "low"}))] == [
        9 * ROWS, ROWS, ROWS
    ]  # fmt: skip
    assert [one["tokens"] for one in used(server, part(), part(detail="high"), detail="low")] == [ROWS, 9 * ROWS]
    small = {"max_image_tokens": 3 * ROWS}
    for one in (*used(server, part(**small)), *used(server, part(small)), *used(server, part(), **small)):
        assert (one["tokens"], one["size"], one["original"]) == (3 * ROWS, [2 * SIDE, SIDE], [120, 60])
        assert (one["area"], one["notes"]) == ([0.0, 0.0, 120.0, 60.0], [])
    assert used(server, part(max_pixels=SIDE**2), max_pixels=4 * SIDE**2)[0]["tokens"] == ROWS
    assert used(server, part({"detail": None}, detail=None, min_pixels=None), detail="auto")[0]["tokens"] == 9 * ROWS


def test_what_cannot_be_done_is_told(server):
    (one,) = used(server, part(max_image_tokens=ROWS - 1))
    assert (one["tokens"], one["notes"]) == (ROWS, [f"max_image_tokens is {ROWS - 1}: it takes {ROWS} tokens"])


def test_openais_client_sends_it(server):
    with server.openai() as client:
        made = client.chat.completions.create(
            model="any", messages=user(part(detail="low"), text("?")), max_tokens=1, temperature=0,
            extra_body={"max_image_tokens": 3 * ROWS},
        )  # fmt: skip
    assert made.usage.prompt_tokens_details.image_tokens == ROWS


def test_prompts_as_they_stand_take_it_for_all_or_one(server):
    marker = server.ask("/props").json["media_marker"]
    prompt = {"prompt_string": f"{marker} a", "multimodal_data": [base64.b64encode(DATA).decode()]}
    whole, low, own = (
        server.ask(NATIVE, body | {"n_predict": 1}).json["tokens_evaluated"]
        for body in ({"prompt": prompt}, {"prompt": prompt, "detail": "low"}, {"prompt": {**prompt, "detail": "low"}})
    )
    assert low == own < whole - 8 * ROWS


WRONG = [
    ("detail", "medium"), ("detail", ""), ("detail", 5), ("min_pixels", 0), ("max_pixels", -1),
    ("max_pixels", MOST + 1),
    ("min_image_tokens", 1.5), ("max_image_tokens", "many"), ("max_image_tokens", True), ("max_pixels", [5]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_value_is_a_400_that_names_the_field(server, field, value):
    marker = server.ask("/props").json["media_marker"]
    raw = {"prompt_string": marker, "multimodal_data": [base64.b64encode(DATA).decode()]}
    for path, body, place in (
        (CHAT, {"messages": user(part({field: value}))}, f"messages[0].content[0].{field}"),
        (CHAT, {"messages": user(part(**{field: value}))}, f"messages[0].content[0].image_url.{field}"),
        (CHAT, {"messages": user(part()), field: value}, field),
        (COUNT, {"messages": user(text("hi")), field: value}, field),
        (NATIVE, {"prompt": raw, field: value}, field),
        (NATIVE, {"prompt": {**raw, field: value}}, f"prompt.{field}"),
    ):
        reply = server.ask(path, body)
        error = reply.json["error"]
        assert (reply.status, error["type"], error["param"]) == (400, "invalid_request_error", place), error
        assert place in error["message"] and "give" in error["message"]


@pytest.mark.parametrize("what", ["pixels", "image_tokens"])
def test_a_least_above_a_most_is_a_400_that_names_it(server, what):
    wrong = {f"min_{what}": 9, f"max_{what}": 8}
    for body, place in (
        ({"messages": user(part(wrong))}, f"messages[0].content[0].min_{what}"),
        ({"messages": user(part(**wrong))}, f"messages[0].content[0].image_url.min_{what}"),
        ({"messages": user(part()), **wrong}, f"min_{what}"),
    ):
        reply = server.ask(CHAT, body)
        assert (reply.status, reply.json["error"]["param"]) == (400, place)
        assert f"max_{what}, 8" in reply.json["error"]["message"]


def test_words_beside_a_text_are_not_left_aside(server):
    for word, value in (("detail", "low"), ("max_pixels", 5)):
        reply = server.ask(CHAT, {"messages": user(part(), {**text("?"), word: value})})
        assert (reply.status, reply.json["error"]["param"]) == (400, f"messages[0].content[1].{word}")
