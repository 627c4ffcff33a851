"""Texts know which of their characters people wrote: here capitals are people's, and small letters the template's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.errors import OpsinError
from opsin.text import ChatTemplate
from opsin.text.origin import Written, derived, followed, join, percent, spans_of, written

PEOPLE = st.text("ABC \n", max_size=6).map(Written)
OWN = st.text("abc \n", max_size=6)
MIXED = st.lists(PEOPLE | OWN, max_size=6).map(lambda parts: join("", parts))
SMALL = st.integers(-8, 8)


def known(text: str) -> Written:
    """A text of the template's, where it is no other."""
    return text if isinstance(text, Written) else followed(text)


FOLLOWED: list[Callable[[str, str, int, int], object]] = [
    lambda a, b, i, j: a + b,
    lambda a, b, i, j: str.__str__(a).lower() + b,
    lambda a, b, i, j: a[i:j],
    lambda a, b, i, j: a[i:],
    lambda a, b, i, j: a[i : i + 1] and a[i],
    lambda a, b, i, j: list(a),
    lambda a, b, i, j: a.strip(),
    lambda a, b, i, j: a.lstrip(" Aa"),
    lambda a, b, i, j: a.rstrip("Bb\n"),
    lambda a, b, i, j: a.split(),
    lambda a, b, i, j: a.split("a"),
    lambda a, b, i, j: a.split(None, abs(i)),
    lambda a, b, i, j: a.rsplit("A", abs(i)),
    lambda a, b, i, j: a.rsplit(None, 1),
    lambda a, b, i, j: a.splitlines(),
    lambda a, b, i, j: a.splitlines(True),
    lambda a, b, i, j: a.partition("A"),
    lambda a, b, i, j: a.rpartition("b"),
    lambda a, b, i, j: a.removeprefix("A").removesuffix("b"),
    lambda a, b, i, j: known(a).replace("A", b),
    lambda a, b, i, j: known(a).replace("ab", b, abs(i)),
    lambda a, b, i, j: known(a).join([b, a, "c"]),
    lambda a, b, i, j: join(a, b.split("A")),
    lambda a, b, i, j: percent("x%sy%%%sz", (a, b)),
    lambda a, b, i, j: percent("x%(k)s-%(k)sz", {"k": a}),
]


def check(text: object) -> None:
    """Capitals are people's, and small letters are not."""
    if isinstance(text, list | tuple):
        for part in text:
            check(part)
        return
    assert isinstance(text, str)
    people = {place for start, end in spans_of(text) for place in range(start, end)}
    plain = str.__str__(text)
    assert all((letter in "ABC") <= (place in people) for place, letter in enumerate(plain))
    assert not any(letter in "abcxyz%" and place in people for place, letter in enumerate(plain))


@pytest.mark.parametrize("work", FOLLOWED)
@settings(deadline=None, max_examples=60)
@given(MIXED, MIXED, SMALL, SMALL)
def test_what_is_followed_is_as_it_would_be_and_knows_who_wrote_it(work, a, b, i, j) -> None:
    made = work(a, b, i, j)
    assert made == work(str.__str__(a), str.__str__(b), i, j)
    check(made)


@settings(deadline=None)
@given(MIXED, st.sampled_from(["upper", "lower", "title", "capitalize", "swapcase", "casefold"]))
def test_letters_that_become_others_stay_whose_they_are(text: str, method: str) -> None:
    made = getattr(text, method)()
    assert made == getattr(str.__str__(text), method)()
    assert spans_of(made) == spans_of(text)


def test_what_nobody_follows_is_peoples() -> None:
    for made in (Written("ß").upper(), Written("A").center(9, "<"), Written("AB")[::-1], Written("AB") * 2):
        assert spans_of(made) == ((0, len(made)),)
    assert spans_of(derived("x", ["y", {"k": [Written("z")]}])) == ((0, 1),)
    assert spans_of(derived("x", ["y"] * 20_000)) == ((0, 1),)
    assert spans_of(derived("x", iter("y"))) == ((0, 1),)
    assert spans_of(derived("x", ["y", {"k": [1, None]}])) == ()
    assert spans_of(derived("x", "y", 1, None)) == ()


def test_neighbours_become_one_span() -> None:
    text = join("", [Written("A")] * 1000)
    assert spans_of(text) == ((0, 1000),)


def test_many_spans_are_cut_in_little_time() -> None:
    text = join(" ", [Written("A")] * 50_000)
    assert len(spans_of(text)) == 50_000
    assert [spans_of(part) for part in text.split(" ")] == [((0, 1),)] * 50_000


def test_copies_know_it_too() -> None:
    text = join("a", [Written("B"), Written("C")])
    assert spans_of(pickle.loads(pickle.dumps(text))) == spans_of(copy.deepcopy(text)) == ((0, 1), (2, 3))


# Through templates: (template, whether each of its small letters must be known as its own)
TEMPLATES = [
    ("{{ m }}", True),
    ("{{ 'a' + m + 'b' }}", True),
    ("{{ 'a' ~ m ~ 'b' ~ 1 }}", True),
    ("ab{{ m | trim }}c", True),
    ("{{ m.split('B')[-1].strip() }}a", True),
    ("{% for c in m %}a{{ c }}{% endfor %}", True),
    ("{{ ['a', m] | join('b') }}", True),
    ("{{ 'b'.join(['a', m]) }}", True),
    ("{{ m | join('a') }}", True),
    ("{{ [{'k': 'a'}, {'k': m}] | join('b', attribute='k') }}", True),
    ("{{ [m, 'a'] | map('trim') | join('b') }}", True),
    ("{{ 'aXb' | replace('X', m) }}", True),
    ("{{ 'aXb'.replace('X', m) }}", True),
    ("{{ m | replace('A', 'b') }}", True),
    ("{{ 'a%sb%s' % (m, 'c') }}", True),
    ("{{ 'a%(k)sb' % {'k': m} }}", True),
    ("{{ 'a%sb' | format(m) }}", True),
    ("{{ 'a{}b{}'.format(m, 1) }}", True),
    ("{{ 'a{0}b{k!s:>9}'.format(m, k=m) }}", True),
    ("{{ 'a{k}b'.format_map({'k': m}) }}", True),
    ("{{ 'a{0[k]}b'.format({'k': m}) }}", True),
    ("{% macro f(x) %}a{{ x }}b{% endmacro %}{{ f(m) }}{{ f(m) | trim }}", True),
    ("{% macro f() %}a{{ caller() }}b{% endmacro %}{% call f() %}c{{ m }}{% endcall %}", True),
    ("{% set t %}a{{ m }}b{% endset %}{{ t }}{{ t[1:] }}", True),
    ("{% set n = namespace(t='a') %}{% set n.t = n.t + m %}{{ n.t }}", True),
    ("{% filter trim %} a{{ m }}b {% endfilter %}", True),
    ("{{ {'k': m}['k'] }}{{ {'k': m}.get('k') }}{{ {'k': m}.items() | list | last | last }}", True),
    ("{{ m if m else 'a' }}{{ x | default(m) }}{{ m | default('a', true) }}{{ none | default('ab') }}", True),
    ("{{ [m, 'a'] | first }}{{ ['a', 'b'] | last }}{{ [m] | max }}", True),
    ("{{ m | upper }}{{ m.lower() | upper }}{{ m | string }}a", True),
    ("{{ cycler(m, 'a').next() }}{{ joiner(m)() }}", True),
    ("{{ m[:2] }}{{ m[0] }}{{ m | list | join }}{{ m | reverse }}", False),
    ("{{ {'k': m} | tojson }}{{ m | tojson(indent=2) }}{{ {'k': [m]} }}{{ [m] | string }}{{ (m, m) }}", False),
    ("{{ m | indent(2, true) }}{{ m | title }}{{ m | escape }}{{ m | safe }}{{ m * 2 }}{{ m | e | upper }}", False),
    ("{{ '%5s|%-5s' % (m, m) }}{{ '%r' % m }}{{ '{!r}'.format(m) }}{{ '%*s' % (9, m) }}", False),
    ("{{ m.center(20) }}{{ 'a'.center(9, m[0]) }}{{ m.ljust(9) }}{{ m.zfill(9) }}{{ m.expandtabs() }}", False),
    ("{{ ('a' | safe) + m }}{{ ('a' | safe).join([m]) }}{{ ('a%sb' | safe) % m }}{{ m + ('a' | escape) }}", False),
    (
        "{{ ('a%s' | safe).replace('%s', m) }}{{ ('a{}' | safe).format(m) }}{{ ['a' | safe, m] | join('b' | safe) }}",
        False,
    ),
    ("{{ ('a' | safe) ~ m }}{{ ('a' | safe).center(9, m[0]) }}{{ (m | safe) + 'a' }}{{ (m | e).strip() }}", False),
    ("{{ strftime_now(m) }}{{ m | string | list | string }}{{ [m, m] | unique | list }}", False),
    ("{{ m.encode().decode() }}", False),
]


@pytest.mark.parametrize(("source", "is_precise"), TEMPLATES)
def test_templates_make_the_same_text_and_know_who_wrote_it(source: str, is_precise: bool) -> None:
    def render(value: object) -> str:
        return ChatTemplate(source).render([], m=value)

    for text in ("AB C", " A\nBB ", "B", "CA"):
        try:
            wanted = render(text)
        except OpsinError:  # refused for both
            with pytest.raises(OpsinError):
                render(Written(text))
            continue
        made = render(Written(text))
        assert made == wanted
        people = {place for start, end in spans_of(made) for place in range(start, end)}
        assert all(place in people for place, letter in enumerate(str.__str__(made)) if letter in "ABC")
        if is_precise:
            check(made)


def test_values_are_written_wherever_strings_are() -> None:
    value = {"content": [{"type": "text", "text": "<s>"}], "tool": {"<s>": ("</s>", 1, None)}}
    found = written(value)
    assert found == {"content": [{"type": "text", "text": "<s>"}], "tool": {"<s>": ["</s>", 1, None]}}
    assert isinstance(found, dict)
    assert all(isinstance(key, Written) for key in [*found, *found["tool"], *found["content"][0]])
    assert isinstance(found["tool"]["<s>"][0], Written)
    assert not isinstance(value["tool"]["<s>"][0], Written)
