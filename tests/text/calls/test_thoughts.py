"""Thoughts and answers are told apart by what a template shows, at any cut of the text."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from opsin.text import ChatTemplate, Written, join
from opsin.text.calls import Content, ReplyDelta, ReplyFormat, ReplyParser, Thought

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and m.reasoning_content %}"
END = "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
SHOWN = f"{TURNS}<think>\n{{{{ m.reasoning_content }}}}\n</think>\n\n{{% endif %}}{END}"
OPTIONAL = SHOWN + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
OPENED = SHOWN + "<think>\n{% endif %}"
TAKEN_OUT = """{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}{%
if add_generation_prompt %}<|assistant|><think>\n{% endif %}"""
DELIMITED = TURNS.replace("<|im_start|>assistant\n", "") + (
    "{{ m.reasoning_content }}\n[BEGIN FINAL]\n{% endif %}" + END + "Here I think:\n{% endif %}"
)
WRAPPED = """{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}<|bot|>{%
if m.reasoning_content %}<|START_THINKING|>{{ m.reasoning_content }}<|END_THINKING|>{%
endif %}<|START_TEXT|>{{ m.content }}<|END_TEXT|>{% endif %}<|turn_end|>{% endfor %}{%
if add_generation_prompt %}<|bot|>{% endif %}"""
NONE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
USER = {"role": "user", "content": "Hi"}


def read(parser: ReplyParser, pieces: Iterable[str]) -> tuple[str, str]:
    """Thoughts and answer."""
    found: list[ReplyDelta] = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    thoughts = [delta.text for delta in found if isinstance(delta, Thought)]
    return "".join(thoughts), "".join(delta.text for delta in found if isinstance(delta, Content))


def cuts(text: str) -> list[list[str]]:
    """Whole, letter by letter, and in two at every place."""
    return [[text], [*text], *([text[:place], text[place:]] for place in range(1, len(text)))]


def expect(format: ReplyFormat, prompt: str, reply: str, thoughts: str, answer: str) -> None:
    for pieces in cuts(reply):
        assert read(format.parser(prompt=prompt), pieces) == (thoughts, answer), pieces


@pytest.mark.parametrize("source", [OPTIONAL, OPENED, TAKEN_OUT])
def test_thoughts_are_found(source: str) -> None:
    template = ChatTemplate(source)
    format = ReplyFormat.of(template)
    assert format.thoughts is not None
    assert (format.thoughts.open, format.thoughts.close) == ("<think>", "</think>")
    prompt = template.render([USER])
    opened = "<think>" in prompt
    reply = "\nI wonder <b>\n\nwhy\n</think>\n\n 42, </think> or <think> so\n"
    expect(format, prompt, ("" if opened else "<think>") + reply, "I wonder <b>\n\nwhy", "42, </think> or <think> so\n")


def test_without_thoughts_all_is_the_answer_as_it_stands() -> None:
    format = ReplyFormat.of(ChatTemplate(OPTIONAL))
    prompt = ChatTemplate(OPTIONAL).render([USER])
    expect(format, prompt, "\n\n a <thi b </think> \n\n", "", "\n\n a <thi b </think> \n\n")
    assert ReplyFormat.of(ChatTemplate(NONE)).thoughts is None
    assert format.has_parts and not ReplyFormat.of(ChatTemplate(NONE)).has_parts
    expect(ReplyFormat.of(ChatTemplate(NONE)), "<|assistant|>", " <think>a</think> b ", "", " <think>a</think> b ")


def test_a_prompt_may_close_thoughts() -> None:
    template = ChatTemplate(OPTIONAL)
    prompt = template.render([USER], enable_thinking=False)
    assert prompt.endswith("</think>\n\n")
    expect(ReplyFormat.of(template), prompt, "<think>a</think>", "", "<think>a</think>")


def test_an_answer_or_thoughts_that_a_prompt_begins_go_on() -> None:
    template = ChatTemplate(OPENED)
    format, prompt = ReplyFormat.of(template), template.render([USER])
    expect(format, prompt + "I was", " here\n</think>\nyes", " here", "yes")
    expect(format, prompt + "I was\n</think>\n\nThe", " end ", "", " end ")


def test_what_people_write_opens_no_thoughts() -> None:
    template = ChatTemplate(OPTIONAL)
    format = ReplyFormat.of(template)
    said = [{"role": "user", "content": Written("<|im_start|>assistant\n<think>")}]
    assert not format.beginning(template.render(said)).thinking
    prompt = join("", ["<|im_start|>assistant\n", Written("<think>a")])
    assert not format.beginning(prompt).thinking
    assert format.beginning("<|im_start|>assistant\n<think>a").thinking


def test_thoughts_without_a_marker_to_open_begin_with_the_reply() -> None:
    template = ChatTemplate(DELIMITED)
    format = ReplyFormat.of(template)
    assert format.thoughts is not None and format.thoughts.open == ""
    prompt = template.render([USER])
    expect(format, prompt, "1. Add.\n2. Done.\n[BEGIN FINAL]\n4\n", "1. Add.\n2. Done.", "4\n")
    expect(format, prompt, "1. Add.\n[BEGIN", "1. Add.\n[BEGIN", "")


def test_markers_around_an_answer_are_no_part_of_it() -> None:
    template = ChatTemplate(WRAPPED)
    format, prompt = ReplyFormat.of(template), template.render([USER])
    reply = "<|START_THINKING|>why<|END_THINKING|><|START_TEXT|>so\n it is<|END_TEXT|>"
    expect(format, prompt, reply, "why", "so\n it is")
    expect(format, prompt, "so\n it is", "", "so\n it is")
    assert format.shows("<|START_THINKING|>") and format.shows("<|END_TEXT|>")
    assert not format.shows("<|turn_end|>") and not format.shows("<|user|>")


def test_an_answer_may_be_a_turn_of_its_own() -> None:
    source = """{% for m in messages %}{% if m.role == 'user' %}<|begin|>user<|content|>{{ m.content }}<|end|>{%
else %}{% if m.reasoning_content %}<|begin|>assistant<|think|>{{ m.reasoning_content }}<|end|>{%
endif %}<|begin|>assistant<|content|>{{ m.content }}<|end|>{% endif %}{% endfor %}{%
if add_generation_prompt %}<|begin|>assistant{% endif %}"""
    template = ChatTemplate(source)
    format, prompt = ReplyFormat.of(template), template.render([USER])
    expect(format, prompt, "<|think|>why<|end|><|begin|>assistant<|content|>so it is", "why", "so it is")
    assert format.shows("<|begin|>") and format.shows("<|content|>")


def test_thoughts_that_are_cut_are_told_whole() -> None:
    format = ReplyFormat.of(ChatTemplate(OPTIONAL))
    expect(format, "", "<think>\nand so </th", "and so </th", "")
    expect(format, "", "<think>\nand so \n", "and so \n", "")


def test_text_is_told_as_it_comes() -> None:
    parser = ReplyFormat.of(ChatTemplate(OPTIONAL)).parser(prompt="")
    told = [parser.feed(piece) for piece in ("<thi", "nk>", "a", " b", "</", "i>", "</think>", "c", "<think>")]
    assert told == [
        [], [], [Thought("a")], [Thought(" b")], [], [Thought("</i>")], [], [Content("c")], [Content("<think>")]
    ]  # fmt: skip


@pytest.mark.parametrize("source", [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 100000000 }}", "{{ raise_exception('no') }}", "{% for", "{{ messages.nothing.at_all }}",
])  # fmt: skip
def test_a_template_that_cannot_be_tried_has_no_format(source: str) -> None:
    format = ReplyFormat.of(ChatTemplate(source))
    assert format == ReplyFormat()
    expect(format, "", "<think>a</think>", "", "<think>a</think>")


@pytest.mark.parametrize("source", [NONE, SHOWN])
def test_where_no_marker_can_come_no_whitespace_waits_for_it(source):
    parser = ReplyFormat.of(ChatTemplate(source)).parser()
    told = [text for letter in "a \n\n" for delta in parser.feed(letter) for text in [delta.text]]
    assert "".join(told) == "a \n\n" or parser.finish() == []
