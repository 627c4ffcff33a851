"""The page at /, in a headless Chromium: pictures dropped, questions asked, wrong things told. Skipped without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, find_chromium
from running_server import Running, running
from tiny_sight import tiny_pair

import opsin

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

DROP = """(async () => {
  const canvas = document.createElement("canvas");
  canvas.width = 60; canvas.height = 40;
  canvas.getContext("2d").fillRect(5, 5, 30, 30);
  const blob = await new Promise((done) => canvas.toBlob(done));
  const dropped = new DataTransfer();
  dropped.items.add(new File([blob], "a.png", {type: "image/png"}));
  window.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
})()"""

# The tiny model never ends by itself.
BRIEF = """const plain = window.fetch;
window.fetch = (url, options) => plain(url, options?.body
  ? {...options, body: JSON.stringify({...JSON.parse(options.body), max_tokens: 8})} : options);"""


def ask(words: str) -> str:
    return f"document.getElementById('text').value = {words!r}; document.getElementById('ask').requestSubmit();"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    tiny_pair(folder)
    with (
        opsin.load(folder / "model.gguf", threads=2, context=512, sequences=4) as model,
        running(lambda: model) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def page(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(CHROMIUM, tmp_path_factory.mktemp("chromium"))
    made.open(server.url + "/")
    made.run(BRIEF)
    yield made
    made.close()


def test_it_names_the_model(page):
    assert page.wait("document.getElementById('model').textContent.includes('model.gguf')")


def test_a_dropped_picture_is_asked_about(page, server):
    page.run(DROP)
    assert page.wait("document.querySelectorAll('#chosen img').length") == 1
    page.run(ask("What is this?"))
    page.wait("document.getElementById('go').textContent === 'Ask' && messages.length === 2")
    assert page.run("document.querySelectorAll('article.person img').length") == 1
    said = page.run("document.querySelector('article.model').textContent")
    assert said and said == page.run("messages[1].content")
    assert page.run("document.querySelectorAll('#chosen img').length") == 0
    counts = server.ask("/metrics").body.decode()
    assert "opsin_media_tokens_total 16" in counts


def test_a_second_question_remembers_the_first(page):
    page.run(ask("And now?"))
    page.wait("document.getElementById('go').textContent === 'Ask' && messages.length === 4")
    assert page.run("messages[0].content[0].type") == "image_url"


def test_what_is_written_never_becomes_markup(page):
    page.run(ask("<img src=x onerror=window.hurt=1><b>bold</b>"))
    page.wait("document.getElementById('go').textContent === 'Ask' && messages.length === 6")
    assert page.run("document.querySelectorAll('article b').length") == 0
    assert page.run("window.hurt === undefined")


def test_an_error_is_told_and_not_remembered(page):
    page.run(ask("word " * 3000))
    assert "512" in page.wait("document.querySelector('article.error')?.textContent")
    assert page.run("messages.length") == 6


def test_new_forgets(page):
    page.run("document.getElementById('new').click()")
    assert page.run("messages.length") == 0
    assert page.run("document.querySelectorAll('article').length") == 0
