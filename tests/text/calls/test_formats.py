"""Calls in the formats of families: found from a template, and read back as they were written, at any cut."""

from __future__ import annotations

import json
import re

import pytest
from formats import FORMATS, JSON_BARE, JSON_BLOCKS, template
from replies import TOOLS, USER, call_message, cuts, printed, read

from opsin.text import ChatTemplate
from opsin.text.calls import ReplyFormat

CALLS = [
    ("get_weather", {"city": "Ulm", "days": 3, "exact": True, "places": ["a", "b"]}),
    ("add_note", {}),
    ("add_note", {"city": "\n x <b>\n\"y\" \\ 'z' {ä}\n", "options": {"a": {"b": None}, "c": [1.5, -2]}}),
]
NAMES = sorted(FORMATS)


def found(name: str) -> tuple[ChatTemplate, ReplyFormat]:
    template = ChatTemplate(FORMATS[name])
    return template, ReplyFormat.of(template)


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read_back_at_any_cut(name: str) -> None:
    template, format = found(name)
    calls = CALLS if format.calls.frame.several else CALLS[:1]
    text = printed(template, format, calls)
    for pieces in cuts(text):
        reply = read(format.parser(tools=TOOLS), pieces)
        assert reply.calls == calls, pieces
        assert re.fullmatch(r"\s*(<\|\w+\|>\s*)?", reply.content), pieces  # what ends a turn is no text for a parser
    if "id" in name:
        assert reply.ids[0] in ("call00000", None)


@pytest.mark.parametrize("name", NAMES)
def test_thoughts_and_text_before_calls_are_told(name: str) -> None:
    template, format = found(name)
    more = {"content": "Let me see.", "reasoning_content": "Weather <it is>."}
    text = printed(template, format, CALLS[:1], **more)
    if format.calls.frame.opening == "":
        return  # a reply without a marker is a call as a whole
    for pieces in ([text], [*text]):
        reply = read(format.parser(tools=TOOLS), pieces)
        assert reply.calls == CALLS[:1]
        assert reply.content.startswith("Let me see.")
        assert reply.thoughts == ("" if name == "recipients" else "Weather <it is>.")


@pytest.mark.parametrize("name", NAMES)
def test_without_tools_calls_are_text(name: str) -> None:
    template, format = found(name)
    text = printed(template, format, CALLS[:1])
    reply = read(format.parser(), [*text])
    assert not reply.names and "Ulm" in reply.content


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_cut_off_is_not_lost(name: str) -> None:
    template, format = found(name)
    text = printed(template, format, CALLS[:1])
    for end in range(len(text)):
        reply = read(format.parser(tools=TOOLS), [*text[:end]])
        told = reply.content + "".join(reply.names) + "".join(reply.arguments)
        for word in ("get_weather", "Ulm"):
            if word in text[:end] and word not in told:
                assert word in text[:end][-len(word) - 12 :]


@pytest.mark.parametrize("name", NAMES)
def test_a_reply_that_is_cut_within_the_end_of_a_call_has_no_content(name: str) -> None:
    template, format = found(name)
    text = re.sub(r"<\|(im_end|eot_id|call)\|>\s*$", "", printed(template, format, CALLS[:1]))  # it ends the answer
    whole = read(format.parser(tools=TOOLS), [text])
    assert whole.calls
    told = [read(format.parser(tools=TOOLS), [text[:end]]) for end in range(len(text))]
    complete = [reply for reply in told if reply.arguments == whole.arguments]
    assert all(reply.content == whole.content for reply in complete), [reply.content for reply in complete]


def test_names_come_whole_and_arguments_as_they_come() -> None:
    _, format = found("json_blocks")
    parser = format.parser(tools=TOOLS)
    told = [
        [str(delta) for delta in parser.feed(piece)]
        for piece in (
            'Well <tool_call>\n{"na',
            'me": "add_',
            'note", ',
            '"arguments": {"city": "U',
            'lm", "days": 1',
            "2",
            "}",
        )
    ]
    assert told == [
        ["Content(text='Well')"], [], ["CallStart(index=0, id=None, name='add_note')"],
        ["CallArguments(index=0, text='{\"city\": \"U')"], ["CallArguments(index=0, text='lm\", \"days\": ')"], [],
        ["CallArguments(index=0, text='12}')"],
    ]  # fmt: skip


def test_values_between_tags_come_as_they_come() -> None:
    _, format = found("tagged_lines")
    parser = format.parser(tools=TOOLS)
    told = [
        "".join(getattr(delta, "text", "") for delta in parser.feed(piece))
        for piece in (
            "<tool_call>\n<function=add_note>\n<parameter=city>\n",
            'a "',
            "b\n",
            "</para",
            "meter>\n</function>\n</tool_call>",
        )
    ]
    assert told == ['{"city": "', 'a \\"', "b", "", '"}']


@pytest.mark.parametrize("text", [
    "<tool_call>\nno call at all\n</tool_call>", '<tool_call>{"name": 5}</tool_call>', "<tool_call", "<tool_call>",
    '<tool_call>{"name": "add_note"', '<tool_call>{"arguments": {"city": "x"}}</tool_call>', "a <b> {} [ <tool_call>x",
    '<tool_call>[{"name": "add_note", "arguments": {}}]</tool_call>', '{"name": "add_note", "arguments": {}}',
])  # fmt: skip
def test_what_is_no_call_is_text(text: str) -> None:
    _, format = found("json_blocks")
    for pieces in cuts(text):
        reply = read(format.parser(tools=TOOLS), pieces)
        if reply.names:
            assert text == '<tool_call>{"name": "add_note"'
            continue
        assert "".join(reply.content.split()) == "".join(text.split())


def test_text_behind_calls_is_told() -> None:
    template, format = found("json_blocks")
    text = '<tool_call>{"name": "add_note", "arguments": {}}</tool_call>\n\nDone. <tool_call>{"x": 1}</tool_call>'
    reply = read(format.parser(tools=TOOLS), [*text])
    assert reply.calls == [("add_note", {})]
    assert reply.content == 'Done. <tool_call>{"x": 1}</tool_call>'
    again = read(format.parser(tools=TOOLS), [*text.replace('"x": 1', '"name": "add_note"')])
    assert again.calls == [("add_note", {}), ("add_note", {})] and again.content == "Done."


def test_a_bare_object_is_a_call_only_of_a_tool_that_there_is() -> None:
    format = ReplyFormat.of(ChatTemplate(JSON_BARE))
    for text in ('{"name": "rm", "parameters": {"x": 1}}', '{"city": "Ulm"}', "{ yes }", '{"name": "get_weather'):
        for pieces in cuts(text):
            reply = read(format.parser(tools=TOOLS), pieces)
            assert (reply.names, reply.content) == ([], text)
    text = '{"name": "add_note", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Ulm"}}'
    for pieces in cuts(text):
        assert read(format.parser(tools=TOOLS), pieces).calls == [("add_note", {}), ("get_weather", {"city": "Ulm"})]


@pytest.mark.parametrize(("arguments", "expected"), [
    ('"{\\"city\\": \\"Ulm\\"}"', {"city": "Ulm"}),  # JSON as a text
    ("{'city': 'Ulm'}", None),  # a text in single quotes is no JSON: what comes is passed on
    ('{"city": "a\nb\tc"}', {"city": "a\nb\tc"}),  # a line break in a text
    ('{"city": "\\\'a\\x"}', {"city": "'a\\x"}),  # escapes that JSON has not
    ('{"exact": True, "options": None}', {"exact": True, "options": None}),
    ("{}", {}),
])  # fmt: skip
def test_what_is_nearly_json_is_made_json(arguments: str, expected: object) -> None:
    _, format = found("json_blocks")
    text = f'<tool_call>{{"name": "add_note", "arguments": {arguments}}}</tool_call>'
    for pieces in ([text], [*text]):
        reply = read(format.parser(tools=TOOLS), pieces)
        assert reply.names == ["add_note"]
        if expected is not None:
            assert reply.calls == [("add_note", expected)]


@pytest.mark.parametrize(("raw", "expected"), [
    ("5", 5), (" 5 \n", 5), ("true", True), ("True", True), ("5.50", 5.5), ("five", "five"), ("", ""), ("1_000", 1000),
])  # fmt: skip
def test_values_that_are_no_text_are_json(raw: str, expected: object) -> None:
    _, format = found("tagged_pairs")
    text = f"<tool_call>add_note<arg_key>days</arg_key><arg_value>{raw}</arg_value></tool_call>"
    assert read(format.parser(tools=TOOLS), [*text]).calls == [("add_note", {"days": expected})]


def test_a_text_may_look_like_json_and_null_is_null_where_it_may_be() -> None:
    _, format = found("tagged_pairs")
    schema = {"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "c": {"$ref": "#/$defs/C"},
        "d": {"enum": ["1", "2"]}, "e": {"enum": [1, 2]}, "f": {}},
        "$defs": {"C": {"type": "integer"}}}  # fmt: skip
    tools = [{"type": "function", "function": {"name": "t", "parameters": schema}}]
    values = {"a": "null", "b": "null", "c": "1", "d": "1", "e": "1", "f": "1", "g": "1"}
    pairs = "".join(f"<arg_key>{key}</arg_key><arg_value>{value}</arg_value>" for key, value in values.items())
    reply = read(format.parser(tools=tools), [f"<tool_call>t{pairs}</tool_call>"])
    assert reply.calls == [("t", {"a": "null", "b": None, "c": 1, "d": "1", "e": 1, "f": "1", "g": "1"})]


def test_keys_of_an_object_may_come_in_any_order() -> None:
    _, format = found("json_blocks")
    text = '<tool_call>{"arguments": {"city": "Ulm"}, "why": {"x": [1]}, "name": "add_note"}</tool_call>'
    for pieces in cuts(text):
        reply = read(format.parser(tools=TOOLS), pieces)
        assert reply.calls == [("add_note", {"city": "Ulm"})] and reply.content == ""


def test_a_template_without_calls_has_them_as_hermes() -> None:
    format = ReplyFormat.of(ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"))
    assert not format.told and format.calls.frame.opening == "<tool_call>\n"
    assert ReplyFormat.of(ChatTemplate("{{ tools | tojson }}" + JSON_BLOCKS)).told


def test_a_long_reply_takes_time_in_proportion() -> None:
    """Steps are counted, not seconds: a text that never ends is looked at once."""
    _, format = found("tagged_lines")
    parser = format.parser(tools=TOOLS)
    parser.feed("<tool_call>\n<function=add_note>\n<parameter=city>\n")
    told = [delta for _ in range(2000) for delta in parser.feed("<" * 50 + "x\n")]
    assert sum(len(json.loads(f'"{delta.text}"')) for delta in told if hasattr(delta, "text")) >= 2000 * 51


def test_a_call_in_a_history_has_the_form_that_the_parser_reads() -> None:
    made = ChatTemplate(template("{{ m.tool_calls[0].function.name }}"))
    assert "get_weather" in made.render([USER, call_message(CALLS[:1])])
