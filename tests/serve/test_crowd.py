"""More requests than there is room for: the surplus hears so, the others answer as each alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from running_server import running
from test_chat import LIVELY, MESSAGES
from test_clients_that_leave import is_empty, pages_are_whole
from waiting import PATIENCE, hold, wait_for


def test_a_crowd_is_answered_as_each_alone_or_told_to_come_again(text_model, monkeypatch):
    bodies = [{"messages": [{"role": "user", "content": f"tell me {n}"}], **LIVELY} for n in range(128)]
    with running(lambda: text_model, requests=24) as small:
        alone = [small.chat(**body).json["choices"] for body in bodies[:8]]
        refused = threading.Event()

        def ask(body):
            reply = small.chat(**body)
            if reply.status == 503:
                refused.set()
            return reply

        with ThreadPoolExecutor(128) as clients, monkeypatch.context() as patch:
            let_go = hold(text_model.runner, patch)  # nobody leaves before the house is full
            coming = clients.map(ask, bodies)
            assert refused.wait(PATIENCE)
            let_go.set()
            replies = list(coming)
        assert {reply.status for reply in replies} == {200, 503}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies if reply.status == 503)
        for reply, expected in zip(replies, alone, strict=False):
            assert reply.status == 503 or reply.json["choices"] == expected
        wait_for(lambda: is_empty(small, text_model))
        assert pages_are_whole(text_model)


def test_answers_that_take_all_threads_keep_no_prompt_waiting(text_model, monkeypatch):
    """Each answer waits on a thread; counting, which needs one too, comes in between."""
    with running(lambda: text_model, requests=9) as small:
        body = {"messages": MESSAGES, "ignore_eos": True, "max_tokens": 480, "n": 8}
        let_go = hold(text_model.runner, monkeypatch)
        talker = threading.Thread(target=lambda: small.chat(**body))
        talker.start()
        wait_for(lambda: small.service.active == 8)
        assert small.ask("/v1/chat/completions/input_tokens", {"messages": MESSAGES}).status == 200
        assert small.chat(messages=MESSAGES, n=2).status == 503  # each answer takes a place
        assert talker.is_alive()
        let_go.set()
        talker.join()


def test_more_answers_than_there_are_places_is_a_400(text_model):
    with running(lambda: text_model, requests=2) as small:
        reply = small.chat(messages=MESSAGES, n=3)
        assert (reply.status, reply.json["error"]["param"]) == (400, "n")


def test_bodies_of_all_requests_share_a_limit(text_model):
    with running(lambda: text_model, body_bytes=1000, all_bodies_bytes=1500) as small:
        waiting = [small.connect() for _ in range(2)]
        for connection in waiting:
            connection.putrequest("POST", "/v1/chat/completions")
            connection.putheader("Content-Length", "900")
            connection.endheaders(b" " * 700)
        wait_for(lambda: small.chat(messages=MESSAGES, model="x" * 200, max_tokens=1).status == 503)
        for connection in waiting:
            connection.close()
        wait_for(lambda: small.chat(messages=MESSAGES, model="x" * 200, max_tokens=1).status == 200)
