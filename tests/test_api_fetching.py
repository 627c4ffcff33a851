"""Pictures behind several URLs of one request: a few at the same time, in their order, within limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from test_api_pictures import OPTIONS, ask, pair, picture, png  # noqa: F401 - fixtures
from waiting import PATIENCE

import opsin
from opsin.api.fetching import AT_ONCE
from opsin.errors import BusyError
from opsin.media.fetch import FetchRules
from opsin.media.limits import PictureLimits

FILES = {f"/{seed}.png": png(picture(seed=seed)) for seed in range(8)}


class Web:
    """Gives FILES, those that are held back when they are let go; `together`: only to so many at the same time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: set[str] = set()
        self.let_go = threading.Event()
        self.together = threading.Barrier(1)
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.asked.append(self.path)
                if self.path in web.held:
                    web.let_go.wait(PATIENCE)
                with suppress(threading.BrokenBarrierError):
                    web.together.wait(PATIENCE)
                data = FILES.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def parts(self, *paths: str) -> list[dict[str, object]]:
        urls = [f"http://127.0.0.1:{self.server.server_port}{path}" for path in paths]
        return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.let_go.set()
    made.server.shutdown()
    made.server.server_close()


def load(pair, **rules):  # noqa: F811
    return opsin.load(pair[0], threads=2, context=512, sequences=4, rules=FetchRules(allow_private=True, **rules))


@pytest.fixture(scope="module")
def model(pair):  # noqa: F811
    with load(pair) as made:
        yield made


def test_several_are_fetched_at_the_same_time_and_keep_their_order(model, web):
    web.together = threading.Barrier(AT_ONCE)
    question = model.question(ask(*web.parts(*FILES), "What is this?"))
    assert not web.together.broken
    by_hand = model.question(ask(*[picture(seed=seed) for seed in range(8)], "What is this?"))
    for ours, theirs in zip(question.prompt.spans, by_hand.prompt.spans, strict=True):
        assert getattr(ours, "ids", None) == getattr(theirs, "ids", None)
        if not hasattr(ours, "ids"):
            assert np.array_equal(ours.features.make(), theirs.features.make())


def test_the_first_that_fails_is_named_and_the_rest_are_left(model, web):
    paths = ["/0.png", "/none.png", *list(FILES)[1:]]
    web.held = set(paths[2:])
    with pytest.raises(opsin.OpsinError, match=r"messages\[0\].content\[1\].*404"):
        model.question(ask(*web.parts(*paths)))
    assert len(web.asked) < len(paths)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("opsin-fetch")]


def test_all_together_have_a_limit(pair, web):  # noqa: F811
    size = len(FILES["/0.png"])
    with load(pair, all_bytes=3 * size) as small:
        assert small.chat(ask(*web.parts("/0.png", "/1.png"), "?"), **OPTIONS).text
        with pytest.raises(opsin.OpsinError, match=f"more than {3 * size} bytes"):
            small.question(ask(*web.parts(*FILES)))


def test_more_than_the_context_holds_are_not_even_fetched(pair, web):  # noqa: F811
    parts = web.parts(*(f"/{number % 8}.png" for number in range(100)))
    with load(pair) as small, pytest.raises(opsin.OpsinError, match=r"picture 32 of 100.*context size .512"):
        small.question(ask(*parts))
    assert len(web.asked) < 40


def test_what_comes_and_what_waits_share_a_limit_of_all_requests(pair, web):  # noqa: F811
    size = max(map(len, FILES.values()))
    rules, limits = FetchRules(allow_private=True), PictureLimits(waiting_bytes=6 * size)
    with opsin.load(pair[0], threads=1, context=512, sequences=1, rules=rules, limits=limits) as small:
        with pytest.raises(BusyError, match="come again"):
            small.question(ask(*web.parts(*FILES)))
        assert small.vision.budgets.files.used == 0
        question = small.question(ask(*web.parts("/0.png", "/1.png")))
        assert small.vision.budgets.files.used == len(FILES["/0.png"]) + len(FILES["/1.png"])
        del question
        assert small.vision.budgets.files.used == 0
