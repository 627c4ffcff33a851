"""Pages, names and keys: what browsers send, and what those send who mislead them."""

from __future__ import annotations

import pytest
from running_server import running
from test_chat import MESSAGES

from opsin.serve.keys import ApiKey
from opsin.serve.options import Options

ORIGIN = "https://chat.example"
BODY = {"messages": MESSAGES, "max_tokens": 1}
PREFLIGHT = {
    "Origin": ORIGIN, "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}  # fmt: skip


@pytest.fixture(scope="module")
def locked(text_model):
    with running(lambda: text_model, keys=(ApiKey("secret"),), origins=(ORIGIN,)) as made:
        yield made


def test_a_browser_asks_first_without_the_key_and_then_with_it(locked):
    first = locked.ask("/v1/chat/completions", method="OPTIONS", headers=PREFLIGHT)
    assert (first.status, first.body) == (200, b"")
    assert first.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in first.headers["access-control-allow-methods"]
    assert first.headers["access-control-allow-headers"] == "authorization,content-type"
    assert first.headers["vary"] == "Origin"
    headers = {"Origin": ORIGIN, "Authorization": "Bearer secret"}
    then = locked.ask("/v1/chat/completions", BODY, headers=headers)
    assert (then.status, then.headers["access-control-allow-origin"]) == (200, ORIGIN)


def test_a_page_may_read_that_its_key_is_wrong(locked):
    reply = locked.ask("/v1/chat/completions", BODY, headers={"Origin": ORIGIN, "Authorization": "Bearer wrong"})
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert reply.json["error"]["type"] == "authentication_error"


def test_a_key_does_not_open_to_other_pages(locked):
    for origin in ("https://evil.example", "null", ORIGIN + ".evil.example", ORIGIN.replace("https", "http"), ""):
        asked = {"Origin": origin, "Authorization": "Bearer secret"}
        reply = locked.ask("/v1/chat/completions", BODY, headers=asked)
        assert reply.status == 403, origin
        assert "access-control-allow-origin" not in reply.headers
        before = locked.ask("/v1/models", method="OPTIONS", headers={**PREFLIGHT, "Origin": origin})
        assert (before.status, before.body) == (200, b"")
        assert not [name for name in before.headers if name.startswith("access-control")], origin


def test_a_page_without_an_origin_is_any_page(server, text_model):
    """A sandboxed frame or a file: says null; only who allows all pages means it."""
    assert server.ask("/v1/models", headers={"Origin": "null"}).status == 403
    assert server.ask("/v1/chat/completions", BODY, headers={"Origin": "null"}).status == 403
    with running(lambda: text_model, origins=("*",)) as wide:
        reply = wide.ask("/v1/models", headers={"Origin": "null"})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "null")
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    "name", ["[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]:80", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "LocalHost:8080"]
)
def test_names_of_this_machine_are_its_own(server, name):
    assert server.ask("/v1/models", headers={"Host": name}).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "[2001:db8::1]:8080", "[::]", "[fe80::1%25lo]", "[::1].evil.example", "evil.example", "localhost.evil.example",
        "127.0.0.1.evil.example", "127.0.0.1@evil.example", "127.1", "0x7f.0.0.1", "2130706433", "0.0.0.0", "::1", "",
        "169.254.169.254", "[::1", "localhost\\evil.example", "evil.example#localhost",
    ],
)  # fmt: skip
def test_other_names_are_somebody_elses(server, name):
    assert server.ask("/v1/models", headers={"Host": name}).status in (400, 403)


def test_a_server_on_the_other_loopback_knows_its_names(text_model):
    try:
        started = running(lambda: text_model, host="::1")
        with started as made:
            assert made.url.startswith("http://")
            assert made.ask("/v1/models", headers={"Host": f"[::1]:{made.port}"}).status == 200
            own = {"Host": f"[::1]:{made.port}", "Origin": f"http://[::1]:{made.port}"}
            assert made.ask("/v1/models", headers=own).status == 200
            assert made.ask("/v1/models", headers={"Host": "evil.example"}).status == 403
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


OURS = ("192.168.1.7:8080", "[2001:db8::1]:8080", "10.0.0.1", "localhost:80", "127.0.0.1", "[::1]", "opsin:8080",
        "opsin.", "llm.default.svc.cluster.local", "box.local", "host.docker.internal", "nas.lan", "Named.Example:1",
        "api.localhost")  # fmt: skip
OTHERS = ("evil.example", "evil.example:8080", "local.evil.example", "192.168.1.7.evil.example", "evil.example.",
          "0x7f.1", "lan.example", "notlocalhost.example", "named.example.evil.example", ".", ".local.evil",
          "")  # fmt: skip


@pytest.fixture
def abroad(text_model, monkeypatch):
    """Servers as they are on all addresses of a machine, by their options."""
    monkeypatch.setattr(Options, "on_loopback", False)
    monkeypatch.setattr("socket.gethostname", lambda: "MyBox.example.org")
    return lambda **options: running(lambda: text_model, **options)


def test_without_a_key_only_names_that_no_stranger_owns_may_read(abroad):
    with abroad(hosts=("Named.Example",)) as made:
        for name in (*OURS, "mybox.example.org:8080"):
            assert made.ask("/props", headers={"Host": name}).status == 200, name
        for name in OTHERS:
            for path in ("/props", "/slots", "/metrics", "/v1/models"):
                assert made.ask(path, headers={"Host": name}).status in (400, 403), name
            assert made.ask("/v1/chat/completions", BODY, headers={"Host": name}).status in (400, 403), name
            same = {"Host": name, "Origin": f"http://{name}"}
            assert made.ask("/v1/chat/completions", BODY, headers=same).status in (400, 403), name
        assert made.ask("/health", headers={"Host": "balancer.example"}).status == 200
        hint = made.ask("/props", headers={"Host": "evil.example"}).json["error"]["message"]
        assert "--allow-host" in hint


def test_a_key_guards_under_any_name_and_a_star_takes_all(abroad):
    with abroad(keys=(ApiKey("secret"),)) as made:
        headers = {"Host": "evil.example", "Authorization": "Bearer secret"}
        assert made.ask("/props", headers=headers).status == 200
        assert made.ask("/props", headers={"Host": "evil.example"}).status == 401
    with abroad(hosts=("*",)) as made:
        assert made.ask("/props", headers={"Host": "evil.example"}).status == 200
