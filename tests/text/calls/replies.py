"""What the tests of replies share: tools, calls, and what a parser tells, put together again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opsin.text import ChatTemplate
from opsin.text.calls import CallArguments, CallStart, Content, ReplyDelta, ReplyFormat, ReplyParser, Thought

Arguments = Mapping[str, object]

PROPERTIES = {
    "city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"},
    "places": {"type": "array", "items": {"type": "string"}},
    "options": {"type": "object"}, "share": {"type": "number"},
}  # fmt: skip


def tool(name: str, *required: str) -> dict[str, object]:
    parameters = {"type": "object", "properties": PROPERTIES, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "Says it.", "parameters": parameters}}


TOOLS = [tool("get_weather"), tool("add_note")]
USER = {"role": "user", "content": "Hi there, you"}


@dataclass
class Reply:
    """A reply put together out of deltas."""

    thoughts: str = ""
    content: str = ""
    names: list[str] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, deltas: Iterable[ReplyDelta]) -> Reply:
        reply = cls()
        for delta in deltas:
            if isinstance(delta, Thought):
                reply.thoughts += delta.text
            elif isinstance(delta, Content):
                reply.content += delta.text
            elif isinstance(delta, CallStart):
                assert delta.index == len(reply.names)
                reply.names.append(delta.name)
                reply.ids.append(delta.id)
                reply.arguments.append("")
            elif isinstance(delta, CallArguments):
                assert delta.index == len(reply.names) - 1
                reply.arguments[-1] += delta.text
        return reply

    @property
    def calls(self) -> list[tuple[str, object]]:
        return [(name, json.loads(text)) for name, text in zip(self.names, self.arguments, strict=True)]


def read(parser: ReplyParser, pieces: Iterable[str]) -> Reply:
    """A reply that comes in these pieces."""
    return Reply.of([delta for piece in pieces for delta in parser.feed(piece)] + parser.finish())


def cuts(text: str) -> list[list[str]]:
    """Whole, letter by letter, and in two at every place."""
    return [[text], [*text], *([text[:place], text[place:]] for place in range(1, len(text)))]


def call_message(calls: Sequence[tuple[str, Arguments]], **more: object) -> dict[str, object]:
    """An assistant's message as OpenAI's clients write it."""
    made = [
        {"id": f"call0000{place}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
        for place, (name, arguments) in enumerate(calls)
    ]  # fmt: skip
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def printed(template: ChatTemplate, format: ReplyFormat, calls: Sequence[tuple[str, Arguments]], **more: object) -> str:
    """What a template prints for these calls, from behind what opens the turn."""
    return printed_with(template, format, calls, TOOLS, **more)


def printed_with(
    template: ChatTemplate, format: ReplyFormat, calls: Sequence[tuple[str, Arguments]],
    tools: Sequence[Mapping[str, object]], **more: object,
) -> str:  # fmt: skip
    """The same with tools of one's own."""
    text = template.render(
        template.fit([USER, call_message(calls, **more)]), tools=tools, add_generation_prompt=False,
        enable_thinking=True, thinking=True,
    )  # fmt: skip
    return text[text.index(format.turn.opener, text.rindex(str(USER["content"]))) + len(format.turn.opener) :]
