"""Bytes that stand in the URL itself: data: URLs, and plain base64 of pictures and sounds, as llama-server takes it.

Knows no servers and no files, but tells what a text that is no URL seems to be.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

from opsin.errors import RequestError
from opsin.media.headers import is_picture
from opsin.media.sound import is_sound

if TYPE_CHECKING:
    from opsin.media.fetch import FetchRules

WRITE = "write data:image/png;base64, and then the picture's bytes in base64"
_IS_BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)
_SAYS_BASE64 = re.compile(r"\bbase64\b", re.IGNORECASE)
_HEADLESS = re.compile(r"(image/[\w.+-]+\s*;)?\s*base64\s*,", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z0-9+/_\s-]+=*")
_BYTES_OF_PYTHON = "Python's b'...' stands around its base64"
_LEAST_LETTERS = 32  # of plain base64: no picture is shorter, most names are
_MOST_NAME = 4096  # longer ones are no names of files
_URL_SAFE = {ord("-"): "+", ord("_"): "/"}
_PATH = re.compile(r"[~.]?[/\\]|[A-Za-z]:[/\\]|[^\r\n]*\.\w{2,5}$")


def read_data(url: str, rules: FetchRules) -> bytes:
    """The bytes of a data: URL. Raises RequestError, saying what is wrong with it."""
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise RequestError("it has no comma", hint=WRITE)
    if len(head) > _MOST_NAME:
        raise RequestError(f"{len(head)} characters stand before its comma", hint=WRITE)
    if not body.strip(" \t\r\n="):
        raise RequestError("nothing stands behind its comma", hint=WRITE)
    if _IS_BASE64.search(head):
        return _decode(body, rules)
    if _SAYS_BASE64.search(head) or body[:7].lower() == "base64,":
        order = "last before the comma" if ";" in head else "behind a semicolon"
        raise RequestError(f"base64 must stand {order}", hint=WRITE)
    if _begins_medium(body):
        raise RequestError("it is base64, but does not say so", hint=WRITE)
    rules.check_bytes(len(body) // 3)  # the least that it can be
    data = unquote_to_bytes(body)
    rules.check_bytes(len(data))
    return data


def read_plain(text: str, rules: FetchRules) -> bytes | None:
    """The picture or sound in base64 without anything before it; None for all that does not begin as these do."""
    return _decode(text, rules) if _begins_medium(text) else None


def begins_sound(text: str) -> bool:
    """Whether a text is base64 of a sound, as its first letters tell."""
    return is_sound(_beginning(text))


def _begins_medium(text: str) -> bool:
    start = _beginning(text)
    return is_picture(start) or is_sound(start)


def _beginning(text: str) -> bytes:
    """The first bytes of what a text is base64 of; none where it is something else."""
    start = text[:_LEAST_LETTERS]
    if len(start) < _LEAST_LETTERS or not _LETTERS.fullmatch(start):
        return b""
    letters = "".join(start.split()).translate(_URL_SAFE)
    try:
        return binascii.a2b_base64(letters[: len(letters) // 4 * 4])
    except ValueError:
        return b""


def explain(url: str) -> RequestError:
    """What a text that begins with no scheme seems to be."""
    if not url:
        return RequestError("the URL is empty", hint=WRITE)
    if url.startswith("//"):
        return RequestError("it lacks https: at its beginning", hint=f"write https:{url[:80]!a}".replace("'", ""))
    if url.startswith(("b'", 'b"')):
        return RequestError(_BYTES_OF_PYTHON, hint="make it a text by .decode()")
    if "data:" in url[:10].lower():
        return RequestError("something stands before data:", hint="send the URL alone, without quotes")
    if _HEADLESS.match(url[:_MOST_NAME]):
        return RequestError("it lacks data: at its beginning", hint=WRITE)
    if len(url) <= _MOST_NAME and _PATH.match(url):
        hint = f"{WRITE}, or give a URL that begins with https://"
        return RequestError("a file's name, not a URL", hint=hint)
    if len(url) >= _LEAST_LETTERS and _LETTERS.fullmatch(url[:_MOST_NAME]):
        words = "base64 without data:image/png;base64, before it, and of no known picture"
        return RequestError(words, hint="encode the picture's bytes")
    return RequestError("not a URL", hint=f"{WRITE}, or give a URL that begins with https://")


def _decode(body: str, rules: FetchRules) -> bytes:
    if body.startswith(("b'", 'b"')):
        raise RequestError(_BYTES_OF_PYTHON, hint="make it a text by .decode()")
    if body[:5].lower() == "data:":
        raise RequestError("it begins twice", hint="write data:image/png;base64, once")
    if "%" in body:
        body = unquote(body, errors="replace")
    if any(space in body for space in " \t\r\n"):
        if "+" not in body and "\n" not in body and " " in body.strip():
            hint = "in forms write %2B for +, or send JSON"
            raise RequestError("its base64 has spaces, as if each + had become one", hint=hint)
        body = "".join(body.split())
    body = body.rstrip("=")
    rules.check_bytes(len(body) * 3 // 4)
    plain = body.translate(_URL_SAFE) if "-" in body or "_" in body else body
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError as error:
        raise RequestError(f"its base64 is damaged: {error}", hint="encode the file's bytes again") from error
