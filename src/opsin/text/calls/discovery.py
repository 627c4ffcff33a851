"""Finds how a template writes calls of tools: conversations that differ in one thing are rendered and compared.

A turn with one call shows what stands before and behind it; one with two what stands between; others what belongs to
the arguments. Texts are compared piece by piece, so that no marker is cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from opsin.text.calls.shapes import (
    ID,
    KEY,
    NUMBER,
    CallBody,
    CallShape,
    Frame,
    JsonCall,
    Kinds,
    ListedCall,
    NamedCall,
    TaggedCall,
)
from opsin.text.calls.thoughts import Turn
from opsin.text.calls.trials import ANSWER, KEYS, NAMES, THINK, VALUES, Message, Trial, tools, turn_of
from opsin.text.capabilities import Calls
from opsin.text.vocabulary import END_TEXTS

_PIECES = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]|\s+|\w+|.", re.DOTALL)
_IDS = ("id0000001", "id0000002")
_NUMBER = 7
_MARKUP = "a<b>\nc"


@dataclass(frozen=True)
class Sample:
    """A rendered turn with calls, as the text before the first name, and behind it."""

    text: str
    before: str
    behind: str


class Discovery:
    """What one template shows."""

    def __init__(self, trial: Trial, can: Calls, turn: Turn) -> None:
        self._trial, self._can, self._turn = trial, can, turn
        self._plain = turn_of(trial, {"role": "assistant", "content": ANSWER}, THINK, tools()).partition(ANSWER)[2]

    def find(self) -> CallShape | None:
        """The shape, or None where nothing of the known kinds is to be seen."""
        one = self._sample(_call(0, {KEYS[0]: VALUES[0]}))
        if one is None:
            return None
        several = self._sample(_call(0, {KEYS[0]: VALUES[0]}), _call(1, {KEYS[0]: VALUES[1]}))
        found = _find_json(one, several) or _find_named(one, several)
        return found or self._find_tagged(one, several)

    def _sample(self, *calls: Message) -> Sample | None:
        made = [self._written(one) for one in calls]
        message = {"role": "assistant", "content": self._can.content, "tool_calls": made}
        text = turn_of(self._trial, message, THINK, tools())
        if any(name not in text for name in NAMES[: len(made)]):
            return None
        text = self._without_ends(text)
        for id in _IDS:
            text = text.replace(id, ID) if f'"{id}"' not in text else text
        before, _, behind = text.partition(NAMES[0])
        return Sample(text, before, behind)

    def _written(self, call: Message) -> Message:
        """The call with its arguments as the template takes them."""
        function = dict(call["function"])  # type: ignore[call-overload]
        if not self._can.mappings:
            function["arguments"] = json.dumps(function["arguments"])
        return {**call, "function": function}

    def _without_ends(self, text: str) -> str:
        """A turn without what opens it, what closes thoughts and an answer in it, and what ends it."""
        if self._turn.opener and self._turn.opener in text:
            text = text[text.index(self._turn.opener) + len(self._turn.opener) :]
        around = [one for one in (self._turn.thoughts, self._turn.answer) if one is not None]
        for marker in [marker for one in around for marker in (one.open, one.close) if marker]:
            head = text.lstrip()
            text = head.removeprefix(marker) if head.startswith(marker) else text
        text, plain = text.rstrip(), self._plain.rstrip()
        text = text.removesuffix(_common_end(text, plain)).rstrip()
        for end in END_TEXTS:
            text = text.removesuffix(end).rstrip()
        return text

    def _find_tagged(self, one: Sample, several: Sample | None) -> CallShape | None:
        """Arguments between tags, or in Python's calls."""
        both = self._sample(_call(0, dict(zip(KEYS, VALUES, strict=True))))
        number = self._sample(_call(0, {KEYS[0]: _NUMBER}))
        if both is None or KEYS[0] not in one.behind or VALUES[0] not in one.behind:
            return None
        first, key_close, end = _cut(one.behind, KEYS[0], VALUES[0])
        middle = _cut(both.behind, VALUES[0], KEYS[1])[1].replace(KEYS[0], KEY)
        end = end.replace(KEYS[0], KEY)
        open = _common_end(first, middle)
        name_close = first[: len(first) - len(open)]
        if name_close.strip() == "(" and key_close.lstrip().startswith("="):
            return CallShape(Frame(one.before.lstrip(), "", ")", ", ", end.partition(")")[2]), ListedCall())
        middle = middle[: len(middle) - len(open)]
        close = _common_start(end, middle)
        between = middle[len(close) :]
        kinds = self._kinds(key_close, number)
        if not close.strip() or not name_close.strip() + open.strip():
            return None
        behind = end[len(close) :]
        cdata = self._sample(_call(0, {KEYS[0]: _MARKUP}))
        is_marked = cdata is not None and f"<![CDATA[{_MARKUP}]]>" in cdata.text
        gap = _cut(several.text, VALUES[0], NAMES[1])[1].replace(KEYS[0], KEY)[len(close) :] if several else None
        name_close = _numbered(name_close, several)
        body = TaggedCall(name_close, open, key_close, close, between, kinds, is_marked)
        return _shape(one.before, gap, behind, body)

    def _kinds(self, key_close: str, number: Sample | None) -> Kinds | None:
        """How a key tells the kind of its value, if it does."""
        if number is None or str(_NUMBER) not in number.behind or KEYS[0] not in number.behind:
            return None
        other = _cut(number.behind, KEYS[0], str(_NUMBER))[1]
        if other == key_close:
            return None
        before, after = _common_start(key_close, other), _common_end(key_close, other)
        text = key_close[len(before) : len(key_close) - len(after)]
        return Kinds(before, text, other[len(before) : len(other) - len(after)], after)


def _call(number: int, arguments: Mapping[str, object]) -> Message:
    function = {"name": NAMES[number], "arguments": arguments}
    return {"id": _IDS[number], "type": "function", "function": function}


def _find_json(one: Sample, several: Sample | None) -> CallShape | None:
    """A call that is an object, with its name in it."""
    found = _object_around(one.text, NAMES[0])
    if found is None:
        return None
    start, end, value = found
    body = _json_body(value)
    if body is None:
        return None
    gap = None
    if several is not None and (second := _object_around(several.text, NAMES[1])) is not None:
        first = _object_around(several.text, NAMES[0])
        gap = several.text[first[1] : second[0]] if first is not None else None
    return _shape(one.text[:start], gap, one.text[end:], body)


def _object_around(text: str, name: str) -> tuple[int, int, dict[str, object]] | None:
    """The widest object with a name in it: where it begins and ends."""
    place = text.find(f'"{name}"')
    for start in [found.start() for found in re.finditer(r"\{", text[: max(place, 0)])]:
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if end > place:
            return start, end, value
    return None


def _json_body(value: dict[str, object]) -> JsonCall | None:
    holder = None
    if NAMES[0] in value:
        return JsonCall(None, keys=())
    inner = next((key for key, one in value.items() if isinstance(one, dict) and NAMES[0] in one.values()), None)
    if inner is not None:
        holder, value = inner, value[inner]  # type: ignore[assignment]
    name = next((key for key, one in value.items() if one == NAMES[0]), None)
    arguments = next((key for key, one in value.items() if one in _ARGUMENTS), None)
    if name is None or arguments is None:
        return None
    id = next((key for key, one in value.items() if one == _IDS[0] or (key.endswith("id") and one in ("0", "1"))), None)
    told = {name, arguments, id}
    constants = tuple((key, json.dumps(one)) for key, one in value.items() if key not in told)
    return JsonCall(name, arguments, id, holder, tuple(value), constants)


_ARGUMENTS: tuple[object, ...] = ({KEYS[0]: VALUES[0]}, json.dumps({KEYS[0]: VALUES[0]}))


def _find_named(one: Sample, several: Sample | None) -> CallShape | None:
    """A name, and JSON behind it."""
    place = one.behind.find("{")
    end = _end_of_arguments(one.behind, place)
    if end is None:
        return None
    gap = None
    if several is not None:
        gap = several.behind[end:].partition(NAMES[1])[0]
    return _shape(one.before, gap, one.behind[end:], NamedCall(_numbered(one.behind[:place], several)))


def _end_of_arguments(text: str, place: int) -> int | None:
    if place < 0:
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(text, place)
    except (ValueError, RecursionError):
        return None
    return end if value in _ARGUMENTS else None


def _numbered(close: str, several: Sample | None) -> str:
    """What stands behind a name, with NUMBER where calls are counted."""
    if several is None or not re.search(r"\d", close):
        return close
    behind = several.text.partition(NAMES[1])[2]
    pattern = re.escape(re.sub(r"\d+", NUMBER, close)).replace(re.escape(NUMBER), r"\d+")
    return re.sub(r"\d+", NUMBER, close) if re.match(pattern, behind) and not behind.startswith(close) else close


def _shape(before: str, gap: str | None, behind: str, body: CallBody) -> CallShape:
    """What stands before the first call, between two, and behind the last, as what is each call's and the section's."""
    if gap is None:
        return CallShape(Frame("", before.lstrip(), behind, several=False), body)
    open = _common_end(before, gap)
    gap = gap[: len(gap) - len(open)]
    close = _common_start(behind, gap)
    section = before[: len(before) - len(open)].lstrip()
    between, space = gap[len(close) :], "" if section else open[: len(open) - len(open.lstrip())]
    return CallShape(Frame(section, open[len(space) :], close, between + space, behind[len(close) :].rstrip()), body)


def _cut(text: str, first: str, second: str) -> tuple[str, str, str]:
    """What stands before, between and behind two words."""
    before, _, rest = text.partition(first)
    between, _, behind = rest.partition(second)
    return before, between, behind


def _common_start(one: str, other: str) -> str:
    pieces = []
    for left, right in zip(_PIECES.findall(one), _PIECES.findall(other), strict=False):
        if left != right:
            break
        pieces.append(left)
    return "".join(pieces)


def _common_end(one: str, other: str) -> str:
    pieces: list[str] = []
    for left, right in zip(_PIECES.findall(one)[::-1], _PIECES.findall(other)[::-1], strict=False):
        if left != right:
            break
        pieces.insert(0, left)
    return "".join(pieces)


def bare(shape: CallShape) -> CallShape:
    """A shape without a marker: models separate such calls by semicolons."""
    is_bare = not shape.frame.opening.strip()
    return replace(shape, frame=replace(shape.frame, between=";", call_open="")) if is_bare else shape


def find_calls(trial: Trial, can: Calls | None, turn: Turn) -> CallShape | None:
    """How calls are written, as far as a template shows it."""
    found = Discovery(trial, can, turn).find() if can is not None else None
    return bare(found) if found is not None else None


def shows_tools(trial: Trial, shown: Sequence[Message]) -> bool:
    """Whether a template tells a model of the tools that it is given."""
    message = {"role": "user", "content": "Hi"}
    return NAMES[0] in trial([message], add_generation_prompt=True, tools=shown)
