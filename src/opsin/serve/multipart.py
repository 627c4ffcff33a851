"""Bodies of forms (multipart/form-data, RFC 7578): small fields and files. Nothing here knows what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from opsin.serve.errors import HttpError

_MOST_PARTS, _MOST_HEAD, _MOST_FIELD = 64, 8192, 1 << 20
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([\w*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
_HINT = "send multipart/form-data, as curl -F file=@picture.png does"


@dataclass(frozen=True)
class FormFile:
    """A file of a form. `type` is what the client says of its kind."""

    name: str
    type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class FormBody:
    """Fields and files by name, each in the order in which they came."""

    fields: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, FormFile], ...] = ()

    def value(self, name: str) -> str | None:
        """The last field of this name."""
        return next((value for known, value in reversed(self.fields) if known == name), None)

    def values(self, name: str) -> list[str]:
        """All fields of this name."""
        return [value for known, value in self.fields if known == name]

    def file(self, name: str) -> FormFile | None:
        """The first file of this name."""
        return next((file for known, file in self.files if known == name), None)


def read_form(data: bytes | bytearray, content_type: str) -> FormBody:
    """A body of this content type. Raises HttpError 415 for other kinds, 400 for one that is damaged."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise HttpError(415, f"the body is {content_type!a:.80}, no form", hint=_HINT)
    fields, files = [], []
    for head, content in _parts(data, b"--" + (found[1] or found[2]).encode("latin-1")):
        told = _disposition(head)
        name = told.get("name")
        if name is None:
            raise HttpError(400, "a part of the form has no name", hint=_HINT)
        if "filename" in told:
            kind = re.search(r"^content-type:\s*([^\s;]+)", head, re.IGNORECASE | re.MULTILINE)
            files.append((name, FormFile(told["filename"], kind[1] if kind else "", bytes(content))))
        elif len(content) > _MOST_FIELD:
            raise HttpError(400, f"the field {name!a:.40} has {len(content)} bytes", hint="send it as a file")
        else:
            fields.append((name, bytes(content).decode("utf-8", "replace")))
    return FormBody(tuple(fields), tuple(files))


def _parts(data: bytes | bytearray, mark: bytes) -> Iterator[tuple[str, memoryview]]:
    """The head and the content of each part."""
    if data[: len(mark)] == mark:
        at = len(mark)
    else:
        begin = data.find(b"\r\n" + mark)
        at = begin + 2 + len(mark)
        if begin < 0:
            raise HttpError(400, "the form does not begin with its boundary", hint=_HINT)
    for _ in range(_MOST_PARTS):
        if data[at : at + 2] == b"--":
            return
        head = data.find(b"\r\n\r\n", at, at + _MOST_HEAD)
        end = data.find(b"\r\n" + mark, head + 2)
        if data[at : at + 2] != b"\r\n" or head < 0 or end < 0:
            raise HttpError(400, "the form ends within a part", hint=_HINT)
        yield bytes(data[at + 2 : head]).decode("utf-8", "replace"), memoryview(data)[head + 4 : end]
        at = end + 2 + len(mark)
    raise HttpError(400, f"the form has more than {_MOST_PARTS} parts", hint="send fewer")


def _disposition(head: str) -> dict[str, str]:
    """What a part's head says of it: its name, and that of its file."""
    line = next((line for line in head.split("\r\n") if line.lower().startswith("content-disposition:")), "")
    told: dict[str, str] = {}
    for name, quoted, plain in _parameters(line):
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        if name.endswith("*"):  # RFC 5987: utf-8''...
            told[name[:-1].lower()] = unquote(value.rpartition("'")[2], errors="replace")
        else:
            told.setdefault(name.lower(), value)
    return told


def _parameters(line: str) -> Sequence[tuple[str, str, str]]:
    return [(found[1], found[2] or "", found[3] or "") for found in _PARAMETER.finditer(line)]
