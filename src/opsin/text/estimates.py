"""What a method, filter or test of templates may take, estimated from its arguments before it runs.

These tables are also what templates may call at all. The first argument is what the method or filter works on.
Searching backwards, and stripping, take the product of both lengths in CPython; searching forwards does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple

from opsin.text.budget import MAX_VALUE, Budget, LimitError, Sized
from opsin.text.origin import Written, is_whole

MAX_NUMBER = 100_000  # widths, counts and the like
MAX_FIELDS = 1_000  # of one format
MAX_WIDTH = 1_000  # of a field
MAX_PATTERN = 200_000  # characters of a format
_ATTRIBUTE = 200  # characters of an attribute's path
_PIECE = 100  # bytes of a short text in a list
_WRITTEN_PIECE = 500  # and of one that knows whose it is
_FOLLOWED = 3_000  # nanoseconds to find out whose a piece is
_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_FIELD = re.compile(r"%(?:\((?:[^()]|\([^()]*\))*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.?)", re.DOTALL)


class Cost(NamedTuple):
    """What an operation may take: nanoseconds, bytes for a moment, and bytes that stay beside its result's own."""

    work: int = 0
    needs: int = 0
    makes: int = 0


Estimate = Callable[[Budget, Sequence[Any]], Cost]


def size(text: str) -> int:
    """Bytes of a text, or of as much of any other."""
    return len(text) * (1 if text.isascii() else 4)


def written(budget: Budget, value: object) -> int:
    """Bytes of a value as text."""
    return size(value) if isinstance(value, str) else budget.measure(value).written


def length(value: object) -> int:
    """Characters or items."""
    return len(value) if isinstance(value, Sized) else 1


def number(name: str, value: object, most: int = MAX_NUMBER) -> int:
    """A width or count that a template gave, if it is not too large."""
    if isinstance(value, int | float) and abs(value) > most:
        raise LimitError(f"the chat template gives {name} a number above {most}")
    return abs(value) if isinstance(value, int) else 0


def search(subject: object, part: object) -> int:
    """Nanoseconds to look for a part from the front (CPython changes to a linear search in time)."""
    n, m = length(subject), length(part)
    return 6 * n + min(n * m, 4_000_000)


def membership(budget: Budget, part: object, whole: object) -> int:
    """Nanoseconds of `part in whole`."""
    if isinstance(whole, str):
        return search(whole, part)
    if isinstance(whole, dict):
        return budget.measure(part).work
    work = budget.measure(whole).work
    return length(whole) * 30 + min(length(whole) * budget.measure(part).work, work)


def equality(budget: Budget, left: object, right: object) -> int:
    """Nanoseconds to compare two values."""
    if isinstance(left, str) or isinstance(right, str):
        return min(length(left), length(right))
    if isinstance(left, Sized) and isinstance(right, Sized):
        return min(budget.measure(left).work, budget.measure(right).work)
    return 0


def _free(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost()


def _walk(budget: Budget, given: Sequence[Any]) -> Cost:
    """All of it once, in C, and a copy at most."""
    return Cost(sum(budget.measure(value).work for value in given), written(budget, given[0]))


def _case(budget: Budget, given: Sequence[Any]) -> Cost:
    """Letters of another case: up to three for one, of four bytes each."""
    subject = given[0]
    if not isinstance(subject, str):
        return Cost(budget.measure(subject).work, written(budget, subject))
    return Cost(len(subject) * (2 if subject.isascii() else 20), len(subject) * (1 if subject.isascii() else 16))


def _title(budget: Budget, given: Sequence[Any]) -> Cost:
    bytes = written(budget, given[0])
    return Cost(bytes * 200, bytes * 80)


def _strip(budget: Budget, given: Sequence[Any]) -> Cost:
    bytes = written(budget, given[0])
    return Cost(bytes * (1 + sum(map(length, given[1:]))), bytes)


def _find(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(sum(search(given[0], part) for part in given[1:2]))


def _find_last(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(length(given[0]) * sum(map(length, given[1:2])))


def _partition(budget: Budget, given: Sequence[Any]) -> Cost:
    subject, *rest = given
    work = length(subject) * (1 + sum(length(part) for part in rest if isinstance(part, str)))
    return Cost(work, size(subject), size(subject))


def _split(budget: Budget, given: Sequence[Any]) -> Cost:
    subject, *rest = given
    separators = [part for part in rest if isinstance(part, str)]
    counts = [part for part in rest if isinstance(part, int) and part >= 0]
    pieces = sum(_count(subject, part) for part in separators) if separators else len(subject) // 2
    return _pieces(subject, 1 + min([pieces, *counts]), 2 * search(subject, "".join(separators)))


def _pieces(subject: str, pieces: int, work: int) -> Cost:
    """Of a text that becomes so many."""
    nanoseconds, bytes = _piece(subject)
    made = size(subject) + pieces * bytes
    return Cost(work + pieces * nanoseconds, made, made)


def _piece(subject: str) -> tuple[int, int]:
    """Nanoseconds to find out whose a piece of a text is, and bytes that it takes."""
    if not isinstance(subject, Written):
        return 60, _PIECE
    return (800, 2 * _PIECE) if is_whole(subject) else (_FOLLOWED, _WRITTEN_PIECE)


def _split_last(budget: Budget, given: Sequence[Any]) -> Cost:
    cost, separators = _split(budget, given), [part for part in given[1:] if isinstance(part, str)]
    return cost._replace(work=cost.work + length(given[0]) * sum(map(len, separators)))


def _count(subject: str, part: str) -> int:
    """Occurrences, where counting is no work itself."""
    return subject.count(part) if part and search(subject, part) < MAX_VALUE * 2 else len(subject) + 1


def _lines(subject: str) -> int:
    return 1 + sum(map(subject.count, _BREAKS))


def _splitlines(budget: Budget, given: Sequence[Any]) -> Cost:
    return _pieces(given[0], _lines(given[0]), len(given[0]) * 12)


def _indent(budget: Budget, given: Sequence[Any]) -> Cost:
    if not isinstance(given[0], str):
        raise TypeError("indent wants a text")
    width = max([8, *(size(one) if isinstance(one, str) else number("indent", one) for one in given[1:])])
    lines = _lines(given[0]) + given[0].count("\t")
    return Cost(len(given[0]) * 12 + lines * 300, 4 * size(given[0]) + lines * (4 * width + _PIECE))


def _pad(budget: Budget, given: Sequence[Any]) -> Cost:
    bytes = size(given[0]) + 4 * sum(number("a width", one) for one in given[1:])
    return Cost(bytes, bytes)


def _replace(budget: Budget, given: Sequence[Any]) -> Cost:
    """Either argument may be the new text, where they are given by name."""
    subject, parts = given[0], given[1:3]
    if not all(isinstance(text, str) for text in (subject, *parts)):
        made = written(budget, subject) * (1 + sum(written(budget, part) for part in parts))
        return Cost(made, made)
    if len(parts) < 2:
        return Cost()
    counts = [_count(subject, old) for old in parts]
    grown = max(counts[0] * len(parts[1]), counts[1] * len(parts[0]))
    made = (len(subject) + grown) * (1 if all(map(str.isascii, (subject, *parts))) else 4)
    work = sum(search(subject, part) for part in parts) + made + max(counts) * _FOLLOWED
    return Cost(work, made + max(counts) * (_WRITTEN_PIECE if isinstance(subject, Written) else 2 * _PIECE))


def _join(budget: Budget, given: Sequence[Any]) -> Cost:
    """`items|join(separator)`; what is no text is written out."""
    items, *others = given
    extent = budget.measure(items)
    wide = extent.wide or any(isinstance(text, str) and not text.isascii() for text in others)
    plain = isinstance(items, str) or (isinstance(items, list | tuple) and all(isinstance(one, str) for one in items))
    letters = extent.chars if plain else extent.chars * 10 + extent.items * 32
    letters += length(items) * sum(written(budget, text) for text in others)
    made = letters * (4 if wide else 1)
    return Cost(extent.work + made + length(items) * _FOLLOWED // 2, made + length(items) * _WRITTEN_PIECE)


def _join_method(budget: Budget, given: Sequence[Any]) -> Cost:
    return _join(budget, given[1::-1])


def format_cost(budget: Budget, pattern: str, values: Sequence[Any]) -> Cost:
    """`pattern % values`. Fields are read as CPython reads them, or refused."""
    if pattern.count("%") > MAX_FIELDS or len(pattern) > MAX_PATTERN:
        raise LimitError("the chat template formats too long a pattern")
    written_out = max((budget.measure(value).written for value in values), default=0)
    plain = max((written(budget, value) for value in values), default=0)
    total = size(pattern)
    for field in _FIELD.finditer(pattern):
        width, digits, kind = field.groups(default="")
        if any(one == "*" or len(one) > 9 or int(one or 0) > MAX_WIDTH for one in (width, digits)) or kind == "(":
            raise LimitError(f"the chat template formats a field that is too wide: {field.group()[:40]}")
        total += 2 * MAX_WIDTH + (plain if kind == "s" else written_out)
    wide = not all(text.isascii() for text in (pattern, *values) if isinstance(text, str))
    return Cost(total, total * (4 if wide else 1))


def _percent(budget: Budget, given: Sequence[Any]) -> Cost:
    if not isinstance(given[0], str):
        raise TypeError("format wants a text")
    return format_cost(budget, given[0], given[1:])


def _json(budget: Budget, given: Sequence[Any]) -> Cost:
    extent = budget.measure(given[0])
    options = [one for one in given[1:] if isinstance(one, str | int | float) and not isinstance(one, bool)]
    numbers = [number("tojson", one, 100) for one in options]
    texts = [size(text) for one in given[1:] for text in ([one] if isinstance(one, str) else _texts(one))]
    extra = sum(numbers) * extent.depth + sum(texts) * (1 + extent.depth)
    work = extent.chars * 4 + extent.items * (2_000 if options else 100)  # lines are written in Python
    return Cost(work * 2, extent.written + extent.items * (_PIECE + extra * (4 if extent.wide or texts else 1)))


def _texts(value: object) -> Iterable[str]:
    return (text for text in value if isinstance(text, str)) if isinstance(value, list | tuple) else ()


def _check_attribute(given: Sequence[Any], places: slice) -> None:
    for one in given[places]:
        if isinstance(one, str) and len(one) > _ATTRIBUTE:
            raise LimitError(f"the chat template names an attribute of {len(one)} characters")


def _sort(budget: Budget, given: Sequence[Any]) -> Cost:
    """Keys are made for each item, in Python."""
    _check_attribute(given, slice(1, None))
    extent = budget.measure(given[0])
    items = length(given[0])
    keys = extent.chars * (16 if extent.wide else 1) + items * 800
    return Cost(items * 3_000 + extent.work * (2 + int(math.log2(items + 1))), keys, keys // 2)


def _lazy(budget: Budget, given: Sequence[Any]) -> Cost:
    """Items are counted as they come; what is named must be short."""
    _check_attribute(given, slice(1, 2))
    return Cost()


def _lazy_attribute(budget: Budget, given: Sequence[Any]) -> Cost:
    _check_attribute(given, slice(1, 3))
    return Cost()


def _list(budget: Budget, given: Sequence[Any]) -> Cost:
    subject = given[0]
    each = 8 if isinstance(subject, list | tuple) or (isinstance(subject, str) and subject.isascii()) else _PIECE
    work, each = _piece(subject) if isinstance(subject, Written) else (30, each)
    return Cost(length(subject) * work, length(subject) * each, length(subject) * each)


def _change(budget: Budget, given: Sequence[Any]) -> Cost:
    """A value more or less in a list of the template's own: none that could hold the list."""
    if not all(isinstance(value, str | int | float | NoneType) for value in given[1:]):
        raise LimitError("the chat template appends what is no text or number")
    return Cost(length(given[0]), makes=100)


def _number(budget: Budget, given: Sequence[Any]) -> Cost:
    if not isinstance(given[0], int | float):
        raise TypeError("a number is wanted")
    return Cost(sum(number("a number's filter", one, 400) for one in given[1:]))


def _numbers(budget: Budget, given: Sequence[Any]) -> Cost:
    if not all(isinstance(value, int | float) for value in given):
        raise TypeError("a number is wanted")
    return Cost()


def _key(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(sum(budget.measure(key).work for key in given[1:2]))


def _reading(budget: Budget, given: Sequence[Any]) -> Cost:
    """A number out of a text; where it is none, an error holds the text, escaped."""
    return Cost(length(given[0]) * 30, 10 * written(budget, given[0]))


def _escaped(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(6 * written(budget, given[0]), 6 * written(budget, given[0]))


def _words(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(100 * written(budget, given[0]), 60 * written(budget, given[0]))


def _quoted(budget: Budget, given: Sequence[Any]) -> Cost:
    bytes = written(budget, given[0]) * 4
    return Cost(150 * bytes, 20 * bytes)


def _contains(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(sum(membership(budget, given[0], whole) for whole in given[1:]))


def _index(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(sum(membership(budget, part, given[0]) for part in given[1:2]))


def _equals(budget: Budget, given: Sequence[Any]) -> Cost:
    return Cost(sum(equality(budget, given[0], other) for other in given[1:]))


def _names(names: str, estimate: Estimate) -> dict[str, Estimate]:
    return dict.fromkeys(names.split(), estimate)


METHODS: Mapping[type, Mapping[str, Estimate]] = {
    str: {
        **_names("capitalize casefold lower upper swapcase title", _case),
        **_names("strip lstrip rstrip", _strip),
        **_names("removeprefix removesuffix startswith endswith", _walk),
        **_names("find index count", _find), **_names("rfind rindex", _find_last),
        "split": _split, "rsplit": _split_last, **_names("partition rpartition", _partition), "splitlines": _splitlines,
        "join": _join_method, "replace": _replace, **_names("format format_map", _free),  # counted field by field
        **_names("ljust rjust center zfill", _pad), "expandtabs": _indent,
        **_names("isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle "
                 "isupper", _walk),
    },
    list: {**_names("index count", _index), "copy": _list, **_names("append pop", _change)},
    tuple: _names("index count", _index),
    dict: {"get": _key, **_names("items keys values", _free), "copy": _list},
}  # fmt: skip

FILTERS: Mapping[str, Estimate] = {
    **_names("default d items first last length count reverse", _free),
    **_names("string trim safe truncate attr", _strip), **_names("capitalize lower upper", _case), "title": _title,
    **_names("abs round", _number), **_names("int float", _reading), **_names("escape e forceescape", _escaped),
    "replace": _replace, "join": _join, "format": _percent, "indent": _indent, "tojson": _json, "list": _list,
    **_names("sort dictsort min max groupby", _sort), **_names("map selectattr rejectattr unique", _lazy_attribute),
    **_names("select reject", _lazy), "wordcount": _words, "urlencode": _quoted,
}  # fmt: skip

TESTS: Mapping[str, Estimate] = {
    **_names("odd even divisibleby", _numbers), **_names("lower upper filter test", _walk), "in": _contains,
    **_names("== eq equalto != ne > gt greaterthan ge >= < lt lessthan <= le", _equals),
}  # fmt: skip

# Filters that need to know how long a lazy sequence is.
SETTLING = frozenset(("sort", "dictsort", "join", "list", "min", "max", "groupby"))
