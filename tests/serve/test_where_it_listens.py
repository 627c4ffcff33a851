"""TLS, Unix sockets and paths below a prefix."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import stat
from pathlib import Path

import pytest
from certificates import CERTIFICATE, KEY, LOCKED_KEY, OTHER_KEY
from running_server import SocketConnection, running
from test_chat import MESSAGES

from opsin.errors import RequestError
from opsin.serve.forwarded import Proxies
from opsin.serve.options import Options
from opsin.serve.server import address, listen, tls_context


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    (tmp_path / "cert.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def test_it_speaks_tls_whole_and_streamed(text_model, files):
    with running(lambda: text_model, tls=files) as made:
        trusting = ssl.create_default_context(cafile=str(files[0]))
        client = http.client.HTTPSConnection("127.0.0.1", made.port, timeout=300, context=trusting)
        client.request("GET", "/v1/models", headers={"Host": "localhost"})
        assert client.getresponse().read()
        body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": true}'
        client.request("POST", "/v1/chat/completions", body)
        assert client.getresponse().read().endswith(b"data: [DONE]\n\n")
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")
        client.close()
        with socket.create_connection((made.host, made.port)) as plain:  # who speaks no TLS hears nothing of ours
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP/1.1 200" not in plain.recv(100)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(str(files[0]))
        with pytest.warns(DeprecationWarning):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection((made.host, made.port)) as plain,
            pytest.raises((ssl.SSLError, OSError)),
            old.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        (CERTIFICATE, OTHER_KEY, "key.pem is not the key of"),
        ("no certificate", KEY, "cannot be read as a certificate"),
        (CERTIFICATE, "", "cannot be read as a certificate"),
        (CERTIFICATE, LOCKED_KEY, "without a password"),
        (KEY, CERTIFICATE, "cannot be read as a certificate"),
        (None, KEY, "cert.pem: No such file"),
        (CERTIFICATE, None, "key.pem: No such file"),
    ],
)
def test_wrong_files_are_told(tmp_path, certificate, key, words):
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path, content in zip(paths, (certificate, key), strict=True):
        if content is not None:
            path.write_text(content)
    with pytest.raises(RequestError, match=words) as caught:
        tls_context(*paths)
    assert "BEGIN EC" not in str(caught.value)


def close(made: list[socket.socket]) -> None:
    for one in made:
        one.close()


def test_it_listens_on_several_addresses(text_model, tmp_path):
    path = tmp_path / "o.sock"
    with running(lambda: text_model, host=f"127.0.0.1, {path}") as made:
        assert made.ask("/v1/models").status == 200
        client = SocketConnection(str(path))
        client.request("GET", "/v1/models")
        assert client.getresponse().status == 200
        client.close()
    assert not Options(host="127.0.0.1,0.0.0.0", port=80).on_loopback and Options(host="/x.sock,::1").on_loopback
    with pytest.raises(RequestError, match="port 0 with several"):
        Options(host="127.0.0.1,127.0.0.2", port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen(Options(host="127.0.0.2,127.0.0.1", port=port))
        close(listen(Options(host="127.0.0.2", port=port)))  # it was given back


def test_it_listens_on_a_unix_socket(text_model, tmp_path):
    path = tmp_path / "o.sock"
    before = os.umask(0o077)
    try:
        with running(lambda: text_model, host=str(path), proxies=Proxies.read(["unix"])) as made:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0  # the umask says who may connect
            assert made.ask("/v1/models", headers={"Host": "llm.example.org"}).status == 200
            assert made.chat(messages=MESSAGES, max_tokens=2).json["usage"]["completion_tokens"] == 2
            assert address(made.server.servers[0].sockets[0], made.service.options) == f"unix://{path}"
            with pytest.raises(RequestError, match="cannot listen on"):
                listen(Options(host=str(path)))
    finally:
        os.umask(before)


def test_a_socket_that_nobody_listens_on_makes_room_and_a_file_does_not(tmp_path):
    path = tmp_path / "o.sock"
    close(listen(Options(host=str(path))))
    assert path.exists()
    close(listen(Options(host=str(path))))
    path.unlink()
    path.write_text("mine")
    with pytest.raises(RequestError, match="cannot listen on"):
        listen(Options(host=str(path)))
    assert path.read_text() == "mine"
    with pytest.raises(RequestError, match="cannot listen on"):
        listen(Options(host=str(tmp_path / ("x" * 200 + ".sock"))))


def test_all_paths_begin_with_the_prefix(text_model):
    with running(lambda: text_model, prefix="/llm/a") as made:
        assert made.ask("/llm/a/health").status == made.ask("/llm/a/").status == 200
        body = {"messages": MESSAGES, "max_tokens": 1}
        assert made.ask("/llm/a/v1/chat/completions", body).status == 200
        for path in ("/health", "/", "/llm/ab/health", "/llm", "/llm/a/llm/a/health", "/llm%2Fa%2F..%2Fhealth"):
            assert made.ask(path).status == 404, path
        moved = made.ask("/llm/a")
        assert (moved.status, moved.headers["location"]) == (307, "/llm/a/")
        assert made.ask("/llm/a/openapi.json").json["servers"] == [{"url": "/llm/a"}]


@pytest.mark.parametrize("prefix", ["llm", "/llm/", "/", "/a b", "/a//b", "/\n"])
def test_a_prefix_that_is_no_path_is_refused(prefix):
    with pytest.raises(RequestError, match="the prefix"):
        Options(prefix=prefix)
