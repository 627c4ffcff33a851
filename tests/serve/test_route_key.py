"""Keys of requests: one of a picture in every protocol, of a conversation in all its turns; and nothing heavy."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time

import pytest
from running_server import running

from opsin.cli import main
from opsin.serve.route_key import route_key

PICTURE = base64.b64encode(bytes(range(256))).decode()
OTHER = base64.b64encode(bytes(range(1, 256))).decode()
URL = f"data:image/png;base64,{PICTURE}"
PART = {"type": "image_url", "image_url": {"url": URL}}
SAID = {"type": "text", "text": "What is it?"}


def chat(*parts: object, before: tuple[object, ...] = (), **more: object) -> dict[str, object]:
    return {"messages": [*before, {"role": "user", "content": list(parts)}], **more}


SAME = {
    "OpenAI": chat(SAID, PART),
    "a URL as it is": chat({"type": "image_url", "image_url": URL}, SAID),
    "another question": chat(PART, {"type": "text", "text": "And what is that?"}, model="x", temperature=1),
    "another type said": chat({"type": "image_url", "image_url": {"url": f"DATA:image/jpeg;base64,{PICTURE}"}}),
    "a later turn": chat(SAID, before=({"role": "system", "content": "Be kind."}, *chat(PART)["messages"])),
    "a second picture": chat(PART, {"type": "image_url", "image_url": {"url": OTHER}}),
    "responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]},
    "Anthropic": chat({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}),
    "Anthropic, in a tool's result": chat(
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "base64", "data": PICTURE}}]}
    ),
    "Ollama's chat": {"messages": [{"role": "user", "content": "What is it?", "images": [PICTURE]}]},
    "Ollama's prompt": {"prompt": "What is it?", "images": [PICTURE]},
    "a raw prompt": {"prompt": {"prompt_string": "<__media__>", "multimodal_data": [PICTURE]}},
    "an embedding": {"input": [{"content": [PART]}]},
    "a file sent along": chat({"type": "file", "file": {"file_data": URL, "filename": "a.png"}}),
}


@pytest.mark.parametrize("name", SAME)
def test_a_picture_has_one_key_in_every_protocol_and_question(name: str) -> None:
    key = route_key(SAME[name])
    assert key == route_key(SAME["OpenAI"]) and len(key) == 32 and int(key, 16)


@pytest.mark.parametrize("word", ["url", "data"])
def test_an_address_counts_only_where_a_medium_may_stand(word: str) -> None:
    """Else two conversations about one page would be two, and a tool's data would be a picture."""
    plain = chat(SAID)
    assert route_key(chat({**SAID, word: "https://example.org/a.png"})) == route_key(plain)
    assert route_key({"messages": [{**plain["messages"][0], word: "https://example.org/a.png"}]}) == route_key(plain)
    assert route_key(chat(SAID, PART, {"type": "text", "text": "And?", word: "x"})) == route_key(SAME["OpenAI"])


def test_what_differs_has_other_keys() -> None:
    bodies = [
        SAME["OpenAI"],
        chat({"type": "image_url", "image_url": {"url": OTHER}}),
        chat({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}),
        chat({"type": "image_url", "image_url": {"url": "https://example.org/b.png"}}),
        chat({"type": "input_audio", "input_audio": {"data": OTHER[:40], "format": "wav"}}),
        chat({"type": "video_url", "video_url": {"url": "https://example.org/c.mp4"}}),
        chat({"type": "file", "file": {"file_id": "file-1"}}),
        chat({"type": "input_image", "file_id": "file-2"}),
        chat(SAID),
        {"prompt": "Once"},
        {"prompt": [5, 6, 7]},
        {"input": ["Once upon"]},
        {"query": "Which?", "documents": ["a", "b"]},
        {"messages": [{"role": "system", "content": "Only this."}]},
    ]
    keys = [route_key(body) for body in bodies]
    assert all(keys) and len(set(keys)) == len(bodies)


def test_a_uuid_stands_for_its_picture_with_and_without_the_url() -> None:
    named = {**PART, "uuid": "cat"}
    assert route_key(chat(named)) == route_key(chat({"type": "image_url", "image_url": None, "uuid": "cat"}))
    assert route_key(chat(named)) != route_key(chat({**PART, "uuid": "dog"}))


def test_texts_go_by_the_first_persons_words_through_all_turns() -> None:
    system, first = {"role": "system", "content": "Be kind. " * 300}, {"role": "user", "content": "Hi, I am Ann."}
    turns = [first, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Who am I?"}]
    keys = {route_key({"messages": messages}) for messages in ([first], [system, first], turns, [system, *turns])}
    assert len(keys) == 1
    assert route_key({"messages": [system, {"role": "user", "content": "Hi, I am Bob."}]}) not in keys
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": first["content"]}]}]}
    assert route_key(parts) in keys


@pytest.mark.parametrize("letter", ["a", "é", "\ud800"])
def test_of_a_text_the_first_bytes_count(letter: str) -> None:
    begin = letter * 2000
    assert route_key({"prompt": begin + "x"}) == route_key({"prompt": begin + "y"})
    assert route_key({"prompt": begin + "x"}, 1 << 20) != route_key({"prompt": begin + "y"}, 1 << 20)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"messages": []}, {"messages": None}, {"messages": 5}, {"messages": [None, 3, {}]}, {"prompt": ""},
        {"messages": [{"content": [{"image_url": None}, {"image_url": {"url": 5}}, {"source": []}]}]},
        {"input": [[]]}, {"images": [None, ""]}, {"tools": [{"url": "https://example.org", "data": "x"}]},
    ],
)  # fmt: skip
def test_what_names_nothing_has_no_key(body: dict[str, object]) -> None:
    assert route_key(body) == ""


def test_a_tools_address_is_no_picture() -> None:
    call = {"function": {"name": "look", "arguments": {"url": "https://example.org", "image": URL}}}
    asked = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]}
    assert route_key(asked) == route_key({"messages": [{"role": "user", "content": "Hi"}]})


def test_depth_and_breadth_are_no_danger() -> None:
    deep: object = URL
    for _ in range(10_000):
        deep = [deep]
    assert route_key({"images": deep}) == route_key(SAME["OpenAI"])
    assert route_key({"messages": deep}) == ""
    assert route_key({"messages": [{"content": [{}] * 30_000}]}) == ""
    while isinstance(deep, list):  # else its end is as deep
        deep = deep.pop()


def test_a_thousand_bodies_of_up_to_20_mb_have_their_keys() -> None:
    """With `-s` it tells the processor's time a MB; 5 ms are wanted at most."""
    large = "data:image/png;base64," + "A" * (20 << 20)
    bodies = [chat(SAID, {"type": "image_url", "image_url": {"url": large[: (20 << 20) >> n % 12]}}) for n in range(60)]
    small = [chat(SAID, {"type": "image_url", "image_url": {"url": f"{URL}{n}"}}) for n in range(940)]
    begin = time.process_time()
    keys = {route_key(body) for body in (*bodies, *small)}
    took = time.process_time() - begin
    megabytes = sum(len(body["messages"][0]["content"][1]["image_url"]["url"]) for body in (*bodies, *small)) / 1e6
    print(f"{1e3 * took / megabytes:.2f} ms a MB over {megabytes:.0f} MB")
    assert len(keys) == 12 + 940


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, opsin.serve.route_key as r; r.route_key({'prompt': 'x'}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "numba", "PIL", "starlette", "ray"} & set(loaded)


def test_the_command_tells_the_key_of_a_body(tmp_path, capsys, monkeypatch) -> None:
    for name, body in (("a.json", SAME["OpenAI"]), ("b.json", SAME["Ollama's chat"]), ("c.json", {})):
        (tmp_path / name).write_text(json.dumps(body))
        assert main.run(["key", str(tmp_path / name)]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(SAME["responses"]).encode())))
    assert main.run(["key", "-"]) == 0
    key = route_key(SAME["OpenAI"])
    assert capsys.readouterr().out.splitlines() == [key, key, "", key]
    for text in ("[1]", "{", "[" * 100_000):
        (tmp_path / "d.json").write_text(text)
        assert main.run(["key", str(tmp_path / "d.json")]) == 3
        assert str(tmp_path / "d.json") in capsys.readouterr().err


def test_a_server_tells_the_key_where_it_was_asked_to(text_model) -> None:
    hello, form = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}, {"Content-Type": "multipart/form"}
    with running(lambda: text_model, tells_key=True) as told, running(lambda: text_model) as silent:
        for body in (hello, {**hello, "stream": True}, {**hello, "padding": "x" * (1 << 17)}, chat(PART)):
            reply = told.chat(**body)
            assert reply.headers["x-opsin-key"] == route_key(body)
            assert reply.status == (400 if body == chat(PART) else 200)  # this model sees nothing
            assert "x-opsin-key" not in silent.chat(**body).headers
        for data in (b"{", b"[]", b"[" * 10_000, b"\xff", b"{}"):
            assert told.ask("/v1/chat/completions", data).status == 400
        replies = [told.ask("/health"), told.ask("/v1/audio/transcriptions", b"x", headers=form), told.chat()]
        assert not any("x-opsin-key" in reply.headers for reply in replies)
