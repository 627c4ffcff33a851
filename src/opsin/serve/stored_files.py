"""Pictures that clients stored: files by id, and those that a part of a message once gave a uuid.

Whoever has another key neither finds them nor learns that they are there. Any thread may look.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from opsin.api import Message
from opsin.errors import FieldError
from opsin.media.sound import is_sound
from opsin.serve.errors import HttpError
from opsin.serve.recent_values import RecentValues

_OVERHEAD = 512  # bytes of memory that an entry takes beside its content
_SEND = "send it again: it was not stored with this key, or is gone"


@dataclass(frozen=True)
class StoredFile:
    """A file, before which `number` came. Times are in seconds since 1970; `expires` is None for one that does not."""

    id: str
    name: str
    type: str
    purpose: str
    created: int
    number: int
    data: bytes = field(repr=False)
    expires: int | None = None


class StoredFiles:
    """Of all keys, within a limit of bytes. `clock` gives seconds since 1970."""

    def __init__(self, most: int, clock: Callable[[], float] = time.time) -> None:
        self._files = RecentValues[tuple[str, str], StoredFile](most)
        self._sources = RecentValues[tuple[str, str], str](most)
        self._clock, self._numbers = clock, count()

    def of(self, tenant: str) -> TenantFiles:
        """What is stored under one key; "" where there are none."""
        return TenantFiles(tenant, self._files, self._sources, self._clock, self._numbers)


@dataclass(frozen=True)
class TenantFiles:
    """What is stored under one key. Another one's is not there."""

    tenant: str
    _files: RecentValues[tuple[str, str], StoredFile]
    _sources: RecentValues[tuple[str, str], str]
    _clock: Callable[[], float]
    _numbers: Iterator[int]

    def add(self, data: bytes, *, name: str, type: str, purpose: str, seconds: int | None = None) -> StoredFile:
        """Store a file, perhaps for so many seconds. Raises HttpError 413 where it has no room."""
        now = int(self._clock())
        id, expires = f"file-{secrets.token_hex(16)}", None if seconds is None else now + seconds
        file = StoredFile(id, name, type, purpose, now, next(self._numbers), data, expires)
        if not self._files.put((self.tenant, id), file, len(data) + _OVERHEAD):
            raise HttpError(413, f"{len(data)} bytes, and {self._files.most} of room for all", hint="send less")
        return file

    def find(self, id: str) -> StoredFile | None:
        """A file that is there and has not expired."""
        file = self._files.get((self.tenant, id))
        if file is not None and file.expires is not None and file.expires <= self._clock():
            self.forget(id)
            return None
        return file

    def forget(self, id: str) -> bool:
        """Whether it was there."""
        return self._files.pop((self.tenant, id)) is not None

    def all(self) -> list[StoredFile]:
        """From the oldest to the newest."""
        now = self._clock()
        mine = [file for (tenant, _), file in self._files.items() if tenant == self.tenant]
        return sorted((f for f in mine if f.expires is None or f.expires > now), key=lambda file: file.number)

    def resolved(self, messages: Sequence[Message]) -> list[Message]:
        """Messages in which each picture that is named stands itself, as a part of the type image_url; so do sounds.

        Raises FieldError for a name under which there is nothing.
        """
        return [self._message(message, f"messages[{number}]") for number, message in enumerate(messages)]

    def _message(self, message: Message, path: str) -> Message:
        content = message.get("content")
        if not isinstance(content, list) or not any(map(_is_named, content)):
            return message
        parts = [
            self._part(part, f"{path}.content[{place}]") if _is_named(part) else part
            for place, part in enumerate(content)
        ]
        return {**message, "content": parts}

    def _part(self, part: Mapping[str, Any], path: str) -> Mapping[str, object]:
        rest = {name: value for name, value in part.items() if name not in ("type", "file", "image_url", "uuid")}
        if part["type"] == "file":
            content = self._content(part["file"], f"{path}.file")
            kind = "audio_url" if _is_sound(content) else "image_url"
            return {**rest, "type": kind, kind: {"url": content}}
        given, uuid = part.get("image_url"), cast(str, part["uuid"])
        place = given if isinstance(given, Mapping) else {"url": given}
        url = place.get("url")
        if url:
            self._sources.put((self.tenant, uuid), url, len(url) + _OVERHEAD)  # one too large is sent again
        else:
            url = self._sources.get((self.tenant, uuid))
        if url is None:
            raise FieldError(f"{path}.uuid", f"there is no picture {uuid!r:.80}", hint=_SEND)
        return {**rest, "type": "image_url", "image_url": {**place, "url": url}}

    def _content(self, place: Mapping[str, Any], path: str) -> bytes | str:
        """The bytes of a stored file, or the URL of one that is sent along."""
        id, given = place.get("file_id"), place.get("file_data")
        if id is None:
            if not given:
                raise FieldError(f"{path}.file_id", "there is none", hint="store the picture by POST /v1/files")
            return cast(str, given)
        file = self.find(id)
        if file is None:
            raise FieldError(f"{path}.file_id", f"there is no file {id!r:.80}", hint=_SEND)
        return file.data


def _is_sound(content: bytes | str) -> bool:
    """Whether a file is one of sound: by its first bytes, or as its URL says."""
    return is_sound(content) if isinstance(content, bytes) else content[:11].lower() == "data:audio/"


def _is_named(part: object) -> bool:
    """Whether a part of checked shape names its picture."""
    if not isinstance(part, Mapping):
        return False
    return part.get("type") == "file" or (part.get("type") == "image_url" and part.get("uuid") is not None)
