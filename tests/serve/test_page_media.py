"""Sounds and videos on the page: dropped, recorded, shown, sent, and told of. In a headless Chromium."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator

import pytest
from axe import faults, fetch_axe
from browser import Browser
from page_browser import ask, click, needs_chromium, opened
from running_server import Running, running, running_sight
from tiny_hearing import recording, tiny_hearing

import opsin

pytestmark = needs_chromium

SOUND = base64.b64encode(recording()).decode()
DROP = """((name, type, base64) => {
  const dropped = new DataTransfer(), data = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  dropped.items.add(new File([data], name, {type}));
  window.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
})"""
CHOSEN = "[...document.querySelectorAll('#chosen button')].map((one) => one.ariaLabel)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    text = tiny_hearing(tmp_path_factory.mktemp("hears"), sees=True)
    with running(lambda: opsin.load(text, threads=2, context=512, sequences=4), close=True) as made:
        yield made


@pytest.fixture(scope="module")
def page(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with opened(server.url + "/", tmp_path_factory.mktemp("chromium"), *flags) as made:
        yield made


def drop(page: Browser, name: str, kind: str, data: str) -> None:
    page.run(f"{DROP}({json.dumps(name)}, {json.dumps(kind)}, {json.dumps(data)})")


def test_it_offers_what_the_model_hears(page):
    assert page.run("document.getElementById('file').accept") == "image/*,audio/*,video/*"
    assert page.run("document.getElementById('choose').innerText") == "File"
    assert page.run("document.getElementById('record').checkVisibility()")


def test_all_buttons_fit_a_narrow_screen(page):
    page.call("Emulation.setDeviceMetricsOverride", width=320, height=700, deviceScaleFactor=1, mobile=True)
    page.run("document.getElementById('record').textContent = 'Stop recording'")
    rights = "[...document.querySelectorAll('#ask button')].map((one) => one.getBoundingClientRect().right)"
    assert max(page.run(rights)) <= 320
    assert page.run("document.documentElement.scrollWidth") <= 320
    page.run("document.getElementById('record').textContent = 'Record'")
    page.call("Emulation.clearDeviceMetricsOverride")


def test_a_dropped_sound_is_asked_about(page):
    drop(page, "word.wav", "audio/wav", SOUND)
    page.wait(f"{CHOSEN}.length === 1")
    assert page.run(CHOSEN) == ["Take away word.wav"]
    ask(page, "What is said?")
    part = page.run("sent.at(-1).messages[0].content[0]")
    assert part == {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64," + SOUND}}
    page.wait("document.querySelector('article.person audio').duration === 1")
    assert "1.0 s heard" in page.run("document.querySelector('article.model footer').textContent")
    script = fetch_axe()
    if not isinstance(script, str):
        page.run(script.read_text() + ";0")
        assert faults(page) == []


def test_a_recording_is_a_wav_of_what_the_microphone_hears(page):
    page.run("document.getElementById('record').click()")
    page.wait("document.getElementById('record').ariaPressed === 'true'")
    page.run("new Promise((done) => setTimeout(done, 1500))")  # it is what is recorded
    click(page, "Stop recording")
    page.wait(f"{CHOSEN}.length === 1")
    assert page.run("document.getElementById('record').textContent") == "Record"
    ask(page, "And this?")
    url = page.run("sent.at(-1).messages.at(-1).content[0].audio_url.url")
    with wave.open(io.BytesIO(base64.b64decode(url.removeprefix("data:audio/wav;base64,")))) as told:
        assert (told.getnchannels(), told.getsampwidth(), told.getframerate()) == (1, 2, 16000)
        assert 0.2 < told.getnframes() / 16000 < 60
        assert any(told.readframes(told.getnframes()))  # the device of a test beeps


def test_a_conversation_with_sounds_is_kept_and_is_read_again(page):
    both = """(async () => {
      const {isRecord} = await import("/page/record.js"), history = await import("/page/history.js");
      const [record] = await history.all();
      const wrong = structuredClone(record); wrong.messages[0].content[0].audio_url.url = "data:image/png;base64,";
      return [isRecord(JSON.parse(JSON.stringify(record))), isRecord(wrong)]; })()"""
    assert page.run(both) == [True, False]
    click(page, "Edit", 0)
    assert page.run(CHOSEN) == ["Take away word.wav"]


def test_a_damaged_sound_is_told_by_its_name(page):
    click(page, "New")
    drop(page, "broken.wav", "audio/wav", base64.b64encode(b"RIFF").decode())
    page.wait(f"{CHOSEN}.length === 1")
    page.run("document.getElementById('ask').requestSubmit()")
    assert page.wait("document.querySelector('.error')?.textContent").startswith("broken.wav")
    click(page, "New")


def test_a_dropped_video_is_sent_as_one(page):
    drop(page, "film.mp4", "video/mp4", base64.b64encode(b"no film").decode())
    page.wait(f"{CHOSEN}.length === 1")
    page.run("document.getElementById('ask').requestSubmit()")
    assert page.wait("document.querySelector('.error')?.textContent").startswith("film.mp4")
    assert page.run("sent.at(-1).messages[0].content[0].type") == "video_url"
    assert page.run("document.querySelectorAll('#talk video').length") == 0  # what was refused is forgotten


def test_a_model_that_hears_nothing_takes_no_sounds(page, tmp_path):
    with running_sight(tmp_path) as deaf:
        page.open(deaf.url + "/")
        page.wait("document.getElementById('choose').innerText === 'Picture'")
        assert not page.run("document.getElementById('record').checkVisibility()")
        drop(page, "word.wav", "audio/wav", SOUND)
        told = page.wait("document.querySelector('.error')?.textContent")
        assert told == "This model takes pictures, videos only: no sounds."
