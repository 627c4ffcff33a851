"""Tools for a template that tells a model of none: a plain text in the system's message says what there is.

What people and their tools say in it stays theirs: none of it becomes a special token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from opsin.text.calls.shapes import ID, KEY, NUMBER, CallShape, JsonCall, ListedCall, NamedCall, TaggedCall
from opsin.text.origin import Written, join

Message = Mapping[str, object]

_ARGUMENTS = '{"ARGUMENT": "VALUE"}'
_ABOUT = """You can call functions. These are there, as JSON, one a line:
<tools>
"""
_HOW = """
</tools>
Where a function helps, write a call of it in exactly this form, with its name and its arguments, and nothing behind it:
"""
_THEN = "\nIts result comes back to you. Where no function is needed, answer without one."


def introduced(messages: Sequence[Message], tools: Sequence[Message], shape: CallShape) -> list[Message]:
    """The same conversation, whose system says what tools there are and how they are called."""
    told = Written("\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools))
    text = join("", [_ABOUT, told, _HOW, example(shape), _THEN])
    if not messages or messages[0].get("role") not in ("system", "developer"):
        return [{"role": "system", "content": text}, *messages]
    first, content = messages[0], messages[0].get("content")
    if isinstance(content, list):
        return [{**first, "content": [*content, {"type": "text", "text": text}]}, *messages[1:]]
    return [{**first, "content": join("\n\n", [str(content or ""), text])}, *messages[1:]]


def example(shape: CallShape) -> str:
    """A call in this shape, with words in capitals where something else stands."""
    frame = shape.frame
    text = frame.opening + _example_of(shape) + frame.call_close + frame.section_close
    return text.replace(ID, "ID").replace(NUMBER, "0").replace(KEY, "ARGUMENT").strip()


def _example_of(shape: CallShape) -> str:
    body = shape.body
    if isinstance(body, ListedCall):
        return 'NAME(ARGUMENT="VALUE"'
    if isinstance(body, NamedCall):
        return f"NAME{body.name_close}{_ARGUMENTS}"
    if isinstance(body, TaggedCall):
        return f"NAME{body.name_close}{body.open}ARGUMENT{body.key_close}VALUE{body.close}"
    return _example_object(body)


def _example_object(body: JsonCall) -> str:
    if body.name_key is None:
        return f'{{"NAME": {_ARGUMENTS}}}'
    constants = dict(body.constants)
    known = {body.name_key: '"NAME"', body.arguments_key: _ARGUMENTS}
    inner = ", ".join(
        f'"{key}": {known.get(key) or constants.get(key) or chr(34) + "ID" + chr(34)}' for key in body.keys
    )
    return f"{{{inner}}}" if body.holder is None else f'{{"type": "function", "{body.holder}": {{{inner}}}}}'
