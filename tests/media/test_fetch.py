"""What stands behind a URL comes within limits, and nothing comes from where it must not."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from drawn import draw, encode
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import ScriptedServer
from waiting import PATIENCE

from opsin.errors import RequestError
from opsin.media.decode import open_picture
from opsin.media.fetch import FetchRules, fetch

PICTURE = encode(draw((40, 30)), "PNG")
LOCAL = FetchRules(allow_private=True, connect_seconds=PATIENCE, read_seconds=PATIENCE, total_seconds=PATIENCE)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.close()


def refusal(url: str, rules: FetchRules = LOCAL) -> str:
    """What is said."""
    with pytest.raises(RequestError) as refused:
        fetch(url, rules)
    assert refused.value.hint and refused.value.status == 400
    return refused.value.message


# data: URLs -----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=200))
def test_data_comes_in_base64_or_percents(data: bytes) -> None:
    plain = base64.b64encode(data).decode()
    for url in (
        f"data:image/png;base64,{plain}",
        f"DATA:;charset=x;BASE64,{plain.rstrip('=')}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(data).decode()}",
        f"data:image/png;base64,{plain.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
        "data:;base64, " + "\r\n".join(plain[at : at + 7] for at in range(0, len(plain), 7)),
        f"data:image/png,{quote_from_bytes(data)}",
    ):
        assert fetch(url, FetchRules(bytes=200)) == data


def test_data_is_measured_before_it_is_decoded() -> None:
    rules = FetchRules(bytes=30)
    assert fetch("data:;base64," + base64.b64encode(bytes(30)).decode(), rules) == bytes(30)
    assert fetch("data:," + "%00" * 30, rules) == bytes(30)
    assert refusal("data:;base64," + base64.b64encode(bytes(31)).decode(), rules).endswith(": 31 bytes, at most 30")
    assert refusal("data:;base64," + "!" * 10**6, rules).endswith("750000 bytes, at most 30")
    assert refusal("data:,a%", FetchRules(bytes=1)).endswith("2 bytes, at most 1")
    assert refusal("data:," + "%00" * 31, rules).endswith(": 31 bytes, at most 30")


def test_damaged_data_is_refused_without_repeating_it() -> None:
    for url, words in [
        ("data:image/png;base64", "it has no comma"),
        ("data:;base64,AAAA!AAA", "its base64 is damaged"),
        ("data:;base64,A", "its base64 is damaged"),
        ("data:;base64,AA\u00e9A", "its base64 is damaged"),
        ("data:;base64,AA==AA==", "its base64 is damaged"),
    ]:
        assert refusal(url).startswith(f"the data: URL: {words}")


# Servers --------------------------------------------------------------------------------------------------------------


def test_a_picture_comes_over_http(server: ScriptedServer) -> None:
    url = server.add_file("/a%20b/c.png?size=large&x=%22", PICTURE, "Content-Type: image/png")
    assert fetch(url, LOCAL) == PICTURE
    assert open_picture(fetch(url, LOCAL)).size == (40, 30)
    lines = server.requests[0].split("\r\n")
    assert lines[0] == "GET /a%20b/c.png?size=large&x=%22 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines and "Accept-Encoding: identity" in lines
    assert not any(line.lower().startswith(("cookie", "authorization", "referer")) for line in lines)


def test_letters_of_other_alphabets_are_encoded(server: ScriptedServer) -> None:
    server.add_file("/k%C3%A4se.png", PICTURE)
    assert fetch(server.url("/k\u00e4se.png#part"), LOCAL) == PICTURE


def test_pieces_and_bodies_that_end_with_the_connection(server: ScriptedServer) -> None:
    pieces = b"".join(
        b"%x\r\n%s\r\n" % (len(PICTURE[at : at + 999]), PICTURE[at : at + 999]) for at in range(0, len(PICTURE), 999)
    )
    chunked = server.add("/chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
    until_end = server.add("/end", b"HTTP/1.0 200 OK\r\n\r\n" + PICTURE)
    assert fetch(chunked, LOCAL) == fetch(until_end, LOCAL) == PICTURE


def test_redirects_are_followed_so_far_and_no_farther(server: ScriptedServer) -> None:
    last = server.add_file("/4", PICTURE)
    for hop in range(4):
        target = last if hop == 3 else f"{hop + 1}"
        server.add_file(f"/{hop}", b"", f"Location: {target}", status=f"{(301, 302, 307, 308)[hop]} Moved")
    assert fetch(server.url("/0"), LOCAL) == PICTURE
    assert "more than 3 redirects" in refusal(server.url("/0"), replace(LOCAL, redirects=3))
    loop = server.add_file("/loop", b"", "Location: /loop", status="302 Found")
    assert "more than 4 redirects" in refusal(loop)
    assert len(server.requests) == 5 + 4 + 5


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "gopher://x", "http://a@b/", "http://[::1"],
)
def test_redirects_lead_only_to_plain_http(server: ScriptedServer, place: str) -> None:
    assert "not a URL that is fetched" in refusal(server.add_file("/", b"", f"Location: {place}", status="302 Found"))


def test_what_is_not_there_is_called_so(server: ScriptedServer) -> None:
    assert refusal(server.add_file("/none.png", b"<html>", status="404 Gone Fishing")).endswith(
        "/none.png: 127.0.0.1 answered 404 Not Found"
    )
    assert refusal(server.add_file("/e", b"", status="500 Oops")).endswith("answered 500 Internal Server Error")
    assert refusal(server.add_file("/n", b"", status="204 No Content")).endswith("answered 204 No Content")
    assert refusal(server.add_file("/m", b"", status="302 Found")).endswith("answered 302 Found")


def test_a_page_is_no_picture(server: ScriptedServer) -> None:
    page = server.add_file("/page", b"<html>", "Content-Type: text/html; charset=utf-8")
    assert refusal(page).endswith("/page: a page (text/html), not a picture")


def test_what_is_too_long_is_not_read_to_its_end(server: ScriptedServer) -> None:
    rules = replace(LOCAL, bytes=100_000)
    stated = server.add_file("/stated", b"", length=10**12)
    assert refusal(stated, rules).endswith("1000000000000 bytes, at most 100000")
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            sent += 65536
            yield bytes(65536)

    assert "bytes, at most 100000" in refusal(server.add("/endless", endless), rules)
    assert sent < 64 << 20  # what lies in buffers of the system
    exact = server.add_file("/exact", bytes(100_000))
    assert len(fetch(exact, rules)) == 100_000


def test_what_ends_too_early_is_not_taken_for_whole(server: ScriptedServer) -> None:
    assert "it ended after 5 of 10 bytes" in refusal(server.add_file("/short", b"hello", length=10))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert "it ended after" in refusal(server.add("/cut", head + b"5\r\nhello\r\n5\r\nhe"))
    assert "a chunk of b'zz' bytes" in refusal(server.add("/bad", head + b"5\r\nhello\r\nzz\r\nhe"))
    assert fetch(server.add_file("/long", b"hello world", length=5), LOCAL) == b"hello"


def test_nothing_is_unpacked(server: ScriptedServer) -> None:
    import gzip

    bomb = gzip.compress(bytes(10 << 20))
    assert "it is compressed" in refusal(server.add_file("/bomb", bomb, "Content-Encoding: gzip"))
    assert fetch(server.add_file("/plain", b"x", "Content-Encoding: identity"), LOCAL) == b"x"


def drip(pieces: bytes, seconds: float) -> Iterator[bytes | float]:
    """One byte at a time."""
    for at in range(len(pieces)):
        yield pieces[at : at + 1]
        yield seconds


@pytest.mark.parametrize("slow", ["head", "body", "silence", "half"])
def test_who_is_slow_is_left(server: ScriptedServer, slow: str) -> None:
    stops = slow in ("silence", "half")
    rules = replace(LOCAL, read_seconds=0.4) if stops else replace(LOCAL, total_seconds=0.8)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    answers = {
        "head": lambda: drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99 + b"Y: " + b"y" * 9999, 0.05),
        "body": lambda: [head, *drip(bytes(9999), 0.05)],
        "silence": lambda: [PATIENCE],
        "half": lambda: [head + b"half", PATIENCE],
    }
    said = refusal(server.add("/", answers[slow]), rules)
    cause = "nothing came for 0.4 seconds" if stops else "it took more than 0.8 seconds in all"
    assert said.endswith(f"127.0.0.1 was too slow: {cause}")


def test_redirects_share_the_time_that_there_is(server: ScriptedServer) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    url = server.add("/", lambda: [0.3, head])
    assert "it took more than 0.7 seconds in all" in refusal(url, replace(LOCAL, total_seconds=0.7, redirects=50))


def test_no_server_answers_in_another_language(server: ScriptedServer) -> None:
    for number, answer in enumerate([b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100]):
        assert "127.0.0.1 did not send it" in refusal(server.add(f"/{number}", answer))
    many = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"
    assert "did not send it" in refusal(server.add("/many", many))
    endless = b"HTTP/1.1 100 Continue\r\n\r\n" * 200_000
    assert "more than 1000 bytes" in refusal(server.add("/100", endless), replace(LOCAL, bytes=1000))


def test_nobody_listens() -> None:
    with socket.socket() as deaf:  # bound, so that nobody else takes its port, but not listening
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        assert "did not send it: Connection refused" in refusal(f"http://127.0.0.1:{port}/")


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1",
                                  "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0", "0.0.0.0", "169.254.169.254",
                                  "[fe80::1]", "10.1.2.3", "LOCALHOST", "127.0.0.1."])  # fmt: skip
def test_addresses_of_this_machine_are_not_connected_to(server: ScriptedServer, host: str) -> None:
    server.add_file("/", PICTURE)
    said = refusal(f"http://{host}:{server.port}/", FetchRules())
    assert "is not on the public internet" in said or "no server is called" in said
    assert not server.requests


def test_a_name_with_one_private_address_is_refused(server: ScriptedServer) -> None:
    found = [(socket.AF_INET, "93.184.216.34"), (socket.AF_INET, "192.168.0.1")]
    rules = FetchRules(resolve=lambda host, port: found)
    assert "pictures.example is not on the public internet" in refusal("http://pictures.example/", rules)


def test_a_name_is_looked_up_once_a_hop_and_that_address_connected_to(server: ScriptedServer) -> None:
    """A name that points elsewhere the second time gains nothing."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[tuple[int, str]]:
        asked.append(host)
        return [(socket.AF_INET, "127.0.0.1" if len(asked) == 1 else "10.0.0.1")]

    server.add_file("/", PICTURE)
    assert fetch(server.url("/", "pictures.example"), replace(LOCAL, resolve=resolve)) == PICTURE
    assert asked == ["pictures.example"]
    assert f"Host: pictures.example:{server.port}" in server.requests[0]


def test_each_redirect_is_checked(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host counts as public, the second one not."""
    from opsin.media import download

    server.add_file("/", b"", f"Location: http://inside.example:{server.port}/secret", status="302 Found")
    server.add_file("/secret", b"secret")
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")
    hosts = {"outside.example": "127.0.0.1", "inside.example": "127.0.0.2"}
    rules = replace(LOCAL, allow_private=False, resolve=lambda host, port: [(socket.AF_INET, hosts[host])])
    assert "inside.example is not on the public internet" in refusal(server.url("/", "outside.example"), rules)
    assert len(server.requests) == 1


def test_proxies_of_the_environment_play_no_part(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(server.add_file("/", PICTURE), LOCAL) == PICTURE


def test_names_that_nobody_has_or_that_are_not_found_in_time() -> None:
    def fail(host: str, port: int) -> list[tuple[int, str]]:
        raise socket.gaierror(-2, "Name or service not known")

    assert "no server is called a.example" in refusal("http://a.example/", FetchRules(resolve=fail))
    released = threading.Event()
    slow = FetchRules(resolve=lambda host, port: [] if released.wait(PATIENCE) else [], connect_seconds=0.2)
    assert "a.example was too slow: its name was not found in time" in refusal("http://a.example/", slow)
    assert not released.is_set()
    released.set()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://user:word@example.org/", "it holds a user name or a password"),
        ("http://example.org\\@127.0.0.1/", "it holds a user name or a password"),
        ("http:///a.png", "its host is none"),
        ("http://exa mple.org/", "spaces or control characters"),
        ("http://example.org/a\r\nX: y", "spaces or control characters"),
        ("http://example.org:99999/", "Port out of range"),
        ("http://[::1/", "Invalid IPv6 URL"),
        ("http://[fe80::1%25eth0]/", "its host is none"),
        ("http://exa$mple.org/", "its host is none"),
        ("http://-a.org/", "its host is none"),
        ("http://" + "a" * 300 + ".org/", "not a URL"),
        ("http://example.org/" + "a" * 9000, "longer than 8192"),
    ],
)
def test_urls_that_are_none(url: str, words: str) -> None:
    said = refusal(url, FetchRules(resolve=lambda host, port: pytest.fail("looked up")))
    assert words in said and "word" not in said.replace("password", "") and len(said) < 300


def test_other_schemes_are_not_read() -> None:
    for url in ("ftp://example.org/a.png", "gopher://x", "javascript:alert(1)", "blob:http://x"):
        assert "URLs are not read" in refusal(url)
    assert "not fetched from other servers" in refusal("https://example.org/a.png", FetchRules(remote=False))


@given(
    st.text(max_size=40), st.sampled_from(["", "http://", "https://", "data:", "file://", "http://[", "data:;base64,"])
)
def test_any_text_gives_bytes_or_a_refusal(text: str, start: str) -> None:
    try:
        assert isinstance(
            fetch(start + text, FetchRules(resolve=lambda host, port: [], folders=(Path("/nowhere"),))), bytes
        )
    except RequestError as error:
        assert error.hint and error.message.isprintable()


def test_a_certificate_is_that_of_the_name(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made += ["-keyout", key, "-out", certificate, "-subj", "/CN=x", "-addext", "subjectAltName=DNS:pictures.example"]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda connection, name, _: names.append(name)
    server = ScriptedServer(context)
    server.add_file("/", PICTURE)
    trusting = ssl.create_default_context(cafile=certificate)
    rules = replace(LOCAL, tls=trusting, resolve=lambda host, port: [(socket.AF_INET, "127.0.0.1")])
    assert fetch(server.url("/", "pictures.example"), rules) == PICTURE
    assert names == ["pictures.example"]
    assert "no secure connection to other.example" in refusal(server.url("/", "other.example"), rules)
    said = refusal(server.url("/", "pictures.example"), replace(rules, tls=None))
    assert "no secure connection to pictures.example: self" in said
    assert len(server.requests) == 1
    server.close()


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An allowed folder with a picture, and a secret beside it."""
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open" / "deep" / "a b.png").write_bytes(PICTURE)
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "open"


def test_files_below_an_allowed_folder_are_read(folder: Path) -> None:
    rules = FetchRules(folders=(Path("/nowhere"), folder))
    for url in (f"file://{folder}/deep/a%20b.png", f"file://localhost{folder}/deep/a%20b.png", f"{folder}/deep/a b.png",
                f"{folder}/deep/../deep/a b.png"):  # fmt: skip
        assert fetch(url, rules) == PICTURE


def test_a_path_is_one_below_an_allowed_folder_too(folder: Path) -> None:
    (folder / "c.png").write_bytes(PICTURE)
    rules = FetchRules(folders=(Path("/nowhere"), folder))
    for url in ("file://deep/a%20b.png", "file://c.png", "file://deep/../c.png"):
        assert fetch(url, rules) == PICTURE
    for url in ("file:///deep/a%20b.png", "file:////deep//a%20b.png", "file:///c.png", "file://localhost/c.png"):
        assert fetch(url, rules) == PICTURE
    assert "local files may not be read" in refusal("file://deep/a%20b.png", FetchRules())


def test_no_file_is_read_where_no_folder_is_allowed(folder: Path) -> None:
    assert "local files may not be read" in refusal(f"{folder}/deep/a b.png", FetchRules())


def test_nothing_outside_is_read_and_nobody_learns_what_there_is(folder: Path) -> None:
    rules = FetchRules(folders=(folder,))
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    beside = folder.parent / "opener"
    beside.mkdir()
    (beside / "a.png").write_bytes(b"secret")
    for path in (
        "../secret.png",
        "../none.png",
        "link.png",
        "up/secret.png",
        "../opener/a.png",
        "deep/../../secret.png",
        "..",
        "",
    ):
        assert "not below a folder that may be read" in refusal(f"file://{folder}/{path}", rules)
        assert "not below a folder that may be read" in refusal(f"{folder}/{path}", rules)
    assert "not below" in refusal(f"file://{folder}/%2e%2e/secret.png", rules)
    assert "cannot be read" in refusal(f"{folder}/loop", rules)
    assert "a file's name, not a URL" in refusal("secret.png", rules)
    assert "not an absolute path" in refusal("file:secret.png", rules)
    assert "cannot be read" in refusal(f"file://server{folder}/deep/a%20b.png", rules)  # a folder below, not a machine
    for url in ("file://../secret.png", "file://..", "file://deep/../../secret.png", "file://up/secret.png",
                "file://%2e%2e/secret.png", "file://../none.png", "file:///../secret.png", "file:///../none.png",
                "file:///up/secret.png", "file:///none.png", "file:////etc/passwd"):  # fmt: skip
        assert "not below a folder that may be read" in refusal(url, rules)


def test_links_inside_are_followed(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "deep" / "a b.png")
    assert fetch(f"{folder}/link.png", FetchRules(folders=(folder,))) == PICTURE


def test_a_folder_that_becomes_a_link_while_it_is_read_leads_nowhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody swaps it after the path was checked."""
    (folder.parent / "a b.png").write_bytes(b"secret")
    real = os.open

    def swap(path: object, flags: int, *rest: object, **more: int) -> int:
        if path == "deep":
            (folder / "deep").rename(folder / "moved")
            (folder / "deep").symlink_to(folder.parent)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", swap)
    assert "cannot be read" in refusal(f"{folder}/deep/a b.png", FetchRules(folders=(folder,)))


def test_pipes_folders_and_long_files_are_refused(folder: Path) -> None:
    rules = FetchRules(folders=(folder,), bytes=len(PICTURE))
    os.mkfifo(folder / "pipe")
    assert "not a file" in refusal(f"{folder}/pipe", rules)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert "not a file" in refusal(f"{folder}/deep", rules)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "cannot be read: No such file" in refusal(f"{folder}/none", rules)
    assert "cannot be read" in refusal(f"{folder}/a\0b", rules)
    assert fetch(f"{folder}/deep/a b.png", rules) == PICTURE
    assert f"{len(PICTURE)} bytes, at most" in refusal(f"{folder}/deep/a b.png", replace(rules, bytes=len(PICTURE) - 1))
