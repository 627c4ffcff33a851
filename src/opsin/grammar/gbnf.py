"""GBNF, llama.cpp's notation of grammars, read and written as Lark.

A rule that leads to no rule again is a regular expression: it becomes one lexeme, which is quick. What recursion is
left is made of the longest such parts between its references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from opsin.errors import RequestError
from opsin.grammar.form import Special, lark, literal

MAX_NESTING: Final = 64
MAX_REPEATS: Final = 4  # of one part
MAX_COUNT: Final = 10_000
MAX_SIZE: Final = 1_000_000  # literals and sets of a rule without recursion, written out
_WORD = re.compile(
    r"""(?P<space>(?:[ \t\r\n]|\#[^\r\n]*)+)
    |(?P<rule>[\w-]+)[ \t]*::=
    |(?P<name>[\w-]+)
    |"(?P<text>(?:[^"\\]|\\.)*)"
    |\[(?P<set>(?:[^\]\\]|\\.)*)\]
    |(?P<token>!?<(?:\[\d+\]|[^\[>\s][^>\s]*)>)
    |(?P<count>\{\s*(?P<low>\d*)\s*(?P<comma>,?)\s*(?P<high>\d*)\s*\})
    |(?P<mark>[()|*+?.])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|([^\\])", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_COUNTS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


@dataclass(frozen=True)
class _Lexeme:
    """A literal or a set of characters, as Lark writes it."""

    text: str


@dataclass(frozen=True)
class _Token:
    """One token, or any but it: by its id, or by its text."""

    id: int | None
    text: str
    is_other: bool


@dataclass(frozen=True)
class _Name:
    """Another rule."""

    name: str


@dataclass(frozen=True)
class _Repeat:
    """Something so often; `high` None for no end."""

    part: _Node
    low: int
    high: int | None


@dataclass(frozen=True)
class _Choice:
    """One of some rows of parts."""

    rows: tuple[tuple[_Node, ...], ...]


_Node = _Lexeme | _Token | _Name | _Repeat | _Choice


class Gbnf:
    """A grammar in GBNF. Raises RequestError where it is none."""

    def __init__(self, text: str) -> None:
        self._rules = _Reader(text).rules()
        if "root" not in self._rules:
            raise RequestError("the grammar has no rule root", hint='give one, as root ::= "yes" | "no"')
        self._numbers = {name: number for number, name in enumerate(self._rules)}
        self._regular = self._find_regular()

    def source(self, special: Special) -> str:
        """The same in Lark."""
        return lark(_Writer(self._rules, self._numbers, self._regular, special).text())

    def _find_regular(self) -> frozenset[str]:
        """Names of rules that lead to no recursion and no token."""
        users: dict[str, list[str]] = {name: [] for name in self._rules}
        open_names, ready = {}, []
        for name, rule in self._rules.items():
            names, has_token = set[str](), False
            for node in _walk(rule):
                has_token |= isinstance(node, _Token)
                if isinstance(node, _Name):
                    if node.name not in self._rules:
                        raise RequestError(f"the grammar has no rule {node.name!r:.60}, which {name!r:.60} names")
                    names.add(node.name)
            for used in names:
                users[used].append(name)
            open_names[name] = len(names) + has_token
            if not open_names[name]:
                ready.append(name)
        regular, sizes = set(ready), dict[str, int]()
        while ready:
            name = ready.pop()
            sizes[name] = _size(self._rules[name], sizes)
            if sizes[name] > MAX_SIZE:
                raise RequestError(f"the rule {name!r:.60} is too large, written out", hint="give a simpler one")
            for user in users[name]:
                open_names[user] -= 1
                if not open_names[user]:
                    regular.add(user)
                    ready.append(user)
        return frozenset(regular)


def _walk(node: _Node) -> Iterator[_Node]:
    yield node
    if isinstance(node, _Repeat):
        yield from _walk(node.part)
    elif isinstance(node, _Choice):
        for row in node.rows:
            for part in row:
                yield from _walk(part)


def _size(node: _Node, sizes: Mapping[str, int]) -> int:
    """Lexemes of a regular node, written out."""
    if isinstance(node, _Name):
        return sizes[node.name]
    if isinstance(node, _Repeat):
        return _size(node.part, sizes) * max(1, node.low, node.high or 0)
    if isinstance(node, _Choice):
        return sum(_size(part, sizes) for row in node.rows for part in row)
    return 1


class _Reader:
    """Reads a text from front to back."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0
        self._word: re.Match[str] | None = None
        self._step()

    def rules(self) -> dict[str, _Choice]:
        found: dict[str, _Choice] = {}
        while self._word is not None:
            if self._word.lastgroup != "rule":
                raise self._wrong("a rule was expected, as name ::= ...")
            name = self._word["rule"]
            self._step()
            found[name] = self._choice(MAX_NESTING)
        return found

    def _step(self) -> None:
        """To the next word that is no space."""
        while True:
            self._start = self._place
            self._word = _WORD.match(self._text, self._place)
            if self._word is None:
                if self._place < len(self._text):
                    raise self._wrong("nothing of a grammar begins here")
                return
            self._place = self._word.end()
            if self._word.lastgroup != "space":
                return

    def _wrong(self, what: str) -> RequestError:
        line = self._text.count("\n", 0, self._start) + 1
        return RequestError(f"the grammar, line {line}, at {self._text[self._start :][:20]!r}: {what}")

    def _is(self, mark: str) -> bool:
        return self._word is not None and self._word["mark"] == mark

    def _choice(self, nesting: int) -> _Choice:
        if nesting == 0:
            raise self._wrong(f"groups nest deeper than {MAX_NESTING}")
        rows = [self._row(nesting)]
        while self._is("|"):
            self._step()
            rows.append(self._row(nesting))
        return _Choice(tuple(rows))

    def _row(self, nesting: int) -> tuple[_Node, ...]:
        row: list[_Node] = []
        while (part := self._part(nesting)) is not None:
            depth = 0
            while (counts := self._counts()) is not None:
                part, depth = _Repeat(part, *counts), depth + 1
                if depth > MAX_REPEATS:
                    raise self._wrong(f"repeats of repeats nest deeper than {MAX_REPEATS}")
            row.append(part)
        return tuple(row)

    def _part(self, nesting: int) -> _Node | None:
        word = self._word
        if word is None or word.lastgroup == "rule":
            return None
        part: _Node
        if word["text"] is not None:
            part = _Lexeme(literal("".join(map(chr, self._characters(word["text"])))))
        elif word["set"] is not None:
            part = _Lexeme(self._set(word["set"]))
        elif word["name"] is not None:
            part = _Name(word["name"])
        elif word["token"] is not None:
            part = _token(word["token"])
        elif word["mark"] == ".":
            part = _Lexeme("/(?s:.)/")
        elif word["mark"] == "(":
            self._step()
            part = self._choice(nesting - 1)
            if not self._is(")"):
                raise self._wrong("a group does not end: ) was expected")
        elif word["mark"] in ("|", ")"):
            return None
        else:
            raise self._wrong("there is nothing to repeat")
        self._step()
        return part

    def _counts(self) -> tuple[int, int | None] | None:
        word = self._word
        if word is None or (word["count"] is None and word["mark"] not in _COUNTS):
            return None
        low: int
        high: int | None
        if word["count"] is None:
            low, high = _COUNTS[word["mark"]]
        else:
            if not word["low"] and not word["high"]:
                raise self._wrong("a count has no number")
            if max(len(word["low"]), len(word["high"])) > 5:
                raise self._wrong(f"a count is larger than {MAX_COUNT}")
            low = int(word["low"] or 0)
            high = int(word["high"]) if word["high"] else None if word["comma"] else low
        if max(low, high or 0) > MAX_COUNT or (high is not None and high < low):
            raise self._wrong(f"counts must rise, up to {MAX_COUNT}")
        self._step()
        return low, high

    def _characters(self, text: str) -> Iterator[int]:
        """Code points of a literal or of a set, escapes undone."""
        place = 0
        while place < len(text):
            found = _ESCAPE.match(text, place)
            if found is None:
                raise self._wrong("an escape is cut off")
            place = found.end()
            digits, letter, plain = found[1] or found[2] or found[3], found[4], found[5]
            if letter is not None and letter not in _ESCAPED:
                raise self._wrong(f"\\{letter} is no escape")
            code = int(digits, 16) if digits else ord(_ESCAPED[letter] if letter else plain)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise self._wrong(f"{code:#x} is no character")
            yield code

    def _set(self, text: str) -> str:
        """A set of characters as a regular expression; `-` first, last or escaped is itself."""
        is_other = text.startswith("^")
        marks = _dashes(text[is_other:])
        codes = list(self._characters(text[is_other:]))
        parts, i = [], 0
        while i < len(codes):
            if i + 2 < len(codes) and marks[i + 1]:
                if codes[i + 2] < codes[i]:
                    raise self._wrong(f"the range {chr(codes[i])}-{chr(codes[i + 2])} falls")
                parts.append(rf"\u{{{codes[i]:X}}}-\u{{{codes[i + 2]:X}}}")
                i += 3
            else:
                parts.append(rf"\u{{{codes[i]:X}}}")
                i += 1
        if not parts:
            raise self._wrong("a set of characters is empty")
        return f"/[{'^' if is_other else ''}{''.join(parts)}]/"


def _dashes(text: str) -> list[bool]:
    """Which characters of a set are a `-` that is not escaped."""
    return [found[0] == "-" for found in _ESCAPE.finditer(text)]


def _token(word: str) -> _Token:
    is_other = word.startswith("!")
    inner = word[is_other:]
    if inner.startswith("<["):
        return _Token(int(inner[2:-2][:10]), inner, is_other)
    return _Token(None, inner, is_other)


class _Writer:
    """Writes rules as Lark: regular ones as lexemes `T1`, others as rules `r1`."""

    def __init__(
        self, rules: dict[str, _Choice], numbers: dict[str, int], regular: frozenset[str], special: Special
    ) -> None:  # fmt: skip
        self._rules, self._numbers, self._regular, self._special = rules, numbers, regular, special
        self._lines: list[str] = []
        self._lexemes = 0

    def text(self) -> str:
        self._lines.append(f"start: {self._name('root')}")
        for name, rule in self._rules.items():
            body = self._lexeme(rule) if name in self._regular else self._rule(rule)
            self._lines.append(f"{self._name(name)}: {body}")
        return "\n".join(self._lines)

    def _name(self, name: str) -> str:
        return f"{'T' if name in self._regular else 'r'}{self._numbers[name]}"

    def _is_regular(self, node: _Node) -> bool:
        return all(
            not isinstance(part, _Token) and (not isinstance(part, _Name) or part.name in self._regular)
            for part in _walk(node)
        )

    def _lexeme(self, node: _Node) -> str:
        """A regular node, inside a lexeme."""
        if isinstance(node, _Lexeme):
            return node.text
        if isinstance(node, _Name):
            return self._name(node.name)
        if isinstance(node, _Repeat):
            return _repeated(self._lexeme(node.part), node)
        assert isinstance(node, _Choice)
        return _joined([" ".join(map(self._lexeme, row)) for row in node.rows])

    def _rule(self, node: _Node) -> str:
        """A node, inside a rule."""
        if self._is_regular(node):
            return self._new_lexeme(self._lexeme(node))
        if isinstance(node, _Token):
            return self._token(node)
        if isinstance(node, _Name):
            return self._name(node.name)
        if isinstance(node, _Repeat):
            return _repeated(self._rule(node.part), node)
        assert isinstance(node, _Choice)
        return _joined([self._row(row) for row in node.rows])

    def _row(self, row: tuple[_Node, ...]) -> str:
        """Parts of a row; regular ones that stand together are one lexeme."""
        parts, run = [], list[_Node]()
        for node in row:
            if self._is_regular(node):
                run.append(node)
                continue
            parts += [*self._run(run), self._rule(node)]
            run = []
        return " ".join([*parts, *self._run(run)])

    def _run(self, run: list[_Node]) -> list[str]:
        return [self._new_lexeme(" ".join(map(self._lexeme, run)))] if run else []

    def _new_lexeme(self, text: str) -> str:
        self._lexemes += 1
        self._lines.append(f"X{self._lexemes}: {text}")
        return f"X{self._lexemes}"

    def _token(self, token: _Token) -> str:
        id = token.id
        if id is None:
            found = self._special.split(token.text)
            if len(found) != 1 or not isinstance(found[0], int):
                raise RequestError(f"the grammar names {token.text!r:.60}, which is no special token of this model")
            id = found[0]
        if token.is_other:
            return f"<[^{','.join(map(str, sorted({id, *self._special.ends})))}]>"
        return f"<[{id}]>"


def _joined(rows: list[str]) -> str:
    return f"({' | '.join(row or literal('') for row in rows)})"


def _repeated(text: str, repeat: _Repeat) -> str:
    if repeat.high == 0:
        return literal("")
    high = "" if repeat.high is None else str(repeat.high)
    return f"({text}){{{repeat.low},{high}}}"
