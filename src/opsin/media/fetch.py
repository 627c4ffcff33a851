"""Bytes behind a URL that a stranger gave: data:, http(s): within limits, and files below folders that are allowed.

Raises RequestError for all else, and says what to do about it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from opsin.errors import FieldError, RequestError
from opsin.media.inline import explain, read_data, read_plain
from opsin.media.limits import ByteLimit

if TYPE_CHECKING:
    from ssl import SSLContext

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")  # one letter is a drive of Windows
_READ_BYTES = 1 << 20
Resolver = Callable[[str, int], list[tuple[int, str]]]  # name, port -> socket family and address


@dataclass(frozen=True)
class FetchRules(ByteLimit):
    """What may be fetched, and what it may cost.

    Attributes:
        bytes: of the file, however it comes.
        all_bytes: of all files of one request that are fetched.
        redirects: hops after the first request.
        connect_seconds: for looking a name up, and again for connecting.
        read_seconds: between two pieces that a server sends.
        total_seconds: for all of it, redirects included.
        remote: whether http(s) is allowed at all.
        allow_private: connect to any address, also of this machine and its network. For tests, and for operators
            who trust whoever may send requests.
        folders: local files below these may be read.
        resolve: another way to look names up.
        tls: another set of certificates to trust.
    """

    bytes: int = 64 << 20
    all_bytes: int = 256 << 20
    redirects: int = 4
    connect_seconds: float = 5.0
    read_seconds: float = 10.0
    total_seconds: float = 30.0
    remote: bool = True
    allow_private: bool = False
    folders: tuple[Path, ...] = ()
    resolve: Resolver | None = None
    tls: SSLContext | None = field(default=None, repr=False)


def is_remote(url: str) -> bool:
    """Whether another server would be asked."""
    return url.strip()[:6].lower().startswith(("http:", "https:"))


def fetch(
    url: str,
    rules: FetchRules | None = None,
    *,
    name: str | None = None,
    came: Callable[[int], None] = lambda count: None,
) -> bytes:
    """What stands behind a URL.

    Args:
        url: data:, http:, https: or file:, the absolute path of a local file, or a picture's base64 alone.
        rules: what is allowed.
        name: what errors call it; by default the URL, without its query.
        came: called now and then with the bytes that came since, perhaps none; what it raises ends the work.

    Raises:
        RequestError: it is not allowed, does not answer in time, is too long, or is a page.
    """
    rules = rules or FetchRules()
    url = url.strip()
    name = name or _shorten(url)
    try:
        scheme = url[: url.index(":")].lower() if _SCHEME.match(url) else ""
        match scheme:
            case "data":
                return read_data(url, rules)
            case "http" | "https":
                from opsin.media.download import download

                return download(url, rules, came)
            case "file":
                return _read_local(_local_path(url, rules), rules)
            case "":
                return _read_bare(url, rules)
        hint = "send a data: URL, or one that begins with https:// or http://"
        raise RequestError(f"{scheme}: URLs are not read", hint=hint)
    except RequestError as error:
        raise FieldError(name, error.message, hint=error.hint) from error.__cause__


def _shorten(url: str) -> str:
    """A URL for a message: printable, without secrets that a query or a name may hold, and not long."""
    if url[:5].lower() == "data:":
        return "the data: URL"
    plain = re.sub(r"//[^/]*@", "//", url.partition("?")[0])
    if not plain:
        return "the URL"
    return ascii(plain[:120])[1:-1] + ("..." if len(plain) > 120 else "")


def _read_bare(url: str, rules: FetchRules) -> bytes:
    """What begins with no scheme: base64 of a picture (that of a JPEG begins with a slash), or an absolute path."""
    data = read_plain(url, rules)
    if data is not None:
        return data
    if url.startswith("/") and not url.startswith("//"):
        return _read_local(Path(url), rules)
    raise explain(url)


def _local_path(url: str, rules: FetchRules) -> Path:
    """An absolute path, or as llama-server reads it, one below an allowed folder: file://photos/a.png, file:///a.png.

    Whether a file is there is looked for in these folders alone.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RequestError(f"not a URL: {error}", hint="write file:///folder/picture.png") from error
    path, host = unquote(parts.path), unquote(parts.netloc)
    absolute = host in ("", "localhost")
    if absolute and (not path.startswith("/") or _is_below(Path(path), rules)):
        return Path(path)
    below = [folder / (path if absolute else f"{host}{path}").lstrip("/") for folder in rules.folders]
    otherwise = below[0] if below and not absolute else Path(path)
    return next((found for found in below if os.path.lexists(found)), otherwise)


def _is_below(path: Path, rules: FetchRules) -> bool:
    try:
        return any(path.resolve().is_relative_to(folder.resolve()) for folder in rules.folders)
    except (OSError, ValueError, RuntimeError):  # loops of links raise RuntimeError
        return False


def _read_local(path: Path, rules: FetchRules) -> bytes:
    """A file below an allowed folder. Links may lead anywhere inside these folders, and nowhere else."""
    if not rules.folders:
        raise RequestError(
            "local files may not be read", hint="send a data: URL, or ask the operator to allow a folder"
        )
    try:
        if not path.is_absolute():
            raise RequestError("not an absolute path", hint="write file:///folder/picture.png")
        path = path.resolve()
        for folder in (folder.resolve() for folder in rules.folders):
            if path != folder and path.is_relative_to(folder):
                return _read_below(folder, path.relative_to(folder).parts, rules)
    except (OSError, ValueError, RuntimeError) as error:  # loops of links raise RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError(f"cannot be read: {reason}", hint="check the path") from error
    raise RequestError("not below a folder that may be read", hint="ask the operator to allow its folder")


def _read_below(folder: Path, parts: tuple[str, ...], rules: FetchRules) -> bytes:
    """Walk down without following links, so that nobody can swap one in between check and use."""
    if os.open not in os.supports_dir_fd:  # Windows
        raise RequestError("local files cannot be read safely on this system", hint="send a data: URL")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        opened = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise RequestError("not a file", hint="give the path of a picture")
        rules.check_bytes(found.st_size)
        data = bytearray()
        while piece := os.read(opened, _READ_BYTES):  # a file may grow while it is read
            data += piece
            rules.check_bytes(len(data))
        return bytes(data)
    finally:
        os.close(opened)
