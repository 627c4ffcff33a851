"""Grammars and schemas of somebody who means harm, each started and followed for a while. Exits with 0 where none does.

python tests/grammar/hostile_grammars.py     # with the memory and time of the process bounded
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping

import numpy as np

from opsin.errors import RequestError
from opsin.gguf import File
from opsin.grammar import Grammar, Grammars
from opsin.hub.bundled import bundled
from opsin.text import Tokenizer

MOST_BYTES, MOST_SECONDS = 3 << 30, 300  # of address space and of processor time, for all together
STEPS = 40


def _named(count: int, schema: Mapping[str, object]) -> dict[str, object]:
    return {f"p{i}": schema for i in range(count)}


def _branches(depth: int, width: int) -> dict[str, object]:
    return {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}{j}": {}}, "required": [f"p{i}{j}"]} for j in range(width)]}
            for i in range(depth)
        ]
    }  # fmt: skip


def _doubling(depth: int, word: str) -> dict[str, object]:
    links = {f"a{i}": {word: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(depth)}
    return {"$defs": {**links, f"a{depth}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def _chain(count: int, in_objects: bool) -> dict[str, object]:
    def link(name: str) -> dict[str, object]:
        found: dict[str, object] = {"$ref": f"#/$defs/{name}"}
        return {"type": "object", "properties": {"x": found}, "required": ["x"]} if in_objects else found

    return {"$defs": {**{f"a{i}": link(f"a{i + 1}") for i in range(count)}, f"a{count}": {}}, "$ref": "#/$defs/a0"}


TEXT = {"type": "string"}
SCHEMAS = [
    _branches(6, 4), _branches(4, 12), _doubling(25, "allOf"), _doubling(25, "anyOf"), {"$ref": "#"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"enum": [f"value {i}" for i in range(19_000)]}, {"type": "object", "properties": _named(3000, TEXT)},
    {"type": "object", "properties": _named(3000, TEXT), "required": [*_named(3000, TEXT)]},
    {"type": "array", "items": TEXT, "minItems": 10**9}, {"type": "string", "minLength": 10**9},
    {"type": "string", "maxLength": 10**6}, {"type": "integer", "multipleOf": 99_991},
    {"type": "number", "multipleOf": 1e-9}, {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    {"type": "string", "pattern": "(x+x+)+y"}, {"type": "string", "pattern": "^(a{1,100}){1,100}$"},
    {"type": "object", "patternProperties": {f"^.*{i}.*{i + 1}": TEXT for i in range(30)}},
    {"type": "object", "minProperties": 10**5}, {"type": "object", "maxProperties": 10**5},
    {"anyOf": [{"properties": {"a": {"type": "string", "pattern": f"^.*{i}.*$"}}} for i in range(300)]},
    _chain(3000, False), _chain(3000, True),
]  # fmt: skip
PATTERNS = [
    "(a{1000}){1000}", "(a|b)*a(a|b){500}", r"(\w{1,50}\W{1,50}){1,50}", "(.{1,100},){1,100}",
    "(" * 5000 + "a" + ")*" * 5000,
    "|".join(f"w{i}" for i in range(30_000)), r"(\p{L}{0,30}\p{N}{0,30}){0,30}", "((((a*)*)*)*)*", ".{1,1000000000}",
]  # fmt: skip
LARK = [
    'start: e\ne: e e | "a" | ""', 'start: e\ne: e /[a-z ]/ | e e e | "b"', "start: (a|b)*\na: /./\nb: /[a-z]/ a",
    'start: a{100000}\na: "x" | "y" a', 'start: a{1000}\na: b{1000}\nb: c{1000}\nc: "x" | "y" a',
    "start: A\nA: ~/(a|b)*a(a|b){60}/", "start: A\nA: " + " & ".join(f"/.*{c}.{{2,9}}.*/" for c in "abcdefghij"),
    "start: r0\n" + "\n".join(f'r{i}: "a" r{i + 1} | "b"' for i in range(9000)) + '\nr9000: "c"',
    "start: r0\n" + "\n".join(f"r{i}: r{i + 1} r{i + 1}" for i in range(9000)) + '\nr9000: "c"',
    "start: R0\n" + "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(290)) + '\nR290: "c"',
    "start: R0\n" + "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(3000)) + '\nR3000: "c"',
    'start: "a" start', "start: (((((((((((x)*)*)*)*)*)*)*)*)*)*)*\nx: /a/ | x x",
]  # fmt: skip
GBNF = [
    'root ::= "a" root', 'root ::= root "a" | "b" root | root root | ""', 'root ::= ("a"{10000}){10000}',
    "root ::= x*\nx ::= y*\ny ::= z*\nz ::= x | [a-z]",
    "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(40)) + '\nr40 ::= "a"',
    "root ::= r0\n" + "\n".join(f'r{i} ::= "a" r{i + 1}' for i in range(8000)) + '\nr8000 ::= "b"',
]  # fmt: skip


def follow(grammars: Grammars, make: Callable[[], Grammar]) -> str:
    """What came of a grammar: refused, failed on its way, or followed; whatever else it raises is a fault."""
    try:
        matcher = grammars.start(make())
    except RequestError:
        return "refused"
    chance, ends = np.random.default_rng(0), [*grammars.tokenizer.end_ids]
    try:
        for _ in range(STEPS):
            allowed = np.unpackbits(matcher.mask(), bitorder="little")
            allowed[ends] = 0
            if matcher.ended or not allowed.any():
                break
            matcher.accept(int(chance.choice(np.flatnonzero(allowed))))
    except RequestError:
        return "failed"
    return "followed"


def main() -> None:
    with File.open(bundled()) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    grammars = Grammars(tokenizer, tokenizer.vocabulary_size)
    kinds = {Grammar.json_schema: SCHEMAS, Grammar.regex: PATTERNS, Grammar.lark: LARK, Grammar.gbnf: GBNF}
    for make, sources in kinds.items():
        for source in sources:
            before = resource.getrusage(resource.RUSAGE_SELF)
            outcome = follow(grammars, lambda make=make, source=source: make(source))
            after = resource.getrusage(resource.RUSAGE_SELF)
            print(f"{outcome}, {after.ru_utime - before.ru_utime:.2f} s, "
                  f"{(after.ru_maxrss - before.ru_maxrss) >> 10} MB: {str(source)[:60]!r}", flush=True)  # fmt: skip
    sys.exit(0)


if __name__ == "__main__":
    main()
