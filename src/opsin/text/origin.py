"""Texts that remember which of their characters people wrote, through whatever a chat template does to them.

A template joins its own words with people's texts, and afterwards nobody can tell `<|im_end|>` of the one from
`<|im_end|>` of the other. So people's texts go into a template as `Written`: strings like any other for whoever finds,
splits, compares or cuts in them, and what is made of them knows its part. What a template does in a way that is not
followed here gives a text that counts as people's as a whole (`derived`): that can cost a template its own special
token, never make one of what people wrote.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from string import Formatter
from typing import Any, Protocol, SupportsIndex, TypeVar, cast

from jinja2 import Undefined
from markupsafe import Markup

Value = TypeVar("Value")
Spans = tuple[tuple[int, int], ...]  # first character, and the one behind the last; in order, apart
_PLAIN = (str, bool, int, float, type(None))
_LOOKED = 10_000  # values
_FIELD = re.compile(r"%(?:\((?P<key>[^()]*)\))?[-#0 +]*\d*(?:\.\d+)?[a-zA-Z%]")


class Written(str):
    """A text of which people wrote all characters, or those of `_spans`."""

    _spans: Spans | None = None  # an attribute of its own costs: most are people's as a whole

    def __str__(self) -> str:
        return self  # str() of it, which Jinja writes around everything, must not forget

    def __reduce__(self) -> tuple[object, ...]:
        return _with, (plain(self), spans_of(self))

    def __add__(self, other: str) -> str:
        return join("", (self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return join("", (other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> str:
        return derived(str.__mul__(self, count), self)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> str:
        return percent(self, values)

    def __rmod__(self, pattern: str) -> str:
        return percent(pattern, self)

    def __getitem__(self, place: SupportsIndex | slice) -> str:
        text = str.__getitem__(self, place)
        if not isinstance(place, slice):
            place = slice(place, int(place) + 1 or None)
        start, end, step = place.indices(len(self))
        return self._part(text, start) if step == 1 else derived(text, self)

    def __iter__(self) -> Iterator[str]:
        letters = str.__iter__(self)
        return map(Written, letters) if self._spans is None else (self[place] for place in range(len(self)))

    def _part(self, text: str, place: int) -> str:
        """A part of it that begins at this place."""
        return Written(text) if self._spans is None else _with(text, _cut(self._spans, place, place + len(text)))

    def _changed(self, text: str) -> str:
        """What it became letter by letter; where letters became more or less, all of it is people's."""
        return _with(text, spans_of(self)) if len(text) == len(self) else derived(text, self)

    def strip(self, chars: str | None = None, /) -> str:
        return self._part(str.strip(self, chars), len(self) - len(str.lstrip(self, chars)))

    def lstrip(self, chars: str | None = None, /) -> str:
        return self._part(left := str.lstrip(self, chars), len(self) - len(left))

    def rstrip(self, chars: str | None = None, /) -> str:
        return self._part(str.rstrip(self, chars), 0)

    def removeprefix(self, prefix: str, /) -> str:
        return self._part(left := str.removeprefix(self, prefix), len(self) - len(left))

    def removesuffix(self, suffix: str, /) -> str:
        return self._part(str.removesuffix(self, suffix), 0)

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._found(str.splitlines(self, keepends), None)

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        one, two, three = self._found([*str.partition(self, sep)], "")
        return one, two, three

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        one, two, three = self._found([*str.rpartition(self, sep)], "")
        return one, two, three

    def _found(self, parts: list[str], between: str | None) -> list[str]:
        """Its parts, which stand apart by `between`, or by what no part begins with."""
        if self._spans is None:
            return [*map(Written, parts)]
        found, place = [], 0
        for part in parts:
            if between is None:
                place = self.find(part, place)
            found.append(self._part(part, place))
            place += len(part) + len(between or "")
        return found

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return derived(str.replace(self, old, new, count), self)
        return join(new, self.split(old, count))

    def join(self, parts: Iterable[str], /) -> str:
        return join(self, parts)

    def upper(self) -> str:
        return self._changed(str.upper(self))

    def lower(self) -> str:
        return self._changed(str.lower(self))

    def title(self) -> str:
        return self._changed(str.title(self))

    def capitalize(self) -> str:
        return self._changed(str.capitalize(self))

    def swapcase(self) -> str:
        return self._changed(str.swapcase(self))

    def casefold(self) -> str:
        return self._changed(str.casefold(self))

    def translate(self, table: Any, /) -> str:
        return derived(str.translate(self, table), self)

    def center(self, width: SupportsIndex, fill: str = " ", /) -> str:
        return derived(str.center(self, width, fill), self)

    def ljust(self, width: SupportsIndex, fill: str = " ", /) -> str:
        return derived(str.ljust(self, width, fill), self)

    def rjust(self, width: SupportsIndex, fill: str = " ", /) -> str:
        return derived(str.rjust(self, width, fill), self)

    def zfill(self, width: SupportsIndex, /) -> str:
        return derived(str.zfill(self, width), self)

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        return derived(str.expandtabs(self, tabsize), self)


def spans_of(text: str) -> Spans:
    """Where people wrote in a text. In one that is not `Written` they wrote nothing."""
    if not isinstance(text, Written):
        return ()
    return text._spans if text._spans is not None else ((0, len(text)),) if text else ()


def is_whole(text: Written) -> bool:
    """Whether people wrote all of it, so that whose its parts are need not be found out."""
    return text._spans is None


def plain(text: str) -> str:
    """The same text, which remembers nothing."""
    return str.__str__(text)


def written(value: object) -> object:
    """The same JSON-like value, all of whose texts people wrote."""
    if isinstance(value, str):
        return value if isinstance(value, Written) else Written(value)
    if isinstance(value, Mapping):
        return {written(key): written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [written(item) for item in value]
    return value


def derived(made: Value, *given: object) -> Value:
    """What was made of these in a way that nobody followed: a text of people's, unless all of them are none of theirs.

    Values other than texts are given back as they are.
    """
    if not isinstance(made, str) or isinstance(made, Written) or _are_own(given):
        return made
    return cast(Value, Written(plain(made)))


def join(between: str, parts: Iterable[str]) -> str:
    """`between.join(parts)`."""
    texts = [*parts]
    spans: list[tuple[int, int]] = []
    size = 0
    gap, spans_between = len(between), spans_of(between)
    for number, text in enumerate(texts):
        if number:
            _append(spans, spans_between, size)
            size += gap
        if isinstance(text, Written):
            _append(spans, spans_of(text), size)
        size += len(text)
    return _with(str.join(between, texts), tuple(spans))


def _append(spans: list[tuple[int, int]], found: Spans, size: int) -> None:
    """Those of a text that stands behind so many characters; neighbours become one."""
    for start, end in found:
        if spans and spans[-1][1] == start + size:
            spans[-1] = (spans[-1][0], end + size)
        else:
            spans.append((start + size, end + size))


def percent(pattern: str, values: Any) -> str:
    """`pattern % values`."""
    made = str.__mod__(str.__str__(pattern), values)  # raises what is to be raised
    left = iter(values if isinstance(values, tuple) else (values,))
    pieces: list[str] = []
    place = 0
    for field in _FIELD.finditer(pattern):
        pieces.append(pattern[place : field.start()])
        place = field.end()
        if field.group().endswith("%"):
            pieces.append("%")
            continue
        value = next(left, None) if field["key"] is None else values[field["key"]]
        spec = field.group().partition(")")[2] if field["key"] is not None else field.group()[1:]
        text = value if spec == "s" and isinstance(value, str) else str.__mod__(f"%{spec}", (value,))
        pieces.append(derived(text, value))
    found = join("", [*pieces, pattern[place:]])
    return found if found == made else derived(made, Written(pattern))


def replace(text: object, old: object, new: object, count: int | None = None) -> str:
    """The filter `replace`."""
    given = text if isinstance(text, Written) else followed(str(text))
    return given.replace(str(old), str(new), -1 if count is None else count)


def percent_format(pattern: object, *args: object, **kwargs: object) -> str:
    """The filter `format`, which is the operator `%`."""
    return percent(pattern if isinstance(pattern, str) else str(pattern), kwargs or args)


class FieldFormatter(Protocol):
    """What formats one field within bounds, as Jinja's sandbox has it."""

    def vformat(self, pattern: str, args: Sequence[Any], kwargs: Mapping[str, Any], /) -> str: ...


def formatted(pattern: str, args: Sequence[Any], kwargs: Mapping[str, Any], formatter: FieldFormatter) -> str:
    """`pattern.format(*args, **kwargs)`."""
    pieces: list[str] = []
    place = 0  # of the next field without a name
    for text, field, spec, conversion in Formatter().parse(pattern):
        pieces.append(derived(text, pattern))
        if field is None:
            continue
        if not field or field[0] in ".[":
            field, place = f"{place}{field}", place + 1
        one = f"{{{field}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
        pieces.append(derived(formatter.vformat(one, args, kwargs), *args, *kwargs.values()))
    return join("", pieces)


def _are_own(values: Sequence[object]) -> bool:
    """Whether nothing in these is people's, as far as is looked: into lists and mappings, and not too far."""
    left, seen = [*values], 0
    while left:
        value = left.pop()
        seen += 1
        if isinstance(value, list | tuple):
            left += value[:_LOOKED]
        elif isinstance(value, dict):
            left += [*islice(value.keys(), _LOOKED), *islice(value.values(), _LOOKED)]
        elif not (type(value) in _PLAIN or isinstance(value, Undefined | Markup)):  # no text of people's is Markup
            return False
        if seen + len(left) > _LOOKED:
            return False
    return True


def _with(text: str, spans: Spans) -> str:
    """A text of which people wrote these."""
    if not spans or spans == ((0, len(text)),):
        return Written(plain(text)) if spans else plain(text)
    return followed(plain(text), spans)


def followed(text: str, spans: Spans = ()) -> Written:
    """A text of which people wrote only these, perhaps none, and that goes on to know it."""
    made = Written(text)
    made._spans = spans
    return made


def _cut(spans: Spans, start: int, end: int) -> Spans:
    """What of these lies between two places, counted from the first."""
    if len(spans) == 1:
        first, last = max(spans[0][0], start) - start, min(spans[0][1], end) - start
        return ((first, last),) if first < last else ()
    first = bisect_right(spans, start, key=itemgetter(1))
    last = bisect_left(spans, end, first, key=itemgetter(0))
    return tuple((max(s, start) - start, min(e, end) - start) for s, e in spans[first:last])
