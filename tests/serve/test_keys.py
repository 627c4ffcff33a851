"""Keys: who is who, how much each may ask, and that no secret is told."""

from __future__ import annotations

import hmac

import pytest
from running_server import running
from test_chat import MESSAGES

from opsin.errors import RequestError
from opsin.serve.errors import HttpError
from opsin.serve.keys import ApiKey, KeyRing
from opsin.serve.options import Options

SECRET = "sk-very-secret"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_key_is_found_and_no_other_is():
    ring = KeyRing([ApiKey(SECRET, "bob"), ApiKey("b")])
    assert ring.find(SECRET.encode()).key.name == "bob" and ring.find(b"b").key.secret == "b"
    for wrong in (b"", b"sk", SECRET.encode() + b"x", b"\xff"):
        with pytest.raises(HttpError) as caught:
            ring.find(wrong)
        assert caught.value.status == 401 and SECRET not in str(caught.value)


def test_all_keys_are_compared_whichever_is_right(monkeypatch):
    compared = []
    right = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(len(a)) or right(a, b))
    KeyRing([ApiKey("a"), ApiKey("b" * 50), ApiKey("c")]).find(b"a")
    assert compared == [32, 32, 32]


def test_requests_within_a_minute_are_counted_by_key():
    clock = Clock()
    ring = KeyRing([ApiKey("a", per_minute=2), ApiKey("b")], clock)
    for _ in range(2):
        with ring.find(b"a").admit():
            clock.now += 10
    with pytest.raises(HttpError) as caught, ring.find(b"a").admit():
        pass
    assert (caught.value.status, caught.value.retry_seconds) == (429, 40)
    for _ in range(9):
        with ring.find(b"b").admit():
            pass
    clock.now += 40
    with ring.find(b"a").admit():
        pass


def test_requests_at_once_are_counted_until_they_end():
    use = KeyRing([ApiKey("a", at_once=1)]).find(b"a")
    with use.admit(), pytest.raises(HttpError), use.admit():
        pass
    with pytest.raises(ValueError), use.admit():
        raise ValueError
    with use.admit():
        pass


@pytest.mark.parametrize(
    "key",
    [
        ApiKey(" "),
        ApiKey("a b"),
        ApiKey("ä"),
        ApiKey("a", "two words"),
        ApiKey("a", "x" * 65),
        ApiKey("a", "b\n"),
        ApiKey("a", at_once=0),
    ],
)
def test_a_key_that_guards_nothing_is_refused(key):
    with pytest.raises(RequestError):
        Options(keys=(key,))


def test_two_keys_of_one_name_are_refused():
    with pytest.raises(RequestError, match="one name"):
        Options(keys=(ApiKey("a", "bob"), ApiKey("b", "bob")))
    assert SECRET not in repr(Options(keys=(ApiKey(SECRET),)))


def test_who_asks_too_much_is_told_when_to_come_again(text_model):
    keys = (ApiKey("a", per_minute=1), ApiKey("b"))
    with running(lambda: text_model, keys=keys) as made:
        body = {"messages": MESSAGES, "max_tokens": 1}

        def ask(key: str):
            return made.ask("/v1/chat/completions", body, headers={"Authorization": f"Bearer {key}"})

        assert ask("a").status == 200
        refused = ask("a")
        assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (ask("b").status, ask("b").status) == (200, 200)
        assert made.ask("/v1/models", headers={"Authorization": "Bearer a"}).status == 200  # what computes nothing


def test_a_key_may_come_in_three_ways(text_model):
    with running(lambda: text_model, keys=(ApiKey(SECRET),)) as made:
        for headers in ({"Authorization": f"bearer {SECRET}"}, {"X-Api-Key": SECRET}, {"Authorization": SECRET}):
            assert made.ask("/props", headers=headers).status == 200
        for headers in ({}, {"Authorization": f"Basic {SECRET}"}, {"Authorization": "Bearer"}, {"X-Api-Key": "x"}):
            assert made.ask("/props", headers=headers).status == 401
        assert made.ask(f"/props?api_key={SECRET}").status == 401
