"""A server on this machine that answers each request with the bytes that a test wrote, at the pace that it wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable

Answer = bytes | Iterable[bytes | float]  # bytes to send, seconds to wait


class ScriptedServer:
    """Answers by path. Counts connections, and keeps what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.requests: list[str] = []
        self.tls = tls
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.closed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def add(self, path: str, answer: Answer | Callable[[], Answer]) -> str:
        """Answer so at this path; gives its URL."""
        self.answers[path] = answer if callable(answer) else lambda: answer
        return self.url(path)

    def add_file(self, path: str, body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> str:
        """A sound answer, but for what is asked otherwise."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
        return self.add(path, "\r\n".join([*lines, "", ""]).encode() + body)

    def close(self) -> None:
        self.closed.set()
        self.socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(65536) or b"\r\n\r\n"
                self.requests.append(asked.decode())
                answer = self.answers.get(asked.split(b" ")[1].decode(), bytes)()
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    if self.closed.is_set():
                        return
                    if isinstance(piece, float):
                        self.closed.wait(piece)
                    else:
                        connection.sendall(piece)
