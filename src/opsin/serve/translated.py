"""Bodies of other protocols as those of /v1/chat/completions: what is wrong in them is told by the client's paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from opsin.errors import ContextError, FieldError


@dataclass(frozen=True)
class Translated:
    """A body as /v1/chat/completions has it.

    Attributes:
        body: it.
        sent: what the client sent.
        places: paths of messages and parts in it, with their paths in what the client sent, for errors.
    """

    body: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def without_bodies(self) -> Translated:
        """What is kept while prompts are made: bodies are large."""
        return replace(self, body={}, sent={})

    @contextmanager
    def errors_of_client(self) -> Iterator[None]:
        """What is wrong is told by the paths that the client knows."""
        try:
            yield
        except FieldError as error:
            raise FieldError(self.place(error.param), error.what, hint=error.hint) from None
        except ContextError as error:
            if error.param is not None:
                error.param = self.place(error.param)
            raise

    def place(self, path: str) -> str:
        """The client's path of a path."""
        begin = max((known for known in self.places if _begins(path, known)), key=len, default="")
        return self.places.get(begin, begin) + path[len(begin) :]


def _begins(path: str, known: str) -> bool:
    return path.startswith(known) and path[len(known) : len(known) + 1] in ("", ".", "[")
