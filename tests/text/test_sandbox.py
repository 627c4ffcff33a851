"""No template, however hostile, takes long, takes much memory, or reaches Python's insides."""

from __future__ import annotations

import time

import pytest

from opsin.errors import ModelError
from opsin.text import ChatTemplate
from opsin.text.sandbox import MAX_WEIGHT

BOMBS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that keep nothing": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}"
    "{% endfor %}",
    "loops over one list": "{% set x = range(9999) %}{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
    "one long range": "{% for i in range(10**9) %}{% endfor %}",
    "repeated text": "{{ 'a' * 10**9 }}",
    "repeated list": "{{ [0] * 10**9 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "product of large numbers": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
    "{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by +": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by a block": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set y %}{{ n.x }}{{ n.x }}"
    "{% endset %}{% set n.x = y %}{% endfor %}",
    "doubling by lists": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "doubling by dictionaries": "{% set n = namespace(x=1) %}{% for i in range(99) %}{% set n.x = "
    "{'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x | tojson }}",
    "replace": "{% set a = 'a' * 99999 %}{{ a | replace('a', a) }}",
    "replace as a method": "{% set a = 'a' * 99999 %}{{ a.replace('a', a) }}",
    "join": "{% set a = 'a' * 99999 %}{{ range(99999) | join(a) }}",
    "join as a method": "{% set a = 'a' * 99999 %}{{ a.join(['b'] * 99999) }}",
    "join of a lazy sequence": "{% set a = 'a' * 99999 %}{{ range(99999) | map('string') | join(a) }}",
    "indent": "{{ ('\\n' * 99999) | indent(99999) }}",
    "wide format": "{{ '%999999999d' % 1 }}",
    "wide format filter": "{{ '%999999999d' | format(1) }}",
    "wide format method": "{{ '{:>999999999}'.format(1) }}",
    "wide text": "{{ 'a'.ljust(10**9) }}",
    "json with wide indent": "{{ [1] | tojson(indent=10**9) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "long output": "{% set a = 'a' * 999999 %}{% for i in range(9999) %}{{ a }}{% endfor %}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_defused_within_its_time(name: str) -> None:
    began = time.thread_time()
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(BOMBS[name]).render([])
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ('' | attr('format')).__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% set n = namespace(__init__=1) %}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{{ lipsum() }}",
    ],
)
def test_insides_are_out_of_reach(source: str) -> None:
    try:
        text = ChatTemplate(source).render([])
    except ModelError:
        return
    assert "class" not in text
    assert "function" not in text


def test_large_conversation_is_no_bomb() -> None:
    source = "{% for m in messages %}{{ '<|' + m.role + '|>' ~ (m.content | trim) ~ '\\n' }}{% endfor %}"
    messages = [{"role": "user", "content": "word " * 2000}] * 500
    assert len(ChatTemplate(source).render(messages)) == 500 * (len("word " * 2000) - 1 + len("<|user|>\n"))
    assert MAX_WEIGHT > 5_000_000


def test_helpers_are_those_of_transformers() -> None:
    source = (
        "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}"
        "{% generation %}g{% endgeneration %}{{ {'a': '<ö>'} | tojson }}{{ strftime_now('%Y') | length }}"
    )
    assert ChatTemplate(source).render([]) == '13g{"a": "<ö>"}4'
