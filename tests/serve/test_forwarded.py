"""What proxies tell is believed of those whom the operator names, and of nobody else."""

from __future__ import annotations

import pytest
from running_server import running

from opsin.errors import RequestError
from opsin.serve.forwarded import Proxies

TRUSTED = Proxies.read(["10.0.0.0/8", "::1"])


def scope(*headers: tuple[str, str], peer: str | None = "10.0.0.1"):
    return {
        "type": "http",
        "client": None if peer is None else (peer, 5),
        "scheme": "http",
        "headers": [(b"host", b"inner"), *((name.encode(), value.encode()) for name, value in headers)],
    }


def told(found) -> tuple[str | None, str, str]:
    hosts = [value.decode() for name, value in found["headers"] if name == b"host"]
    assert len(hosts) == 1
    return found["client"][0] if found["client"] else None, found["scheme"], hosts[0]


ALL = (("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "llm.example"))


def test_a_trusted_proxy_tells_who_asked():
    assert told(TRUSTED.resolve(scope(*ALL))) == ("203.0.113.7", "https", "llm.example")


@pytest.mark.parametrize("peer", ["203.0.113.1", "11.0.0.1", None, "testclient"])
def test_nobody_else_is_believed_and_the_headers_are_gone(peer):
    found = TRUSTED.resolve(scope(*ALL, ("x-real-ip", "1.1.1.1"), ("forwarded", "for=1.1.1.1"), peer=peer))
    assert told(found) == (peer, "http", "inner")
    assert [name for name, _ in found["headers"]] == [b"host"]


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1", "203.0.113.7, 10.9.9.9"], "203.0.113.7"),  # two headers are one list
        (["1.1.1.1, <script>, 10.9.9.9"], "10.9.9.9"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["203.0.113.7:1234"], "203.0.113.7"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["x\r\ny"], "10.0.0.1"),
        ([", ".join(["10.1.1.1"] * 5000)], "10.1.1.1"),
    ],
)
def test_the_client_is_the_first_from_our_side_that_is_no_proxy_of_ours(chain, client):
    found = TRUSTED.resolve(scope(*(("x-forwarded-for", part) for part in chain)))
    assert told(found)[0] == client


def test_of_two_names_the_nearest_proxys_counts_and_nonsense_does_not():
    two = [("x-forwarded-host", "evil.example"), ("x-forwarded-host", "llm.example")]
    assert told(TRUSTED.resolve(scope(*two)))[2] == "llm.example"
    for host in ("a b", "a/../b", "a\nb", "", "x" * 300):
        assert told(TRUSTED.resolve(scope(("x-forwarded-host", host))))[2] == "inner"
    assert told(TRUSTED.resolve(scope(("x-forwarded-proto", "javascript"))))[1] == "http"


def test_unix_sockets_and_everybody_can_be_trusted():
    assert told(Proxies.read(["unix"]).resolve(scope(*ALL, peer=None)))[0] == "203.0.113.7"
    assert Proxies.read(["unix"]).trust("127.0.0.1") is False
    assert Proxies.read(["*"]).trust("203.0.113.1") and Proxies.read(["127.0.0.1"]).trust("::ffff:127.0.0.1")
    with pytest.raises(RequestError, match="'proxy.local' is no address"):
        Proxies.read(["proxy.local"])


def test_names_behind_a_proxy_are_looked_at_like_others(text_model):
    host = {"X-Forwarded-Host": "llm.example"}
    with running(lambda: text_model, hosts=("llm.example",), proxies=Proxies.read(["127.0.0.1"])) as made:
        page = {**host, "Origin": "https://llm.example"}
        assert made.ask("/v1/models", headers=page).status == 200
        assert made.ask("/v1/models", headers={"X-Forwarded-Host": "other.example"}).status == 403
    with running(lambda: text_model, hosts=("llm.example",)) as made:
        assert made.ask("/v1/models", headers={**host, "Origin": "https://llm.example"}).status == 403
