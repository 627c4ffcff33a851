"""Pictures through the unmodified `openai` client, in every form; wrong pictures, each with its own answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import openai
import pytest
from PIL import Image
from running_server import Running, running
from tiny_sight import ROWS, tiny_pair

import opsin
from opsin.api import Model
from opsin.media.fetch import FetchRules

# A tiny random model is sure of one id: this makes its answers differ, and repeat.
LIVELY = {"seed": 5, "temperature": 9.0, "max_tokens": 12, "top_p": 1.0, "extra_body": {"top_k": 0, "min_p": 0.0}}


def picture(seed: int, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def part(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}


def user(*parts: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A web server: /N.png is picture N, /page a page, /loop a loop."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            if name == "loop":
                self.send_response(302)
                self.send_header("Location", "/loop")
                self.end_headers()
                return
            body = picture(int(name[:-4])) if name.endswith(".png") else b"<html>a page</html>"
            self.send_response(200 if name.endswith((".png", "page")) else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("sight")
    tiny_pair(folder)
    (folder / "local.png").write_bytes(picture(1))
    rules = FetchRules(allow_private=True, folders=(folder,))
    with opsin.load(folder / "model.gguf", threads=2, context=512, sequences=16, rules=rules) as made:
        yield made


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[Running]:
    with running(lambda: model) as made:
        yield made


def answer(client: openai.OpenAI, messages: list[dict[str, object]]) -> str:
    return client.chat.completions.create(model="any", messages=messages, **LIVELY).choices[0].message.content


def test_a_picture_is_the_same_however_it_comes(client, model, web):
    forms = [data_url(picture(1)), f"{web}/1.png", (model.path.parent / "local.png").as_uri()]
    answers = {answer(client, user(part(url), text("What is this?"))) for url in forms}
    inside = model.chat(
        user(picture(1), "What is this?"), seed=5, temperature=9.0, max_tokens=12, top_p=1.0, top_k=0, min_p=0.0
    )
    assert answers == {inside.text}
    assert answers != {answer(client, user(part(data_url(picture(2))), text("What is this?")))}


def test_pictures_stand_anywhere_between_texts(client, server):
    a, b = (part(data_url(picture(seed))) for seed in (1, 2))
    orders = [(a, b, text("Which?")), (b, a, text("Which?")), (a, text("Which?"), b), (text("Which?"), a, b)]
    answers = [answer(client, user(*parts)) for parts in orders]
    assert len(set(answers)) == len(orders)
    history = [*user(a, text("One")), {"role": "assistant", "content": "I see."}, *user(text("And?"), b)]
    reply = server.ask("/v1/chat/completions", {"messages": history, "max_tokens": 1}).json
    assert reply["usage"]["prompt_tokens_details"]["image_tokens"] == 2 * ROWS
    assert [used["part"] for used in reply["usage"]["pictures"]] == [
        "messages[0].content[0]", "messages[2].content[1]"
    ]  # fmt: skip


def test_a_stream_about_a_picture_says_the_same(client):
    messages = user(part(data_url(picture(3))), text("What is this?"))
    pieces = client.chat.completions.create(model="any", messages=messages, stream=True, **LIVELY)
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert streamed == answer(client, messages)


def test_usage_tells_what_became_of_a_picture(server):
    body = {"messages": user(part(data_url(picture(1, (300, 200)))), text("?")), "max_tokens": 1}
    usage = server.ask("/v1/chat/completions", body).json["usage"]
    (used,) = usage["pictures"]
    assert (used["original"], used["size"], used["tokens"]) == ([300, 200], [32, 32], ROWS)
    count = server.ask("/v1/chat/completions/input_tokens", {"messages": body["messages"]}).json
    assert count["input_tokens"] == usage["prompt_tokens"]


def test_sixteen_at_once_answer_as_each_alone(client):
    asked = [
        user(*(part(data_url(picture(seed + i))) for i in range(seed % 3)), text(f"What is this, {seed}?"))
        for seed in range(16)
    ]
    alone = [answer(client, messages) for messages in asked]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda messages: answer(client, messages), asked)) == alone
    assert len(set(alone)) > 8


def test_asking_again_computes_only_what_is_new(server):
    first = user(part(data_url(picture(9))), text("What is this? " * 20))
    reply = server.ask("/v1/chat/completions", {"messages": first, "max_tokens": 4, "temperature": 0}).json
    said = {"role": "assistant", "content": reply["choices"][0]["message"]["content"]}
    again = server.ask("/v1/chat/completions", {"messages": [*first, said, *user(text("And?"))], "max_tokens": 1}).json[
        "usage"
    ]
    assert again["prompt_tokens_details"]["cached_tokens"] >= 64


def test_the_server_says_that_it_sees(server):
    assert server.ask("/v1/models").json["data"][0]["architecture"]["input_modalities"] == ["text", "image"]
    assert server.ask("/props").json["modalities"]["vision"] is True


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:image/png;base64,", "nothing stands"),
        (data_url(picture(1)[:200]), "truncated"),
        (data_url(b"hello"), "unknown kind"),
        ("data:image/png;base64,!!!", "base64"),
        ("{web}/page", "page"),
        ("{web}/missing", "404"),
        ("{web}/loop", "redirect"),
        ("http://", ""),
        ("ftp://example.com/a.png", "ftp"),
        ("file:///etc/passwd", "below"),
        ("hello", ""),
    ],
)
def test_a_wrong_picture_is_a_400_that_names_the_part(server, web, url, said):
    messages = user(text("Look:"), part(url.replace("{web}", web)))
    reply = server.ask("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    error = reply.json["error"]
    assert reply.status == 400
    assert "messages[0].content[1]" in error["message"]
    assert error["param"] == "messages[0].content[1]"
    assert said in error["message"]


def test_private_addresses_are_refused_unless_allowed(model, web, tmp_path):
    tiny_pair(tmp_path)
    with (
        opsin.load(tmp_path / "model.gguf", threads=1, context=256, sequences=1) as careful,
        running(lambda: careful) as made,
    ):
        for url in (f"{web}/1.png", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "file:///etc/hosts"):
            reply = made.ask("/v1/chat/completions", {"messages": user(part(url)), "max_tokens": 1})
            assert reply.status == 400
            assert "messages[0].content[0]" in reply.json["error"]["message"]


def test_more_pictures_than_the_context_holds_is_a_400_that_names_the_first_too_many(server):
    parts = [part(data_url(picture(seed))) for seed in range(40)]
    reply = server.ask("/v1/chat/completions", {"messages": user(*parts), "max_tokens": 1})
    error = reply.json["error"]
    assert reply.status == 400
    assert "of 40" in error["message"] and "512" in error["message"]
    assert (error["type"], error["n_ctx"]) == ("exceed_context_size_error", 512) and error["n_prompt_tokens"] >= 512


def test_a_wrong_picture_disturbs_nobody(client, server):
    good = user(part(data_url(picture(1))), text("What is this?"))
    alone = answer(client, good)
    bad = {"messages": user(part(data_url(picture(1)[:200]))), "max_tokens": 1}
    with ThreadPoolExecutor(8) as threads:
        wrong = [threads.submit(server.ask, "/v1/chat/completions", bad) for _ in range(6)]
        right = [threads.submit(answer, client, good) for _ in range(6)]
        assert {done.result().status for done in wrong} == {400}
        assert {done.result() for done in right} == {alone}
