"""Responses that are kept, so that they can be gone on with; of all models of a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Final

_Json = Mapping[str, Any]
_MOST_BYTES: Final = 1 << 27  # of all that is kept, pictures included


@dataclass(frozen=True)
class KeptResponse:
    """A response, and the conversation up to its answer."""

    response: _Json
    messages: Sequence[_Json]
    bytes: int


class ResponseStore:
    """Responses by id, which nobody can guess, within a limit of bytes: the oldest go first.

    The event loop changes it, other threads may look one up.
    """

    def __init__(self, most: int = _MOST_BYTES) -> None:
        self._most, self._kept, self._bytes = most, dict[str, KeptResponse](), 0

    def keep(self, response: _Json, messages: Sequence[_Json]) -> None:
        """Keep one, unless it is too large."""
        kept = KeptResponse(response, messages, _bytes(response) + sum(map(_bytes, messages)))
        if kept.bytes > self._most:
            return
        self._kept[response["id"]] = kept
        self._bytes += kept.bytes
        while self._bytes > self._most:
            self.forget(next(iter(self._kept)))

    def find(self, id: str) -> KeptResponse | None:
        return self._kept.get(id)

    def forget(self, id: str) -> bool:
        """Whether it was there."""
        kept = self._kept.pop(id, None)
        self._bytes -= kept.bytes if kept is not None else 0
        return kept is not None


def _bytes(value: object) -> int:
    """Of memory, with all that is in a value of JSON."""
    inside: Iterable[object] = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    return getsizeof(value) + sum(map(_bytes, inside))
