"""The page in a headless Chromium, and what people do there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Browser, find_chromium

CHROMIUM = find_chromium()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# What the page sends is kept in `sent`. The tiny model never ends by itself.
LISTEN = """const plain = window.fetch;
window.sent = [];
window.extra = {max_tokens: 8, ignore_eos: true};
window.fetch = (url, options) => {
  if (!options?.body) return plain(url, options);
  const body = {...JSON.parse(options.body), ...window.extra};
  window.sent.push(body);
  return plain(url, {...options, body: JSON.stringify(body)});
};"""

ANSWERS = "document.querySelectorAll('article.model').length"


@contextmanager
def opened(url: str, folder: Path, *options: str) -> Iterator[Browser]:
    """The page of a server. No script of it may have failed in the end."""
    browser = Browser(CHROMIUM, folder, *options)
    browser.open(url)
    browser.run(LISTEN)
    browser.wait("document.getElementById('model').textContent !== '…'")
    yield browser
    browser.run("1")  # what went wrong has been told by now
    browser.close()
    assert not browser.problems


def ask(page: Browser, words: str = "") -> str:
    """The answer to a question, as it can be read."""
    if words:
        page.run(f"document.getElementById('text').value = {json.dumps(words)}")
    page.run("document.getElementById('ask').requestSubmit()")
    return answer(page)


def answer(page: Browser) -> str:
    """The newest answer, once none is being written."""
    page.wait("document.getElementById('go').textContent === 'Ask'")
    return page.run("[...document.querySelectorAll('article.model .said')].at(-1).innerText")


def press(page: Browser, key: str, *, modifiers: int = 0, text: str = "") -> None:
    """A key as the keyboard sends it; modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
    codes = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowUp": 38}
    code = codes.get(key, ord(key[0].upper()))
    text = text or {"Enter": "\r", " ": " "}.get(key, "")
    about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
    page.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
    page.call("Input.dispatchKeyEvent", type="keyUp", **about)


def write(page: Browser, words: str) -> None:
    """Text into what has the focus."""
    page.call("Input.insertText", text=words)


def click(page: Browser, text: str, place: int = -1) -> None:
    """A button that says this, of several the one at `place`."""
    found = f"(one) => one.textContent === {json.dumps(text)} && one.checkVisibility()"
    page.run(f"[...document.querySelectorAll('button')].filter({found}).at({place}).click()")
