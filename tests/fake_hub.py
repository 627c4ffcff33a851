"""A small hub on 127.0.0.1 that speaks as much of Hugging Face's as opsin asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """Repositories by name, each with files. What is to go wrong is set by a test; `asked` are requests."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    token: str = ""
    status: int = 0  # of every answer
    body: bytes | None = None  # of every list
    break_after: int | None = None  # bytes of the next file, then the connection ends
    vanishes: bool = False  # after that there is no hub any more
    goes_on: threading.Event | None = None  # awaited before the end of the next file
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> list[str]:
        """Files whose bytes were asked for."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status:
            return self.send(self.hub.status, b"")
        if self.hub.vanishes and self.hub.break_after is None and "/resolve/" in path:
            self.close_connection = True
            return None
        if path.startswith("/api/models/"):
            return self.listing(path.removeprefix("/api/models/"))
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        return self.file(repo, rest.partition("/")[2], body=body)

    def refused(self, repo: str, *, file: bool) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}" and self.hub.token
        if self.headers.get("Authorization") and not allowed:
            self.send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo not in self.hub.repos or (repo in self.hub.private and not allowed):
            self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif file and repo in self.hub.gated and not allowed:
            self.send(401, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return False
        return True

    def listing(self, repo: str) -> None:
        if self.hub.body is not None:
            return self.send(200, self.hub.body)
        if self.refused(repo, file=False):
            return None
        files = [
            {"rfilename": name, "size": len(data),
             "lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 100}}
            for name, data in self.hub.repos[repo].items()
        ]  # fmt: skip
        return self.send(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": files}).encode())

    def file(self, repo: str, name: str, *, body: bool) -> None:
        if self.refused(repo, file=True):
            return None
        data = self.hub.repos[repo].get(name)
        if data is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        wanted = self.headers.get("Range")
        if not wanted:
            return self.send(200, data, headers, body=body)
        self.hub.ranges.append(wanted)
        first = int(wanted.removeprefix("bytes=").partition("-")[0])
        headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return self.send(206, data[first:], headers, body=body)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None, *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        if self.hub.goes_on is not None and "/resolve/" in self.path:
            event, self.hub.goes_on = self.hub.goes_on, None
            self.wfile.write(data[:-1])
            event.wait()
            data = data[-1:]
        if self.hub.break_after is not None and "/resolve/" in self.path:
            data, self.hub.break_after = data[: self.hub.break_after], None
            self.close_connection = True
        self.wfile.write(data)


@contextmanager
def as_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A fake hub, which the library takes for the real one, with a cache in a folder of its own."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with fake_hub() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
        monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(folder / "cache"), raising=False)
        yield made


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """It answers until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
