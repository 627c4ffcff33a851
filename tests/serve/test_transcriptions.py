"""Recordings over HTTP, with OpenAI's own client: every format, streams, what is refused, and who leaves."""

from __future__ import annotations

import threading
from io import BytesIO

import numpy as np
import openai
import pytest
import soundfile
from made_tracks import made_track
from running_server import running
from waiting import PATIENCE

import opsin
from opsin.media.hearing import open_sound

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_speech import published, write_by_hand

RATE = 16_000


def recording(seconds=2.2, seed=0):
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * 0.1
    file = BytesIO()
    soundfile.write(file, noise, RATE, format="WAV")
    return ("a.wav", file.getvalue())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_by_hand(tmp_path_factory.mktemp("speech") / "model.gguf", published())
    with opsin.load(path, threads=2, sequences=4) as made:
        yield made


@pytest.fixture(scope="module")
def server(model):
    with running(lambda: model) as made:
        yield made


def ask(client, **more):
    asked = {"model": "any", "file": recording(), "language": "en", "temperature": 0.5, **more}
    return client.audio.transcriptions.create(**asked)


@pytest.fixture(scope="module")
def told(client, model):
    """What the model says itself."""
    made = ask(client, response_format="verbose_json")
    assert made.text == model.transcribe(recording()[1], language="en", temperature=0.5).text
    return made


def test_segments_have_their_times_and_what_they_read_like(told):
    assert told.duration == pytest.approx(2.2) and told.language == "en"
    assert told.segments and "".join(segment.text for segment in told.segments).strip() == told.text
    for segment in told.segments:
        assert 0 <= segment.start < segment.end <= 33
        assert segment.avg_logprob < 0 <= segment.no_speech_prob <= 1 and segment.tokens


def test_words_have_times_where_they_are_asked_for(client, told):
    made = ask(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert made.text == told.text and told.words is None
    assert "".join(word.word for word in made.words).replace(" ", "") == made.text.replace(" ", "")
    assert all(word.start <= word.end for word in made.words)


@pytest.mark.parametrize("format", ["json", "text", "srt", "vtt"])
def test_every_format_is_told(client, format):
    made = ask(client, response_format=format)
    text = made.text if format == "json" else made
    assert isinstance(text, str) and text
    assert {"srt": "1\n00:00:0", "vtt": "WEBVTT\n\n00:00:0"}.get(format, "") in text
    if format == "json":
        assert (made.usage.type, made.usage.seconds) == ("duration", 2)


def test_a_stream_sends_pieces_and_then_all(client):
    events = list(ask(client, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * (len(events) - 1) + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]).strip() == events[-1].text


@pytest.mark.parametrize(
    ("kind", "codec", "name"), [("ipod", "aac", "a.m4a"), ("webm", "libopus", "a.webm"), ("mp4", "aac", "a.mp4")]
)
def test_what_phones_and_browsers_record_is_written_down(client, model, kind, codec, name):
    data = made_track(open_sound(recording()[1]).samples, kind, codec)
    made = ask(client, file=(name, data))
    assert made.text and made.text == model.transcribe(data, language="en", temperature=0.5).text
    assert made.usage.seconds == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of the address
def test_translations_are_asked_so(client):
    made = client.audio.translations.create(model="any", file=recording(), response_format="verbose_json")
    assert made.text and made.duration == pytest.approx(2.2)


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"file": ("a.wav", b"no sound")}, "file", "of an unknown kind"),
        ({"file": ("a.m4a", b"\0\0\0\x20ftypM4A ")}, "file", "damaged or truncated"),
        ({"language": "tlh"}, None, "the model knows no language"),
        ({"response_format": "diarized_json"}, "response_format", "is unknown"),
        ({"temperature": 7}, "temperature", "is out of range"),
        ({"timestamp_granularities": ["line"], "response_format": "verbose_json"}, None, "'line' is unknown"),
        ({"timestamp_granularities": ["word"]}, None, "with response_format json"),
    ],
)
def test_what_cannot_be_is_a_clear_400(client, more, param, words):
    with pytest.raises(openai.BadRequestError, match=words) as raised:
        ask(client, **more)
    assert param is None or raised.value.param == param


def test_a_body_that_is_no_form_is_refused(server):
    reply = server.ask("/v1/audio/transcriptions", {"file": "a"})
    assert reply.status == 415 and "no form" in reply.json["error"]["message"]
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nany\r\n--x--\r\n'
    reply = server.ask("/v1/audio/transcriptions", body, headers=boundary.items())
    assert reply.status == 400 and reply.json["error"]["param"] == "file"


def test_a_model_of_text_refuses_a_recording(tiny_file):
    with opsin.load(tiny_file(), threads=1) as text, running(lambda: text) as made, made.openai() as client:
        told = pytest.raises(openai.BadRequestError, ask, client)
    assert "hears nothing" in str(told.value)


def test_who_leaves_gives_its_place_back(server, client):
    stream = ask(client, file=recording(60), stream=True)
    next(iter(stream))
    stream.close()
    event = threading.Event()
    for _ in range(int(PATIENCE * 20)):
        if server.service.idle:
            break
        event.wait(0.05)
    assert server.service.idle


def test_several_are_written_at_once(client):
    texts: dict[int, str] = {}

    def one(seed):
        texts[seed] = ask(client, file=recording(seed=seed), temperature=0).text

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {seed: ask(client, file=recording(seed=seed), temperature=0).text for seed in texts} == texts
    assert len(texts) == 4
