"""Videos in requests: the ways that vLLM's and llama-server's clients have, and wrong ones."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import openai
import pytest

sys.path.append(str(Path(__file__).parents[1] / "media"))
from made_videos import made_video

pytest.importorskip("av")

LIVELY = {"seed": 5, "temperature": 9.0, "max_tokens": 8, "top_p": 1.0, "extra_body": {"top_k": 0, "min_p": 0.0}}


@pytest.fixture(scope="module")
def plain():
    return base64.b64encode(made_video(20)).decode()


@pytest.fixture(scope="module")
def client(sight):
    with openai.OpenAI(base_url=f"{sight.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client, part):
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}]
    return client.chat.completions.create(model="tiny", messages=messages, **LIVELY)


def test_every_way_to_send_a_video_gives_its_answer(client, plain):
    url = f"data:video/mp4;base64,{plain}"
    parts = [
        {"type": "video_url", "video_url": {"url": url, "fps": 1}}, {"type": "video_url", "video_url": url, "fps": 1},
        {"type": "input_video", "input_video": {"data": plain, "fps": 1}},
        {"type": "input_video", "input_video": {"url": url}, "fps": 1},
    ]  # fmt: skip
    answers = [ask(client, part) for part in parts]
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert len({answer.usage.prompt_tokens for answer in answers}) == 1
    more = ask(client, {"type": "video_url", "video_url": {"url": url, "fps": 2}})
    assert more.usage.prompt_tokens > answers[0].usage.prompt_tokens


@pytest.mark.parametrize(("part", "said"), [
    ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, "messages[0].content[1]"),
    ({"type": "video_url", "video_url": {}}, "messages[0].content[1]"),
    ({"type": "input_video"}, "there is no input_video"),
    ({"type": "video_url", "video_url": {"url": "http://127.0.0.1:9/a.mp4"}}, "messages[0].content[1]"),
    ({"type": "video_url", "video_url": "data:,a", "fps": 0}, "messages[0].content[1].fps"),
    ({"type": "video_url", "video_url": {"url": "data:,a", "frames": 0}}, "messages[0].content[1].video_url.frames"),
    ({"type": "text", "text": "a", "fps": 2}, "messages[0].content[1].fps"),
    ({"type": "text", "text": "a", "video_url": "data:,a"}, "messages[0].content[1].video_url"),
    ({"type": "video_url", "video_url": "data:,a", "text": "b"}, "messages[0].content[1].text"),
])  # fmt: skip
def test_a_wrong_video_is_refused_and_named(client, part, said):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, part)
    assert said in f"{caught.value.param} {caught.value.message}"
