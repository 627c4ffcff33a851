"""What a template's text tells and trying it does not: formats that it never prints, or prints with other words.

The first entry counts whose words all stand in the template. What it leaves open is found by trying.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsin.text.calls.shapes import CallShape, Frame, JsonCall, ListedCall, NamedCall, Notation
from opsin.text.calls.thoughts import Around, Turn

HERMES = CallShape(Frame("", "<tool_call>\n", "\n</tool_call>", "\n"), JsonCall())


@dataclass(frozen=True)
class Known:
    """A format, by words of its template.

    Attributes:
        words: all of these stand in the template.
        thoughts, answer, calls: what is known of it; None is found by trying.
        opener: what opens a turn; "" is found by trying.
        lead: what a reply begins with where the prompt ends with it.
        channels: whether replies are messages of channels, as gpt-oss writes them.
    """

    words: tuple[str, ...]
    opener: str = ""
    thoughts: Around | None = None
    answer: Around | None = None
    calls: CallShape | None = None
    lead: str = ""
    channels: bool = False


KNOWN = (
    Known(("<|channel|>", "<|message|>", "commentary"), opener="<|start|>assistant", channels=True,
          calls=CallShape(
              Frame("<|channel|>commentary ", "to=functions.", "<|call|>", several=False),
              NamedCall(" <|constrain|>json<|message|>"))),
    Known((">>>all",), opener="<|start_header_id|>assistant<|end_header_id|>", lead=">>>",
          answer=Around(">>>all\n", ""), calls=CallShape(Frame(call_open=">>>"), NamedCall("\n"))),
    Known(("<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
          calls=CallShape(
              Frame("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_end|>", "",
                    "<|tool_calls_section_end|>"),
              NamedCall("<|tool_call_argument_begin|>", numbered=True))),
    Known(("<|open|>", "<|end_of_msg|>"), opener='<|open|>message role="assistant"<|sep|>',
          thoughts=Around("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
          answer=Around("<|open|>response<|sep|>", "<|close|>response<|sep|>")),
    Known(("<|tool_call>call:", '<|"|>'), thoughts=Around("<|channel>thought", "<channel|>"),
          calls=CallShape(Frame("", "<|tool_call>call:", "<tool_call|>"), NamedCall("", Notation.GEMMA))),
    Known(("<|tool_list_start|>",),
          calls=CallShape(Frame("<|tool_call_start|>[", "", ")", ", ", "]<|tool_call_end|>"), ListedCall())),
    Known(("List of tools: [", "<|im_start|>"),
          calls=CallShape(Frame("<|tool_call_start|>[", "", ")", ", ", "]<|tool_call_end|>"), ListedCall())),
    Known(("<|tool_call|> followed by a JSON list",), answer=Around("<response>", "</response>"),
          thoughts=Around("<think>", "</think>"),
          calls=CallShape(Frame("<|tool_call|>[", "", "", ", ", "]"), JsonCall())),
    Known(("prefix function calls with functools marker",),
          calls=CallShape(Frame("functools[", "", "", ", ", "]"), JsonCall())),
    Known(("'```json'", "<｜tool▁calls▁begin｜>"),
          calls=CallShape(
              Frame("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```<｜tool▁call▁end｜>",
                    "\n", "<｜tool▁calls▁end｜>"),
              NamedCall("\n```json\n"))),
)  # fmt: skip


def known(source: str) -> Known | None:
    """What is known of this template by its words."""
    return next((one for one in KNOWN if all(word in source for word in one.words)), None)


def completed_turn(found: Turn, one: Known) -> Turn:
    """A turn as it is known, and as it was found where it is not."""
    return Turn(one.opener or found.opener, one.thoughts or found.thoughts, one.answer or found.answer)
