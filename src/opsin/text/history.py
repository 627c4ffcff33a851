"""Histories as OpenAI's clients write them, in the forms that a template takes.

What a template has no words for is written so that it still reads it: nothing of a conversation gets lost.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from opsin.errors import FieldError
from opsin.text.capabilities import Calls, Capabilities
from opsin.text.origin import Written, join, plain, written

Message = dict[str, Any]

_NINE_LETTERS = re.compile(r"[A-Za-z0-9]{9}")
# Another text beside one that stands for itself: a system message before a question, results of several tools.
_BETWEEN = "\n\n"


def fit(messages: Sequence[Mapping[str, object]], capabilities: Capabilities) -> list[Message]:
    """These messages as a template with these capabilities takes them.

    Raises RequestError, naming the message, for what cannot be written for it.
    """
    can = capabilities
    given = _named_results([dict(message) for message in messages])
    if not can.developer:
        given = [{**message, "role": "system"} if message.get("role") == "developer" else message for message in given]
    if not can.system:
        given = _system_into_user(given)
    if can.calls is not None:
        given = [_with_calls(number, message, can.calls) for number, message in enumerate(given)]
    else:
        given = [_calls_as_text(message) for message in given]
        given = given if can.tools else _results_as_users(given)
    return given


def _named_results(messages: Sequence[Message]) -> list[Message]:
    """Results of tools, which carry the id of their call, with its name: some templates write that."""
    names: dict[object, object] = {}
    found = []
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[call.get("id")] = call["function"].get("name")
        name = names.get(message.get("tool_call_id"))
        unnamed = message.get("role") == "tool" and message.get("name") is None and name is not None
        found.append({**message, "name": name} if unnamed else message)
    return found


def _system_into_user(messages: Sequence[Message]) -> list[Message]:
    """What the system says stands before the next question of the user."""
    found: list[Message] = []
    said: list[object] = []
    for message in messages:
        if message.get("role") == "system":
            said.append(message.get("content"))
        elif said and message.get("role") == "user":
            found.append({**message, "content": _after(said, message.get("content"))})
            said = []
        else:
            found.append(message)
    return found + [{"role": "user", "content": _after(said[:-1], said[-1])}] if said else found


def _after(contents: Sequence[object], content: object) -> object:
    """Contents one after the other: a text, or parts where one of them has parts."""
    every = [*contents, content]
    if all(isinstance(one, str) for one in every):
        return join(_BETWEEN, cast(list[str], every))
    parts: list[object] = []
    for number, one in enumerate(every):
        listed = one if isinstance(one, list) else [{"type": "text", "text": one or ""}]
        parts += [{"type": "text", "text": _BETWEEN}, *listed] if number else listed
    return parts


def _with_calls(number: int, message: Message, calls: Calls) -> Message:
    if calls.nine_letters and message.get("tool_call_id") is not None:
        message = {**message, "tool_call_id": _nine_letters(message["tool_call_id"])}
    if not message.get("tool_calls"):
        return message
    given = []
    for place, call in enumerate(message["tool_calls"]):
        name = f"messages[{number}].tool_calls[{place}].function.arguments"
        function = {**call["function"], "arguments": _arguments(name, call["function"].get("arguments"), calls)}
        ids = {"id": _nine_letters(call["id"])} if calls.nine_letters and call.get("id") is not None else {}
        given.append({"type": "function", **call, **ids, "function": function})
    return {**message, "content": message.get("content") or calls.content, "tool_calls": given}


def _nine_letters(id: object) -> object:
    text = plain(str(id))
    return id if _NINE_LETTERS.fullmatch(text) else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:9]


def _arguments(name: str, arguments: object, calls: Calls) -> object:
    """OpenAI writes JSON as a text; most templates want what it says."""
    if isinstance(arguments, Mapping):
        return arguments if calls.mappings else _json(arguments)
    if not isinstance(arguments, str) or not calls.mappings:
        return arguments if arguments is not None else ({} if calls.mappings else "{}")
    try:
        read = json.loads(plain(arguments) or "{}")
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, dict):
        return written(read) if isinstance(arguments, Written) else read
    if calls.texts:
        return arguments
    raise FieldError(name, f"{plain(arguments)!a:.80} is no JSON object", hint="send the arguments of the call")


def _calls_as_text(message: Message) -> Message:
    """Calls as text behind the text, for a template that shows none: as Hermes writes them, which is read back."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {"name": call["function"].get("name"), "arguments": _read(call["function"].get("arguments"))}
        for call in message["tool_calls"]
    ]
    blocks = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls]
    told = Written("\n".join(blocks))
    content = message.get("content")
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "content": _after([content], told) if content else told}


def _read(arguments: object) -> object:
    try:
        return json.loads(plain(arguments)) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _json(value: object) -> str:
    return Written(json.dumps(value, ensure_ascii=False))


def _results_as_users(messages: Sequence[Message]) -> list[Message]:
    """What tools answered as the user's words, for a template that knows no tools; several answers in one."""
    found: list[Message] = []
    told: list[Message] = []

    def tell() -> None:
        if told:
            contents = [message.get("content") or "" for message in told]
            found.append({"role": "user", "content": _after(contents[:-1], contents[-1])})
            told.clear()

    for message in messages:
        if message.get("role") == "tool":
            told.append(message)
            continue
        tell()
        found.append(message)
    tell()
    return found
