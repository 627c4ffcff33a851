"""No template, however hostile, takes long, takes much memory, or reaches Python's insides."""

from __future__ import annotations

import gc
import tracemalloc
from types import CodeType

import pytest

from opsin.errors import ModelError, OpsinError, RequestError
from opsin.text import ChatTemplate
from opsin.text import template as template_module
from opsin.text.budget import Budget

ENDLESS = 120  # seconds; what these take where they are not stopped is hours

LONG = "{% set a = 'ab' * 15000000 %}"
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
    "json with long separators": "{{ range(4000)|list|tojson(separators=('A' * 1000000, ':'))|length }}",
    "json indented by a long text": "{{ range(4000)|list|tojson(indent='A' * 1000000)|length }}",
    "json of many items in lines": "{{ ([{'a': 1}] * 100000)|tojson(indent=4)|length }}",
    "nested fields": "{{ ('{0:>{1}}' * 15000).format('a', 100000)|length }}",
    "nested fields, not that many": "{{ ('{0:>{1}}' * 900).format('a', 9999999)|length }}",
    "nested fields of a safe text": "{{ (('{0:>{1}}' * 15000)|safe).format('a', 100000)|length }}",
    "nested precision": "{{ ('{0:.{1}f}' * 900).format(1.5, 9999999)|length }}",
    "width as a text": "{{ '{0:{1}}'.format('a', '>999999999') }}",
    "wide format of a named value": "{{ '%(a)999999999s' % {'a': 1} }}",
    "wide format of an oddly named value": "{{ '%(a(b(c)))999999999s' % {'a(b(c))': 1} }}",
    "wide format in a test": "{{ '%99999999s' is odd }}",
    "slices without a loop": LONG + "{% set b = a[1:] %}" * 20000,
    "comparisons without a loop": LONG + "{% set b = 'ab' * 15000000 %}" + "{% set c = a == b %}" * 20000,
    "searches without a loop": LONG + "{% set b = 'abb' in a %}" * 20000,
    "comparisons, not that many": LONG + "{% set b = 'ab' * 15000000 %}" + "{% set c = a == b %}" * 700,
    "searches, not that many": LONG + "{% set b = 'abb' in a %}" * 700,
    "search in a long list": "{% set a = [0] * 5000000 %}{% for i in range(99) %}{{ -1 in a }}{% endfor %}",
    "comparison of long lists": "{% set a, b = [0] * 5000000, [0] * 5000000 %}{% for i in range(9) %}{{ a < b }}"
    "{% endfor %}",
    "groups": "{{ ([{'a': 1}] * 1000000)|groupby('a')|length }}",
    "search from the end": "{% set a = 'a' * 1000000 %}{{ a.rfind('ab' + 'a' * 500000) }}",
    "stripping many letters": "{% set a = 'a' * 1000000 %}{{ a.strip('b' * 500000 + 'a') }}",
    "deep tuples as a key": "{% set n = namespace(t=()) %}{% for i in range(99999) %}{% set n.t = (n.t,) %}{% endfor %}"
    "{{ {n.t: 1} | length }}",
    "numbers that share a hash": "{{ dict.fromkeys(range(0, 2305843009213693951 * 99999, 2305843009213693951)) }}",
    "rounding a text": "{{ ('a' * 10000000) | round(3, 'ceil') }}",
    "rounding to many digits": "{{ 5 | round(-99999999) }}",
    "long key that is not there": "{% set a = '\\x00' * 10000000 %}{{ {}[a].x }}",
    "number of many digits": "{{ ('9' * 10000000) | int + 1 }}",
    "many words": "{{ ('a ' * 15000000).split() | length }}",
    "many words of another case": "{{ ('a ' * 5000000) | title | length }}",
    "letters that grow": "{{ ('\u00df' * 5000000) | upper | length }}",
    "long path of an attribute": "{{ [{}] * 9 | sort(attribute='a.' * 1000000) }}",
    "conditions of loops": "{% for i in range(99999) if false %}{% endfor %}" * 300,
    "long date": "{{ strftime_now('%Y' * 1000000) | length }}",
    "many arguments": "{% macro f() %}{{ varargs | length }}{% endmacro %}{{ f(*([0] * 50000000)) }}",
    "many outputs": "{{a}}" * 50000,
    "many outputs, long source": "{{a}}" * 200000,
    "many filters": "{{ a" + "|upper" * 100000 + "}}",
    "some filters": "{{ a" + "|upper" * 2000 + "}}",
    "many sums": "{{ 1" + "+1" * 100000 + "}}",
    "some sums": "{{ 1" + "+1" * 2000 + "}}",
    "many conditions": "{% if a %}" + "{% elif a %}" * 30000 + "{% endif %}",
    "many names": "".join(f"{{% set a{i} = 1 %}}" for i in range(1000)),
    "long name": "{{ " + "a" * 100000 + " }}",
    "many brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "many loops in loops": "{% for a in b %}" * 500 + "{% endfor %}" * 500,
    "many conditions in conditions": "{% if a %}" * 500 + "{% endif %}" * 500,
    "infinite number": "{% set x = 1e999 %}{{ x }}",
    "huge number": "{{ 0x" + "f" * 100000 + " }}",
    "long output": "{% set a = 'a' * 999999 %}{% for i in range(9999) %}{{ a }}{% endfor %}",
}


@pytest.mark.timeout(ENDLESS)
@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_defused(name: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(BOMBS[name]).render([])


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


def test_helpers_are_those_of_transformers() -> None:
    source = (
        "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}"
        "{% generation %}g{% endgeneration %}{{ {'a': '<ö>'} | tojson }}{{ strftime_now('%Y') | length }}"
    )
    assert ChatTemplate(source).render([]) == '13g{"a": "<ö>"}4'


def test_what_a_rendering_made_is_gone_after_it() -> None:
    source = (
        "{% set n = namespace(x=[]) %}{% macro m() %}{{ n.x|length }}{{ m() if false }}{% endmacro %}"
        "{% for i in range(9) %}{% set n.x = [n, n.x, 'a' * 3000000] %}{% endfor %}{{ m() }}"
    )
    template = ChatTemplate(source)
    assert template.render([]) == "3"
    tracemalloc.start()
    gc.disable()
    try:
        for _ in range(3):
            template.render([])
        left, _ = tracemalloc.get_traced_memory()
    finally:
        gc.enable()
        tracemalloc.stop()
    assert left < 1 << 20


@pytest.mark.parametrize(
    "source", ["{{ raise_exception(t) }}", "{{ t.nothing.at_all }}", "{{ {}[t].x }}", "{{ t + 1 }}"]
)
def test_errors_quote_templates_in_one_short_line_without_controls(source: str) -> None:
    text = "{% set t = '\\x1b]0;owned\\x07\\x1b[2J\\n\\r\\u2028\\u202e' * 100000 %}"
    with pytest.raises(OpsinError) as caught:
        ChatTemplate(text + source).render([])
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


def test_refusals_keep_their_words() -> None:
    with pytest.raises(RequestError, match=r"refuses this conversation: no \\x1b\]0;x\\x07 here: Größe \("):
        ChatTemplate("{{ raise_exception('no \\x1b]0;x\\x07\\n here: Größe') }}").render([])


def test_a_template_changes_lists_of_its_own_alone() -> None:
    def write(source: str) -> str:
        return ChatTemplate(source).render([{"role": "user", "content": "a", "seen": [1]}], tools=[{"a": [1]}])

    own = "{% set n = namespace(x=[]) %}{% for m in messages %}{% set _ = n.x.append(m.role) %}{% endfor %}"
    assert write(own + "{{ n.x | join }}{{ n.x | length }}{{ n.x.pop(0) }}{{ n.x }}") == "user1user[]"
    grown = "{% set a = ['x'] %}{% set b = {'l': a} %}{{ b | tojson }}{% set _ = a.append('y') %}{{ b | tojson }}"
    assert write(grown) == '{"l": ["x"]}{"l": ["x", "y"]}'
    for of in ("messages", "messages[0].seen", "tools[0].a", "([1] + [2])", "range(3) | list", "[1][:]"):
        with pytest.raises(ModelError, match="not its own|may not"):
            write(f"{{{{ ({of}).append(1) }}}}")
    for value in ("a", "[]", "{}", "messages", "namespace()", "range"):
        with pytest.raises(ModelError, match="no text or number"):
            write(f"{{% set a = [1] %}}{{{{ a.append({value}) }}}}")


@pytest.mark.parametrize("source", [
    "{% set a = [1] %}{% for x in a %}{% set _ = a.append(x) %}{% endfor %}",
    "{% set a = ['x' * 100000] %}{% for i in range(9999) %}{% set _ = a.append(a[0] ~ i) %}{% endfor %}",
    "{% set a = [] %}{% set b = [a, a] %}{% for i in range(99999) %}{% set _ = a.append(i) %}{{ b | length }}"
    "{{ b == b }}{% endfor %}",
    "{% set a = [1] %}{% for x in a | map('string') %}{% set _ = a.append(x) %}{% endfor %}",
])  # fmt: skip
def test_lists_that_grow_end_in_time(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(source).render([])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{{ 'a'.encode() }}", "encode"),
        ("{{ (1).to_bytes(100000, 'big') }}", "to_bytes"),
        ("{{ 'a'.translate({}) }}", "translate"),
        ("{{ [1].extend([2]) }}", "extend"),
        ("{{ {}.update(a=1) }}", "update"),
        ("{% include 'x' %}", "include"),
        ("{% extends 'x' %}", "extends"),
        ("{% import 'x' as x %}", "import"),
        ("{% block x %}{% endblock %}", "block"),
        ("{% autoescape true %}{{ '<' * 9 }}{% endautoescape %}", "autoescape|evalcontext"),
        ("{{ [1]|sum }}", "sum"),
        ("{{ [1]|random }}", "random"),
    ],
)
def test_what_nobody_listed_is_refused_by_name(source: str, name: str) -> None:
    with pytest.raises(ModelError, match=name):
        ChatTemplate(source).render([])


def test_what_does_not_compile_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    to_code = template_module._to_code

    def count(source: str) -> CodeType:
        compiled.append(source)
        return to_code(source)

    monkeypatch.setattr(template_module, "_to_code", count)
    template = ChatTemplate("{{ a" + "|upper" * 2000 + "}}")
    for _ in range(30):
        with pytest.raises(ModelError, match="chat template"):
            template.render([{"role": "user", "content": "hi"}])
    assert len(compiled) == len(set(compiled))


@pytest.mark.timeout(ENDLESS)
@pytest.mark.parametrize("source", ["{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"])
def test_trying_what_a_template_takes_ends_in_time_too(source: str) -> None:
    with pytest.raises(ModelError, match="too long|more than [0-9]+ steps"):
        _ = ChatTemplate(source).capabilities


@pytest.mark.parametrize("source", ["{{ a }}" * 1900, "{{ 1" + "+1" * 20 + " }}", "{{ [" + "1, " * 2900 + "] }}"])
def test_templates_twice_as_large_as_any_published_one_compile(source: str) -> None:
    ChatTemplate(source).render([])


def test_a_budgets_clock_runs_from_its_beginning_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 9.0, 9.25])
    monkeypatch.setattr("opsin.text.budget.time.thread_time", lambda: next(clock, 9.25))
    budget = Budget(1.0)
    time_before = budget.spent  # compiling, and the collector's work meanwhile, have limits of their own
    gc.disable()
    try:
        with budget:
            assert (time_before, budget.spent) == (0.0, 0.25)
    finally:
        gc.enable()
