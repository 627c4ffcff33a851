"""Sounds through the unmodified `openai` client and the other protocols; wrong ones, each with its own answer."""

from __future__ import annotations

import base64

import openai
import pytest
from made_tracks import made_track
from running_server import running
from tiny_hearing import SECOND, recording, tiny_hearing

import opsin
from opsin.media.hearing import open_sound

DATA = recording()
ENCODED = base64.b64encode(DATA).decode()
WAV = {"type": "input_audio", "input_audio": {"data": ENCODED, "format": "wav"}}
TEXT = {"type": "text", "text": "What is said?"}
GREEDY = {"temperature": 0, "max_tokens": 4}


@pytest.fixture(scope="module")
def hears(tmp_path_factory):
    text = tiny_hearing(tmp_path_factory.mktemp("hears"), sees=True)
    with running(lambda: opsin.load(text, threads=2, context=512, sequences=4), close=True) as made:
        yield made


@pytest.fixture(scope="module")
def talks(hears):
    with hears.openai() as made:
        yield made


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def test_openais_client_asks_about_a_sound(hears, talks):
    made = talks.chat.completions.create(model="tiny", messages=user(TEXT, WAV), **GREEDY)
    assert made.usage.prompt_tokens_details.audio_tokens == SECOND
    told = hears.chat(messages=user(TEXT, WAV), **GREEDY).json["usage"]
    assert told["prompt_tokens_details"]["image_tokens"] == 0 and told["pictures"] == []
    assert told["sounds"] == [{"part": "messages[0].content[1]", "seconds": 1.0, "tokens": SECOND, "notes": []}]
    streamed = talks.chat.completions.create(model="tiny", messages=user(TEXT, WAV), stream=True, **GREEDY)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == made.choices[0].message.content


def test_every_address_hears_the_same(hears, talks):
    url = {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{ENCODED}"}}
    stored = talks.files.create(file=("a.wav", DATA), purpose="user_data")
    by_id = {"type": "file", "file": {"file_id": stored.id}}
    sent = {"type": "file", "file": {"file_data": f"data:audio/wav;base64,{ENCODED}", "filename": "a.wav"}}
    replies = [hears.chat(messages=user(TEXT, part), **GREEDY).json for part in (WAV, url, by_id, sent)]
    (text,) = {reply["choices"][0]["message"]["content"] for reply in replies}
    (tokens,) = {reply["usage"]["prompt_tokens"] for reply in replies}
    parts = [{"type": "input_text", "text": "What is said?"}, WAV]
    made = talks.responses.create(model="tiny", input=user(*parts), temperature=0, max_output_tokens=16)
    assert made.output_text.startswith(text) and made.usage.input_tokens == tokens


@pytest.mark.parametrize(("kind", "codec"), [("ipod", "aac"), ("webm", "libopus")])
def test_m4a_and_webm_are_heard_as_wav_is(talks, kind, codec):
    data = made_track(open_sound(DATA).samples, kind, codec)
    audio = {"data": base64.b64encode(data).decode(), "format": kind}
    made = talks.chat.completions.create(
        model="tiny", messages=user(TEXT, {"type": "input_audio", "input_audio": audio}), **GREEDY
    )
    assert made.usage.prompt_tokens_details.audio_tokens == SECOND
    assert made.choices[0].message.content


def test_ollamas_clients_send_sounds_among_pictures(hears):
    body = {"messages": [{"role": "user", "content": "What is said?", "images": [ENCODED]}], "stream": False}
    reply = hears.ask("/api/chat", {**body, "options": {"temperature": 0, "num_predict": 4}}).json
    wanted = hears.chat(messages=user(WAV, TEXT), **GREEDY).json
    assert reply["message"]["content"] == wanted["choices"][0]["message"]["content"]
    assert reply["prompt_eval_count"] == wanted["usage"]["prompt_tokens"]


def test_llama_servers_raw_prompts_take_sounds(hears):
    marker = hears.ask("/props").json["media_marker"]
    prompt = {"prompt_string": f"Hear {marker} now", "multimodal_data": [ENCODED]}
    reply = hears.ask("/completion", {"prompt": prompt, "n_predict": 2}).json
    assert reply["tokens_evaluated"] > SECOND


def test_a_server_tells_that_it_hears(hears):
    assert hears.ask("/props").json["modalities"] == {"vision": True, "audio": True, "video": False}
    assert hears.ask("/v1/models").json["data"][0]["architecture"]["input_modalities"] == ["text", "image", "audio"]
    assert "audio" in hears.ask("/api/tags").json["models"][0]["capabilities"]


def test_a_recording_is_written_down_by_whoever_hears_without_times(hears, talks):
    asked = {"model": "tiny", "file": ("a.wav", DATA)}
    made = talks.audio.transcriptions.create(**asked)
    assert made.text and made.usage.seconds == 1
    plain = talks.audio.transcriptions.create(**asked, response_format="text")
    assert plain.split() == made.text.split()
    (*_, last) = talks.audio.transcriptions.create(**asked, stream=True)
    assert last.text == made.text
    for format in ("srt", "vtt", "verbose_json"):
        with pytest.raises(openai.BadRequestError, match="model writes down what was said, and not when"):
            talks.audio.transcriptions.create(**asked, response_format=format)


@pytest.mark.parametrize(
    ("part", "param", "words"),
    [
        ({"type": "input_audio", "input_audio": {"data": "AAAA"}}, "messages[0].content[0]", "of an unknown kind"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "messages[0].content[0].input_audio.data", "data"),
        ({"type": "audio_url", "audio_url": "nowhere"}, "messages[0].content[0]", "not a URL"),
        ({"type": "audio_url", "audio_url": {"url": "http://127.0.0.1/a.wav"}}, "messages[0].content[0]", "127.0.0.1"),
        ({**WAV, "text": "What?"}, "messages[0].content[0].text", "nothing is read from here"),
        ({**TEXT, "input_audio": WAV["input_audio"]}, "messages[0].content[0].input_audio", "nothing is read"),
        ({"type": "image_url", "image_url": {"url": f"data:audio/wav;base64,{ENCODED}"}}, "messages[0].content[0]", ""),
    ],
)
def test_wrong_sounds_are_the_clients_fault_and_named(talks, part, param, words):
    with pytest.raises(openai.BadRequestError) as raised:
        talks.chat.completions.create(model="tiny", messages=user(part), max_tokens=2)
    assert raised.value.param == param and words in raised.value.message


def test_a_server_that_does_not_hear_says_so(sight):
    reply = sight.chat(messages=user(TEXT, WAV), max_tokens=2)
    assert reply.status == 400 and "does not hear" in reply.json["error"]["message"]
