"""Whatever texts arguments hold (quotes, braces, markers, line breaks), a parser gives them back as they were."""

from __future__ import annotations

import re

import pytest
from formats import FORMATS
from hypothesis import given, settings
from hypothesis import strategies as st
from replies import TOOLS, Arguments, printed, read

from opsin.text import ChatTemplate
from opsin.text.calls import ReplyFormat

PIECES = [
    '"', "'", "\\", "{", "}", "[", "]", "(", ")", ",", ":", "=", "<", ">", "\n", "\r\n", "\t", " ", "é", "😀", "\u2028",
    "\x00", "a", "1", "null", "true", "</parameter>", "</function>", "</tool_call>", "<tool_call>", "</arg_value>",
    "<arg_key>", "&amp;",
    "\\u00e9", "```", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "<|im_end|>", "]]>", '{"name": "add_note"}',
    "<｜tool▁call▁end｜>", "<|tool_call_end|>", "</invoke>", "</t:city>", "<|message|>", "<|end|>", ">>>all\n",
]  # fmt: skip
# Where texts stand raw, nothing tells these from what ends them.
AMBIGUOUS = {
    "tagged_lines": r"</parameter>\s*(<parameter=|</function>\s*</tool_call>)",
    "tagged_pairs": r"</arg_value>\s*(<arg_key>|</tool_call>)",
    "tagged_invokes": r"</parameter>\s*(<parameter|</invoke>)",
    "tagged_by_key": r"</t:city>\s*(<t:|</t:)",
    "tagged_cdata": r"\]\]></param>|^$",
}
text = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b_c", "d"]), inner, max_size=3),
    max_leaves=5,
)
arguments = st.fixed_dictionaries(
    {"city": text},
    optional={
        "days": st.integers(), "exact": st.booleans(), "share": st.floats(allow_nan=False, allow_infinity=False),
        "places": st.lists(text, max_size=3),
        "options": st.dictionaries(st.sampled_from(["a", "b_c"]), value, max_size=2),
    },
)  # fmt: skip
calls = st.lists(st.tuples(st.sampled_from(["get_weather", "add_note"]), arguments), min_size=1, max_size=2)
KNOWN = {name: (ChatTemplate(source), ReplyFormat.of(ChatTemplate(source))) for name, source in FORMATS.items()}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_arguments_come_back_exactly(name: str) -> None:
    template, format = KNOWN[name]
    ambiguous = re.compile(AMBIGUOUS.get(name, r"(?!)"))

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(calls)
    def check(made: list[tuple[str, Arguments]]) -> None:
        made = made if format.calls.frame.several else made[:1]
        if any(ambiguous.search(str(given["city"]) + "\n") for _, given in made):
            return
        written = printed(template, format, made)
        for pieces in ([written], [*written]):
            assert read(format.parser(tools=TOOLS), pieces).calls == made

    check()
