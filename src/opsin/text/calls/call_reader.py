"""Reads calls of tools out of a reply while it comes, in any of the shapes.

A reader returns whether a call began. Once one began, its arguments are told as they come; before, nothing is, and
what was taken is part of the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count

from opsin.text.calls.arguments import as_json, escaped, read_text, read_value
from opsin.text.calls.deltas import CallArguments, CallStart, ReplyDelta
from opsin.text.calls.incoming import END, MAX_NAME, Incoming, Steps, atoms
from opsin.text.calls.schemas import ArgumentKind, argument_kinds
from opsin.text.calls.shapes import KEY, CallShape, JsonCall, Kinds, ListedCall, NamedCall, Notation, TaggedCall

Tools = Sequence[Mapping[str, object]]
Tell = Callable[[ReplyDelta], None]

_CDATA = "<![CDATA["
_NAME = re.compile(r"[\w.:/+-]")
_NUMBERED = re.compile(r"(?:functions\.)?(.+):\d+")
_NAME_KEYS = frozenset(("name", "tool_name"))
_ARGUMENT_KEYS = frozenset(("arguments", "parameters"))


class CallReader:
    """Reads calls of one shape. `tools` are those that there are, as OpenAI's clients write them."""

    def __init__(self, shape: CallShape, tools: Tools, incoming: Incoming, tell: Tell) -> None:
        self._shape, self._incoming, self._tell = shape, incoming, tell
        self._kinds = argument_kinds(tools)
        self._numbers = count()
        self._index = 0
        self.is_bare = not atoms(shape.frame.opening)
        self._names: Collection[str] | None = self._kinds if self.is_bare else None  # names that alone count

    @property
    def trigger(self) -> str:
        """What a call begins with; "" for calls without a marker, which only a whole reply can be."""
        return "" if self.is_bare else atoms(self._shape.frame.opening)[0]

    def read(self) -> Steps[str | None]:
        """Reads all calls that stand here. None where none does; else what stood behind them and is none."""
        frame = self._shape.frame
        self._incoming.record()
        if (yield from self._incoming.literal(atoms(frame.section_open))) is None:
            return None
        began = False
        while (yield from self._one()):
            began = True
            self._incoming.record()
            yield from self._incoming.literal(atoms(frame.between))
        if not began:
            return None
        left = self._incoming.recorded().strip()
        yield from self._incoming.close(frame.section_close)
        return "" if left == frame.between.strip() else left

    def _one(self) -> Steps[bool]:
        frame, body = self._shape.frame, self._shape.body
        opened = yield from self._incoming.literal(atoms(frame.call_open))
        if opened is None:
            return False
        id = opened[0] if opened else None
        if isinstance(body, JsonCall):
            began = yield from self._json(body)
        elif isinstance(body, NamedCall):
            began = yield from self._named(body, id)
        elif isinstance(body, TaggedCall):
            began = yield from self._tagged(body)
        else:
            began = yield from self._listed(body)
        if began:
            yield from self._incoming.close(frame.call_close)
        return began

    def _start(self, id: str | None, name: str) -> bool:
        """Begins a call, if this may be the name of one."""
        if not name or (self._names is not None and name not in self._names):
            return False
        self._incoming.recorded()
        self._index = next(self._numbers)
        self._tell(CallStart(self._index, id or None, name))
        return True

    def _give(self, text: str) -> None:
        self._tell(CallArguments(self._index, text))

    def _name(self) -> Steps[str]:
        yield from self._incoming.space()
        return (yield from self._incoming.run(_NAME, MAX_NAME))

    def _json(self, body: JsonCall) -> Steps[bool]:
        return (yield from JsonObject(body, self._incoming, self._start, self._give).read())

    def _named(self, body: NamedCall, id: str | None) -> Steps[bool]:
        name = yield from self._name()
        if body.numbered and (parts := _NUMBERED.fullmatch(name)):
            name, id = parts[1], name
        closed = yield from self._incoming.literal(atoms(body.name_close))
        yield from self._incoming.space()
        if closed is None or (yield from self._incoming.peek()) != "{":
            return False
        if not self._start(closed[0] if closed and id is None else id, name):
            return False
        yield from read_value(self._incoming, body.notation, self._give)
        return True

    def _listed(self, body: ListedCall) -> Steps[bool]:
        name = yield from self._name()
        if (yield from self._incoming.literal(atoms(body.name_close))) is None or not self._start(None, name):
            return False
        between = "{"
        while True:
            yield from self._incoming.space()
            letter = yield from self._incoming.peek()
            if letter == ",":
                self._incoming.take(1)
                continue
            key = yield from self._incoming.run(_NAME, MAX_NAME)
            if not key or (yield from self._incoming.literal(("=",))) is None:
                break
            self._give(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            if not (yield from read_value(self._incoming, Notation.PYTHON, self._give)):
                return True
        if letter == ")":
            self._give("{}" if between == "{" else "}")
        return True

    def _tagged(self, body: TaggedCall) -> Steps[bool]:
        name = yield from self._name()
        if (yield from self._incoming.literal(atoms(body.name_close))) is None or not self._start(None, name):
            return False
        between = "{"
        while (yield from self._incoming.literal(atoms(body.open))) is not None:
            key = yield from self._until(atoms(body.kinds.before if body.kinds else body.key_close)[0])
            self._give(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            kind = self._kinds.get(name, {}).get(key, ArgumentKind.TEXT)
            if body.kinds is not None:
                kind = yield from self._said_kind(body.kinds, kind)
            else:
                yield from self._incoming.literal(atoms(body.key_close))
            if not (yield from self._tagged_value(body, key, kind)):
                return True
            yield from self._incoming.literal(atoms(body.between))
        self._give("{}" if between == "{" else "}")
        return True

    def _until(self, stop: str) -> Steps[str]:
        found: list[str] = []
        yield from self._incoming.until((stop,), found.append)
        return "".join(found).strip()

    def _said_kind(self, kinds: Kinds, kind: ArgumentKind) -> Steps[ArgumentKind]:
        """The kind that stands behind a key."""
        if (yield from self._incoming.literal(atoms(kinds.before))) is None:
            return kind
        word = yield from self._until(atoms(kinds.after)[0])
        yield from self._incoming.literal(atoms(kinds.after))
        return ArgumentKind.TEXT if word == kinds.text else ArgumentKind.JSON

    def _tagged_value(self, body: TaggedCall, key: str, kind: ArgumentKind) -> Steps[bool]:
        """Reads a value and its end; whether it ended."""
        value = TaggedValue(body, self._shape.frame.call_close, key, self._incoming)
        if kind == ArgumentKind.TEXT:
            self._give('"')
            ended = yield from value.read(lambda text: self._give(escaped(text)))
            self._give('"' if ended else "")
            return ended
        found: list[str] = []
        ended = yield from value.read(found.append)
        text = "".join(found)
        if kind == ArgumentKind.TEXT_OR_NULL:
            self._give("null" if text == "null" else json.dumps(text, ensure_ascii=False))
        else:
            self._give(as_json(text) if ended or text.strip() else "")
        return ended


class TaggedValue:
    """A value between tags. A text may hold its own closing tag: it ends where another argument or the end follows."""

    def __init__(self, body: TaggedCall, call_close: str, key: str, incoming: Incoming) -> None:
        close = body.close.replace(KEY, key)
        tag = close.strip()
        self._incoming = incoming
        self._starts_line = (body.kinds.after if body.kinds else body.key_close).endswith("\n")
        self._stops = (f"\n{tag}", tag) if close.startswith("\n") else (tag,)
        end = atoms(call_close)
        self._cdata = body.cdata
        self._behind = (atoms(body.between + body.open), end, (*end[:1], END), (END,))

    def read(self, give: Callable[[str], None]) -> Steps[bool]:
        if self._starts_line and (yield from self._incoming.starts("\n")):
            self._incoming.take(1)
        if self._cdata and (yield from self._incoming.starts(_CDATA)):
            self._incoming.take(len(_CDATA))
            self._stops = (f"]]>{self._stops[-1]}",)
        while stop := (yield from self._incoming.until(self._stops, give)):
            text = self._incoming.take(len(stop))
            if (yield from self._is_end()):
                return True
            give(text)
        return False

    def _is_end(self) -> Steps[bool]:
        for parts in self._behind:
            if (yield from self._incoming.literal(parts, take=False)) is not None:
                return True
        return False


class JsonObject:
    """A call that is an object: its keys may come in any order, and others are left out."""

    def __init__(
        self, body: JsonCall, incoming: Incoming, start: Callable[[str | None, str], bool], give: Callable[[str], None]
    ) -> None:
        self._body, self._incoming = body, incoming
        self._start_call, self._give_arguments = start, give
        self._id: str | None = None
        self._name = ""
        self._began = self._told = False
        self._held: list[str] = []

    def read(self) -> Steps[bool]:
        """Reads it; whether a call began."""
        whole = yield from self._read()
        if whole and self._name and not self._began:
            self._begin()
        if self._began:
            self._release()
            if whole and not self._told:
                self._give_arguments("{}")
        return self._began

    def _read(self) -> Steps[bool]:
        depth = 0
        while True:
            yield from self._incoming.space()
            letter = yield from self._incoming.peek()
            if letter == "{" and not depth:
                depth = 1
            elif letter == "}" and depth:
                depth -= 1
                if not depth:
                    self._incoming.take(1)
                    return True
            elif letter != "," or not depth:
                if letter != '"' or not depth:
                    return False
                key = yield from self._string()
                if (yield from self._incoming.literal((":",))) is None:
                    return False
                yield from self._incoming.space()
                if key == self._body.holder and (yield from self._incoming.peek()) == "{":
                    depth += 1
                elif not (yield from self._value(key)):
                    return False
                else:
                    continue
            self._incoming.take(1)

    def _value(self, key: str) -> Steps[bool]:
        body = self._body
        if body.name_key is None:
            self._name = key
            return self._begin() and (yield from self._arguments())
        is_text = (yield from self._incoming.peek()) == '"'
        if is_text and (key == body.name_key or key in _NAME_KEYS) and not self._began:
            self._name = yield from self._string()
            return self._begin()
        if is_text and key == body.id_key and self._id is None:
            self._id = yield from self._string()
            return True
        if key == body.arguments_key or key in _ARGUMENT_KEYS:
            return (yield from self._arguments())
        return (yield from read_value(self._incoming, Notation.JSON, lambda text: None))

    def _begin(self) -> bool:
        self._began = self._start_call(self._id, self._name)
        if self._began:
            self._release()
        return self._began

    def _arguments(self) -> Steps[bool]:
        """An object; or, as some models write it, its JSON as a text."""
        if (yield from self._incoming.peek()) == '"':
            text = yield from self._string(most=None)
            self._tell(text)
            return True
        return (yield from read_value(self._incoming, Notation.JSON, self._tell))

    def _tell(self, text: str) -> None:
        self._told = self._told or bool(text)
        if self._began:
            self._give_arguments(text)
        else:
            self._held.append(text)

    def _release(self) -> None:
        for text in self._held:
            self._give_arguments(text)
        self._held.clear()

    def _string(self, most: int | None = MAX_NAME) -> Steps[str]:
        """A whole text; "" where it does not end or is longer."""
        made: list[str] = []
        ended = yield from read_text(self._incoming, '"', made.append)
        text: str = json.loads("".join(made)) if ended else ""
        return text if most is None or len(text) <= most else ""
