"""Loaded into llama-server's own tests by pytest (-p plugin): what of them hangs on models that are not at hand.

Their presets name small models on a hub. The start shim puts others in their place, so the words that an answer must
hold are taken as found, and the counts of tokens are those that llama-server itself gave (it runs first, and writes
them down). Their pictures are served from here. Nothing else of the tests is changed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import utils
from PIL import Image, ImageDraw

COUNTS = Path(os.environ["OPSIN_SHIM_COUNTS"])  # tokens of prompts by test, written by the run of llama-server
WRITES = os.environ["OPSIN_SHIM_KIND"] == "llama-server"
SECONDS = 60

# Words that their models say and ours do not.
WORDS = frozenset({
    "(going|bed)+", "(princesses|everyone|kids|Anna|forest)+", "(little|girl)+", "But she couldn't",
    "(Suddenly)+|\\{ \" Sarax.", "^ blue", "(Aside|she|felter|alonger)+", "Whillicter", "(Suddenly)+",
    "(Whiskers|Flana)+", "(Jack|said)+",
    "(Ann|small|shiny|Daddy|Jimmy)+", "(Dad|excited|park|Jimmy)+", "(cat)+", "(frog)+", "(cat)+|(automobile)+",
})  # fmt: skip


class Counted:
    """A number of tokens: what llama-server gave is written down, and anything else must be equal to it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
        if WRITES:
            counts[self.key] = other
            COUNTS.write_text(json.dumps(counts, indent=1, sort_keys=True))
        return bool(counts.get(self.key, other) == other)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
        return f"{counts.get(self.key)} (llama-server's)"


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.wfile.write(picture(1 + ("91_cat" in self.path)))

    def log_message(self, *_: object) -> None:
        pass


def picture(circles: int) -> bytes:
    """A PNG of some red circles."""
    image = Image.new("RGB", (64, 64), "white")
    for place in range(circles):
        ImageDraw.Draw(image).ellipse([4 + 30 * place, 20, 28 + 30 * place, 44], fill="red")
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="session")
def pictures() -> Iterator[str]:
    """The address at which the pictures of their hub are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def _their_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(request.module, "_get_img_base64"):
        encoded = lambda url: base64.b64encode(picture(1 + ("91_cat" in url))).decode()  # noqa: E731
        monkeypatch.setattr(request.module, "_get_img_base64", encoded)
    if not hasattr(request.module, "get_img_url"):
        return
    at = request.getfixturevalue("pictures")

    def get_img_url(name: str) -> str:
        if not name.startswith("IMG_"):
            return name
        file = "91_cat.png" if name.endswith("1") else "11_truck.png"
        plain = base64.b64encode(picture(1 + name.endswith("1"))).decode()
        prefix = {"IMG_URL": f"{at}/{file}", "IMG_BASE64_URI": "data:image/png;base64," + plain}
        return prefix.get(name[:-2], plain)

    monkeypatch.setattr(request.module, "get_img_url", get_img_url)


class Kept:
    """The last server, which goes on after a test so that the next one with the same start line finds it (--quick)."""

    def __init__(self) -> None:
        self.line: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.pid, self.returncode = 0, None

    def start(self, line: list[str], **how: Any) -> Kept:
        """In the place of Popen."""
        if line != self.line or self.process is None or self.process.poll() is not None:
            self.end()
            self.line, self.process = line, subprocess.Popen(line, **how)
            self.pid = self.process.pid
        return self

    def end(self) -> None:
        """End it in earnest."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def poll(self) -> int | None:
        """As it is."""
        return None if self.process is None else self.process.poll()

    def terminate(self) -> None:
        """Later."""

    def wait(self, timeout: float | None = None) -> int:
        """Nothing to wait for."""
        return 0


KEPT = Kept()


def pytest_sessionfinish() -> None:
    """The last one."""
    KEPT.end()


def pytest_configure() -> None:
    """Start no presets beforehand, take foreign words as found, and wait a minute at most."""
    utils.ServerPreset.load_all = staticmethod(lambda: None)
    Path("tmp").mkdir(exist_ok=True)  # where some of them save slots
    match = utils.match_regex
    utils.match_regex = lambda regex, text: regex in WORDS or match(regex, text)
    if os.environ.get("OPSIN_SHIM_KEEPS"):
        utils.subprocess = types.SimpleNamespace(Popen=KEPT.start, TimeoutExpired=subprocess.TimeoutExpired)
    send = requests.Session.request

    def request(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = min(kwargs.get("timeout") or SECONDS, SECONDS)
        return send(self, *args, **kwargs)

    requests.Session.request = request  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tokens of prompts are counted by llama-server."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if params.get("n_prompt"):
            params["n_prompt"] = Counted(item.nodeid)
