"""llama.cpp's notation of grammars."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import walk

from opsin.errors import RequestError
from opsin.grammar import Grammar

YES, PART, NO = True, False, None  # a whole answer, the beginning of one, none
JSON = r"""
# as llama.cpp's own
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "texts"),
    [
        ('root ::= "a"{5,5}', {"aaaaa": YES, "aaaa": PART, "aaaaaa": NO}),
        ('root ::= "a"{3}', {"aaa": YES, "aa": PART, "aaaa": NO}),
        ('root ::= "a"{2,} "b"', {"ab": NO, "aab": YES, "aaaaab": YES}),
        ('root ::= "a"{,3} "b"', {"b": YES, "aaab": YES, "aaaab": NO}),
        ('root ::= "a"{0,0} "b"', {"b": YES, "ab": NO}),
        ('root ::= ("a"*)* "c"', {"aac": YES, "c": YES, "b": NO}),
        ('root ::= ("a"+ | "b")?', {"": YES, "aaa": YES, "b": YES, "bb": NO}),
        ('root ::= [a-z]+ "abc"', {"xyzabc": YES, "abcabc": YES, "abc": PART}),
        ('root ::= "a" |\n "b" # both\n | "" ', {"a": YES, "b": YES, "": YES, "c": NO}),
        ('root ::= item ("," item)*\nitem ::= [0-9]+', {"1,22": YES, "1,": PART, ",": NO}),
        ('root ::= [^a-c\\n]', {"d": YES, "-": YES, "b": NO, "\n": NO}),
        ('root ::= [a\\-c^\\]]+', {"a-c^]": YES, "b": NO}),
        ('root ::= [-ab] [ab-]', {"--": YES, "a-": YES, "c": NO}),
        ('root ::= "\\x41\\u00e9\\U0001F600\\t\\"\\\\"', {'Aé\U0001f600\t"\\': YES, "B": NO}),
        ('root ::= . .', {"é\n": YES, "a": PART, "abc": NO}),
        ('root ::= "/" [/] "<[1]>"', {"//<[1]>": YES}),
        ('root ::= "(" root ")" | [0-9]+ | "" ', {"((12))": YES, "()": YES, "((1)": PART, "(a)": NO}),
        ('root ::= a-b Cd_1\na-b ::= "x"\nCd_1 ::= "y" root | "z"', {"xz": YES, "xyxz": YES, "xy": PART}),
        (JSON, {'{"a": [1, {"b": "\\u00e9\\n"}, true]}': YES, '{"a":': PART, '{a': NO, '{"a": tru}': NO}),
    ],
)  # fmt: skip
def test_texts_that_it_lets_through(smol, grammar, texts):
    made = Grammar.gbnf(grammar)
    assert {text: walk(smol, made, text, special=False) for text in texts} == texts


def test_tokens_stand_by_id_by_text_and_for_all_others(smol):
    by_id, by_text = Grammar.gbnf('root ::= <[1]> "x"'), Grammar.gbnf('root ::= <|im_start|> "x"')
    for grammar in (by_id, by_text):
        assert walk(smol, grammar, "<|im_start|>x")
        assert walk(smol, grammar, "<|im_start|>x", special=False) is None
    other = Grammar.gbnf('root ::= !<|im_start|> "x" <[0]>?')
    assert walk(smol, other, "<|im_start|>x") is None
    assert walk(smol, other, "<|im_end|>x") is None  # it ends the answer
    assert walk(smol, other, "0x")
    assert walk(smol, Grammar.gbnf("root ::= thing\nthing ::= <[1]> | [a-z]+ thing"), "abc<|im_start|>")


def test_a_token_that_the_model_has_not_is_refused_by_name(smol):
    with pytest.raises(RequestError, match=r"'<\|nope\|>', which is no special token"):
        smol.start(Grammar.gbnf("root ::= <|nope|>"))


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "has no rule root"),
        ('x ::= "a"', "has no rule root"),
        ("root ::= x\nx ::= y", "no rule 'y', which 'x' names"),
        ('root ::= "a', "line 1, at '\"a': nothing of a grammar begins here"),
        ('root ::= "a"\nroot2 ::= [', "line 2"),
        ('root "a"', "a rule was expected"),
        ("root ::= ( ( \"a\" )", "a group does not end"),
        ('root ::= "a" )', "a rule was expected"),
        ("root ::= *", "nothing to repeat"),
        ("root ::= [z-a]", "the range z-a falls"),
        ("root ::= []", "a set of characters is empty"),
        ('root ::= "\\q"', "is no escape"),
        ('root ::= "\\uD800"', "is no character"),
        ('root ::= "\\U00110000"', "is no character"),
        ('root ::= "a"{3,2}', "counts must rise"),
        ('root ::= ("a"{10000}){10000}', "the rule 'root' is too large"),
        ('root ::= "a"{}', "a count has no number"),
        ('root ::= "a"{99999}', "counts must rise, up to 10000"),
        ('root ::= "a"{999999999999}', "a count is larger than 10000"),
        ("root ::= " + "(" * 100 + '"a"' + ")" * 100, "groups nest deeper than 64"),
        ('root ::= "' + "a" * 300_000 + '"', "a grammar of 300011 characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(grammar, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        Grammar.gbnf(grammar)


def test_the_deepest_nesting_that_is_read_is_written_and_refused(smol):
    made = Grammar.gbnf("root ::= " + "(" * 62 + '"a"' + ")*+?*" * 62 + "\nother ::= root | <[1]> other")
    with pytest.raises(RequestError, match="too deeply nested"):
        smol.start(made)


def test_repeats_of_repeats_without_end_are_bounded():
    with pytest.raises(RequestError, match="repeats of repeats"):
        Grammar.gbnf('root ::= "a"' + "*" * 100_000)


def test_lark_may_come_in_its_place(smol):
    assert walk(smol, Grammar.gbnf('%llguidance {}\nstart: "ab"'), "ab")


EXPRESSION = st.recursive(
    st.sampled_from(['"a"', '"b"', "[ab]", "[^a]", '""']),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({' '.join(parts)})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({' | '.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}"])).map(
            lambda parts: f"({parts[0]}){parts[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(expression=EXPRESSION, texts=st.lists(st.text("abc", max_size=6), min_size=5, max_size=5))
def test_what_has_no_recursion_is_what_a_regular_expression_says(nano, expression, texts):
    pattern = re.compile(
        expression.replace('""', "()").replace('"', "").replace(" ", "").replace("{,", "{0,"), re.DOTALL
    )
    for text in texts:
        assert (walk(nano, Grammar.gbnf(f"root ::= {expression}"), text) is True) == bool(pattern.fullmatch(text))
