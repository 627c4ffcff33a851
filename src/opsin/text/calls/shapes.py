"""How calls of tools are written, as far as formats differ: what stands around them, and how one is made.

Texts are as a template prints them; whoever reads them takes any whitespace between their parts. In them an ID,
a NUMBER or the KEY of an argument may stand as one of the letters below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum

ID, NUMBER, KEY = "\x01", "\x02", "\x03"


class Notation(Enum):
    """How values are written."""

    JSON = "json"
    PYTHON = "python"
    GEMMA = "gemma"  # bare keys, strings between tokens `<|"|>` without escapes


@dataclass(frozen=True)
class Frame:
    """What stands around calls, and around each.

    Attributes:
        several: whether one reply may hold several.
    """

    section_open: str = ""
    call_open: str = ""
    call_close: str = ""
    between: str = ""
    section_close: str = ""
    several: bool = True

    @property
    def opening(self) -> str:
        """What the first call begins with."""
        return self.section_open + self.call_open


@dataclass(frozen=True)
class JsonCall:
    """A call is a JSON object.

    Attributes:
        name_key: where its name stands; None where the name is the key of the arguments.
        holder: the key of an inner object with name and arguments.
        keys: all keys of the object that holds the name, in order.
        constants: JSON of other values, by key.
    """

    name_key: str | None = "name"
    arguments_key: str = "arguments"
    id_key: str | None = None
    holder: str | None = None
    keys: tuple[str, ...] = ("name", "arguments")
    constants: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NamedCall:
    """A name, and arguments in one piece behind it.

    Attributes:
        name_close: what stands between them.
        numbered: whether the name is written as an id, `functions.NAME:0`.
    """

    name_close: str = ""
    notation: Notation = Notation.JSON
    numbered: bool = False


@dataclass(frozen=True)
class Kinds:
    """How an argument says whether its value is text or JSON: a word between `before` and `after` behind its key."""

    before: str
    text: str
    json: str
    after: str


@dataclass(frozen=True)
class TaggedCall:
    """A name, and each argument between tags. A text stands there as it is, any other value as JSON.

    Attributes:
        cdata: whether texts with markup in them stand in `<![CDATA[...]]>`.
    """

    name_close: str
    open: str
    key_close: str
    close: str
    between: str = ""
    kinds: Kinds | None = None
    cdata: bool = False


@dataclass(frozen=True)
class ListedCall:
    """Calls as Python writes them: `[name(key="text", other=1)]`."""

    name_close: str = "("


CallBody = JsonCall | NamedCall | TaggedCall | ListedCall


@dataclass(frozen=True)
class CallShape:
    """How a model writes calls."""

    frame: Frame
    body: CallBody

    def literals(self) -> Iterator[str]:
        """Every text that stands in calls."""
        parts: list[Frame | CallBody | Kinds] = [self.frame, self.body]
        if isinstance(self.body, TaggedCall) and self.body.kinds is not None:
            parts.append(self.body.kinds)
        for part in parts:
            for field in fields(part):
                value = getattr(part, field.name)
                if isinstance(value, str) and not isinstance(part, JsonCall):
                    yield value
        if isinstance(self.body, NamedCall) and self.body.notation == Notation.GEMMA:
            yield GEMMA_QUOTE


GEMMA_QUOTE = '<|"|>'
