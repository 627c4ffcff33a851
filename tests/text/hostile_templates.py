"""Hostile chat templates by chance: whatever they ask for, rendering them takes little time and memory.

    python tests/text/hostile_templates.py [--count 10000] [--seed 1] [--show 5] [--seconds 1]

Each is made of huge values built in steps, filters, methods and operators with odd arguments, formats, loops, macros,
namespaces that double, long chains and deep nesting, mostly of types that fit, so that it gets far. It is compiled and
rendered, with what a person wrote in it, in a process of its own that is measured: above one second of processor time
or 200 MB it is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import random
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from opsin.errors import OpsinError
from opsin.text import ChatTemplate
from opsin.text.origin import written

MAX_BYTES = 200 << 20
_LETTERS = (
    "a",
    "ab",
    "\\n",
    " ",
    "a ",
    "\u00df",
    "\\x00",
    "\U0001f600",
    "%",
    "{",
    "}",
    "&",
    "'",
    "_",
    "9",
    "\\t",
    "A,",
)
_COUNTS = (0, 1, 2, 7, 99, 1000, 9999, 99999, 1_000_000, 5_000_000, 12_000_000, 40_000_000, 10**9, -1, -5)
_NUMBERS = (
    "0",
    "1",
    "-1",
    "2",
    "3",
    "62",
    "400",
    "99999",
    "100000",
    "-99999",
    "1000000",
    "2147483647",
    "10**9",
    "2**60",
    "2305843009213693951",
    "1.5",
    "1e308",
    "-1e-308",
    "true",
    "none",
    "0x" + "f" * 40,
    "7 // 2",
)
_SPECS = (
    "%s",
    "%d",
    "%5d",
    "%999d",
    "%9999d",
    "%99999999s",
    "%(a)s",
    "%(a)9999999s",
    "%*d",
    "%.999f",
    "%.99999f",
    "%r",
    "%a",
    "%c",
    "%%",
    "%",
    "%(a(b))s",
    "%x",
    "%-999s",
    "%+08.3f",
)
_FIELDS = (
    "{}",
    "{0}",
    "{0:>{1}}",
    "{0:{1}}",
    "{:>99999999}",
    "{0!r}",
    "{0!a:>999}",
    "{a}",
    "{0[0]}",
    "{0.a}",
    "{:,}",
    "{0:>9999}",
    "{:.{1}f}",
    "{:%Y}",
    "{{",
    "}}",
    "{0:.999f}",
)
_TEXT_FILTERS = (
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "string",
    "safe",
    "escape",
    "e",
    "forceescape",
    "urlencode",
    "indent",
    "indent({n})",
    "indent({t})",
    "indent({n}, true, true)",
    "replace({t}, {t})",
    "replace({s}, {t}, {n})",
    "replace(new={t}, old={s})",
    "truncate({n})",
    "truncate({n}, true, {t})",
    "default({t})",
    "trim({t})",
    "reverse",
    "format({t}, {n})",
    "attr('upper')()",
    "join({t})",
)
_TEXT_METHODS = (
    "upper()",
    "lower()",
    "title()",
    "swapcase()",
    "casefold()",
    "capitalize()",
    "strip({t})",
    "lstrip({s})",
    "rstrip({t})",
    "replace({t}, {t})",
    "replace({s}, {t})",
    "replace('', {t})",
    "ljust({n})",
    "rjust({n}, {s})",
    "center({n})",
    "zfill({n})",
    "expandtabs({n})",
    "join({l})",
    "join({t})",
    "format({t}, {n})",
    "format(*{l})",
    "format_map({d})",
    "removeprefix({t})",
    "removesuffix({t})",
    "encode()",
    "translate({d})",
    "__len__()",
    "split({s})[0]",
    "rpartition({t})[2]",
    "partition({s})[0]",
)
_LIST_MAKERS = (
    "{t}|list",
    "range({n})|list",
    "range(0, {n}, {n})",
    "{l}|sort",
    "{l}|sort(true, true, {s})",
    "{l}|unique|list",
    "{l}|map('string')|list",
    "{l}|map('upper')",
    "{l}|select('string')|list",
    "{l}|reject('in', {t})|list",
    "{l}|selectattr('a', 'eq', {t})|list",
    "{l}|groupby('a')",
    "{l}|map(attribute={t})|list",
    "{l}|reverse|list",
    "{l}|batch({n})|list",
    "{l}|slice({n})",
    "{d}.items()|list",
    "{d}|dictsort",
    "{d}|items",
    "{d}.values()",
    "{l}.copy()",
    "{t}.split()",
    "{t}.split({s})",
    "{t}.rsplit({t}, {n})",
    "{t}.splitlines()",
    "{t}.splitlines(true)",
    "{l} + {l}",
    "{l} * {n}",
    "{l}[{n}:]",
    "{l}[::{n}]",
    "[{l}, {l}]",
    "({l}, {t})",
    "{l}|map('replace', {s}, {t})|list",
    "{l}|map('tojson')|list",
    "messages",
    "messages|map(attribute='content')|list",
)
_VALUES = (
    "{l}|length",
    "{t}|length",
    "{t} in {t}",
    "{t} in {l}",
    "{n} in {l}",
    "{t} == {t}",
    "{l} == {l}",
    "{l} < {l}",
    "{l} in {l}",
    "{d} == {d}",
    "{t} < {t}",
    "{t}.find({t})",
    "{t}.rfind({t})",
    "{t}.index({s})",
    "{t}.count({s})",
    "{t}.rindex({t})",
    "{l}.index({t})",
    "{l}.count({n})",
    "{t}.startswith({t})",
    "{t}.endswith({l}|list)",
    "{l}.append({t})",
    "{l}.append({l})",
    "{l}.pop()",
    "{l}.pop({n})",
    "{t}.isdigit()",
    "{t} is lower",
    "{t} is upper",
    "{t} is odd",
    "{n} is divisibleby({n})",
    "{t} is in({l})",
    "{t}|int",
    "{t}|int(0, {n})",
    "{t}|float",
    "{n}|round({n})",
    "{n}|round({n}, 'ceil')",
    "{t}|round({n}, 'floor')",
    "{n}|abs",
    "{l}|min",
    "{l}|max(true, {s})",
    "{l}|first",
    "{l}|last",
    "{n} + {n}",
    "{n} * {n}",
    "{n} ** {n}",
    "{n} % {n}",
    "{n} / {n}",
    "{n} // {n}",
    "{n} - {n}",
    "{d}.get({t})",
    "{d}[{t}]",
    "{l}[{n}]",
    "{t}[{n}]",
    "{t} is sameas({t})",
    "{t}|wordcount",
    "{l}|sum",
    "{t} is filter",
    "not {l}",
    "-{n}",
    "{d}.keys() - {d}.keys()",
    "{n} < {n} < {n}",
    "{l} is iterable",
    "{d}.keys() == {d}.keys()",
    "{d}.items() < {d}.items()",
    "{l}|random",
    "{t}.a.b",
    "{d}.a",
)
_WRITTEN = (
    "{l}|string",
    "{l}|tojson",
    "{d}|tojson({n})",
    "{d}|tojson(indent={s})",
    "{l}|tojson(separators=({t}, {s}))",
    "{l}|tojson(indent={n}, sort_keys=true)",
    "{t}|tojson",
    "{l}|tojson(true)",
    "{t} ~ {l}",
    "{l} ~ {d}",
    "{n} ~ {n}",
    "{l}|join({t})",
    "{l}|join(attribute='a')",
    "{l}|join({s}, {s})",
    "{t} ~ {t}",
    "{t} + {t}",
    "{t} * {n}",
    "{t}[{n}:{n}]",
    "{t}[::-1]",
    "({p}) % {t}",
    "({p}) % ({t}, {n}, {l})",
    "({p}) % {d}",
    "({p})|format({t}, {n})",
    "({f}).format({t}, {n})",
    "({f}).format({l}, {t}, a={d})",
    "(({f})|safe).format({t}, {n})",
    "({f}).format_map({d})",
    "strftime_now({p})",
    "messages[0].content",
    "messages[0]['content'] * {n}",
    "raise_exception({t})",
)
_DICTIONARIES = (
    "{{{t}: {l}, 'a': {t}}}",
    "{{({t}, {n}): {n}}}",
    "dict({l})",
    "dict(a={t}, b={l})",
    "dict.fromkeys({l})",
    "dict.fromkeys({t}, {l})",
    "{d}.copy()",
    "{{'a': {d}, 'b': {d}}}",
    "dict({l}|map('list'))",
    "messages[0]",
    "namespace(a={t})",
    "namespace({d})",
    "namespace(**{d})",
)


class Maker:
    """Makes templates, all that follow from one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._names: list[str] = []

    def template(self) -> str:
        """One template."""
        self._names = []
        shapes = (*[self._program] * 8, self._loops, self._loops, self._repeated, self._chain)
        return self._chance.choice(shapes)()

    def _program(self) -> str:
        return "".join(self._statement(2) for _ in range(self._chance.randint(1, 8)))

    def _loops(self) -> str:
        """A namespace that grows in a loop, and what is made of it."""
        start = self._chance.choice(("'a'", "[1]", "(1,)", "{'a': 1}", "2", "messages[0].content", "messages"))
        growth = self._chance.choice(
            (
                "n.x ~ n.x",
                "n.x + n.x",
                "[n.x, n.x]",
                "(n.x, n.x)",
                "{'a': n.x, 'b': n.x}",
                "n.x * n.x",
                "(n.x,)",
                "[n.x]",
                "n.x|list",
                "n.x|string",
                "n.x|tojson",
                "n.x ~ messages[0].content ~ i",
                "n.x|replace('a', 'aa')",
                "n.x|escape",
                "n.x + [i]",
                "n.x + (n.x[0],)",
                "n.x|map('string')|list",
                "n.x|reverse|list",
                "n.x|upper",
                "namespace(x=n.x)",
                "n.x|indent(9)",
                "'%s%s'|format(n.x, n.x)",
                "'{0}{0}'.format(n.x)",
                "dict(a=n.x)",
                "n.x|sort",
                "n.x ~ '\U0001f600'",
            )
        )
        rounds = self._chance.choice((9, 20, 40, 99, 2000, 99999))
        last = self._fill(self._chance.choice(_VALUES + _WRITTEN), 1, ("n.x",) * 3)
        inner = self._statement(1) if self._chance.random() < 0.3 else ""
        return (
            f"{{% set n = namespace(x={start}) %}}{{% for i in range({rounds}) %}}{{% set n.x = {growth} %}}{inner}"
            f"{{% endfor %}}{{{{ {last} }}}}{{{{ n.x }}}}"
        )

    def _repeated(self) -> str:
        """One statement many times, outside of any loop."""
        setting = "".join(f"{{% set {name} = {self._value(1)} %}}" for name in "ab")
        self._names = ["a", "b"]
        return setting + self._statement(1) * self._chance.choice((10, 30, 100, 100, 400, 20000))

    def _chain(self) -> str:
        """What takes long to compile."""
        count = self._chance.choice((50, 500, 3000, 50000))
        name, number = self._chance.choice("ab"), self._chance.randint(1, 9)
        return self._chance.choice(
            (
                "{{ a" + f"|{self._chance.choice(('upper', 'trim', 'string', 'list'))}" * count + " }}",
                "{{ 1"
                + self._chance.choice(("+1", "*2", " and 1", " or 0", "~1", " < 2", " == 1", "-1", " if 1 else 1"))
                * count
                + " }}",
                "{{ " + self._chance.choice(("(", "[", "not ", "-", "{1:", "a(", "a[", "'a' if ")) * count + "1 }}",
                "{{ " + "(" * count + "1" + ")" * count + " }}",
                "{{ a" + ".b" * count + " }}",
                "{{ a" + "[0]" * count + " }}",
                "{% if a %}" + f"{{% elif {name} %}}{number}" * count + "{% endif %}",
                "{% if a %}" * count + "{% endif %}" * count,
                "{% for a in b %}" * min(count, 900) + "{% endfor %}" * min(count, 900),
                "".join(
                    f"{{% set {name}{i} = {i} %}}{{% if {name}{i} %}}{{% set c = 1 %}}{{% endif %}}"
                    for i in range(min(count, 5000))
                ),
                "{% macro m() %}" * min(count, 300) + "{% endmacro %}" * min(count, 300),
                "{{ [" + "1," * count + "] }}",
                "{{ {" + "1:1," * count + "} }}",
                "{{ '" + "\\n" * count + "' }}",
                "x" * count * 9,
                "{{ f(" + "a=1," * count + ") }}",
                "{{ f(" + ", ".join(f"a{i}=1" for i in range(min(count, 5000))) + ") }}",
                "{# " * count,
                "{% raw %}" + "{{" * count,
                "{{ 1" + "0" * count + " }}",
                "{{ 0x" + "f" * count + " }}",
                "{{ '" * count,
                "{%" + " " * count + "raw" + " " * count,
                "\n" * count * 5 + "{{ a }}",
                "{{ a }}\n  " * count,
                "{{ " + "1_" * count + "1e5 }}",
            )
        )

    def _statement(self, depth: int) -> str:
        value, kind = self._value(depth), self._chance.randint(0, 13)
        inner = self._statement(depth - 1) if depth > 0 else "x"
        count = self._chance.choice(_COUNTS)
        if kind < 5:
            self._names.append(name := f"v{len(self._names)}")
            return f"{{% set {name} = {value} %}}"
        return [
            f"{{{{ {value} }}}}",
            f"{{% if {value} %}}{inner}{{% endif %}}",
            f"{{% for i in {self._fill('{l}', depth, ())} %}}{inner}{{% endfor %}}",
            f"{{% for i in range({count}) if {value} %}}{{{{ loop.length }}}}{inner}{{% endfor %}}",
            f"{{% macro m(a) %}}{inner}{{{{ m(a ~ a) if a|length < 99999 }}}}{{% endmacro %}}{{{{ m({value}) }}}}",
            f"{{% set w %}}{inner}{inner}{{{{ {value} }}}}{{% endset %}}{{{{ w ~ w }}}}",
            f"{{% filter {self._fill(self._chance.choice(_TEXT_FILTERS), 0, ())} %}}{{{{ {value} }}}}{{% endfilter %}}",
            f"{{% set a, b = {value} %}}{{{{ a }}}}",
            f"{{% macro k() %}}{{{{ caller({value}) }}}}{{% endmacro %}}{{% call(u) k() %}}{{{{ u }}}}{inner}"
            "{% endcall %}",
        ][kind - 5]

    def _value(self, depth: int) -> str:
        kinds = (_VALUES, _WRITTEN, _LIST_MAKERS, _DICTIONARIES, ("{t}", "{l}", "{d}"))
        return self._fill(self._chance.choice(self._chance.choice(kinds)), depth, ())

    def _fill(self, pattern: str, depth: int, given: tuple[str, ...]) -> str:
        """A pattern with texts (t, short: s), numbers (n), lists (l), mappings (d) and formats (p, f) put in."""
        if self._chance.random() < 0.03:
            return self._fill("({t})|" + self._chance.choice(_TEXT_FILTERS), depth - 1, given) if depth > 0 else "none"
        made = pattern.replace("{{", "\0").replace("}}", "\1")
        names = list(given)
        for key, make in (
            ("t", self._text),
            ("s", self._short),
            ("n", self._number),
            ("l", self._list),
            ("d", self._mapping),
        ):
            while f"{{{key}}}" in made:
                made = made.replace(f"{{{key}}}", names.pop() if names and key in "tl" else make(depth - 1), 1)
        made = made.replace("{p}", self._format(_SPECS)).replace("{f}", self._format(_FIELDS))
        return made.replace("\0", "{").replace("\1", "}")

    def _short(self, depth: int) -> str:
        return f"'{self._chance.choice(_LETTERS)}'".replace("'''", '"\'"')

    def _text(self, depth: int) -> str:
        chance = self._chance.random()
        if self._names and chance < 0.3:
            return self._chance.choice(self._names)
        if depth > 0 and chance < 0.7:
            kind = self._chance.randint(0, 2)
            pattern = (
                "({t})|" + self._chance.choice(_TEXT_FILTERS),
                "({t})." + self._chance.choice(_TEXT_METHODS),
                self._chance.choice(_WRITTEN),
            )[kind]
            return f"({self._fill(pattern, depth, ())})"
        if chance < 0.85:
            return f"({self._short(0)} * {self._chance.choice(_COUNTS)})"
        return self._chance.choice((self._short(0), "messages[0].content", "messages[0].role"))

    def _number(self, depth: int) -> str:
        return self._chance.choice(_NUMBERS)

    def _list(self, depth: int) -> str:
        if depth > 0 and self._chance.random() < 0.6:
            return f"({self._fill(self._chance.choice(_LIST_MAKERS), depth, ())})"
        return self._chance.choice(
            (
                f"([{self._number(0)}] * {self._chance.choice(_COUNTS)})",
                f"([{self._text(0)}] * {self._chance.choice(_COUNTS)})",
                "range(99999)",
                "messages",
                "[{'a': 1}, {'a': 2}]",
                f"([{{'a': {self._short(0)}}}] * 9999)",
                "[]",
                "range(9)",
            )
        )

    def _mapping(self, depth: int) -> str:
        return self._fill(self._chance.choice(_DICTIONARIES), depth, ()) if depth > 0 else "{'a': 1, 'b': 'c'}"

    def _format(self, fields: tuple[str, ...]) -> str:
        text = "".join(self._chance.choice(fields) for _ in range(self._chance.randint(1, 4)))
        return f"'{text}'" + self._chance.choice(("", "", " * 90", " * 900", " * 1000000"))


@dataclass(frozen=True)
class Taken:
    """What a template took: `end` is the kind of error, or how much text it made."""

    source: str
    seconds: float
    bytes: int
    end: str

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.bytes >> 20} MB, {self.end}: {self.source[:200]!r}..."

    def is_too_much(self, seconds: float) -> bool:
        return self.seconds > seconds or self.bytes > MAX_BYTES


def measure(source: str) -> Taken:
    """Renders a template in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, pickle.dumps(_render(source)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if not answer:
        return Taken(source, usage.ru_utime + usage.ru_stime, 0, f"died {status}")
    return Taken(source, *pickle.loads(answer))


def _render(source: str) -> tuple[float, int, str]:
    gc.collect()
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    messages = written([{"role": "user", "content": "Tell me <|more|> of it. " * 50}, {"role": "user", "content": "x"}])
    assert isinstance(messages, list)
    try:
        end = f"{len(ChatTemplate(source).render(messages))} characters"
    except OpsinError as error:
        end = error.message[:80]
    except Exception as error:  # noqa: BLE001  (what gets out is what this looks for)
        return 99.0, 0, f"raises {type(error).__name__}: {error}"[:300]
    taken = time.process_time() - began
    return taken, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, end


def measured(count: int, seed: int) -> Iterator[Taken]:
    """So many templates, measured one after the other."""
    maker = Maker(seed)
    return (measure(maker.template()) for _ in range(count))


def main() -> int:
    options = argparse.ArgumentParser(description="Renders hostile templates, each in a process of its own.")
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--show", type=int, default=5, help="so many of the dearest are printed")
    options.add_argument("--seconds", type=float, default=1.0, help="of a processor that one may take")
    given = options.parse_args()
    taken = []
    for number, one in enumerate(measured(given.count, given.seed), 1):
        taken.append(one)
        if one.is_too_much(given.seconds):
            print(
                f"TOO MUCH at {number}: {one.seconds:.2f} s, {one.bytes >> 20} MB, {one.end}\n    {one.source[:1500]}",
                flush=True,
            )
    for key in ("seconds", "bytes"):
        for one in sorted(taken, key=lambda each: getattr(each, key), reverse=True)[: given.show]:
            print(one)
    bad = sum(one.is_too_much(given.seconds) for one in taken)
    whole = sum(one.end.endswith("characters") for one in taken)
    seconds = sum(one.seconds for one in taken)
    ends = len({one.end for one in taken})
    print(f"{len(taken)} templates, {whole} rendered to their end, {ends} ends, {seconds:.0f} s, {bad} took too much")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
