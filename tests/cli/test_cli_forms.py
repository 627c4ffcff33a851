"""`opsin chat` with answers that are held to a form."""

from __future__ import annotations

import json

import pytest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}  # fmt: skip
GBNF = 'root ::= "yes" | "no"'


@pytest.mark.parametrize("flag", ["--json-schema", "-j", "--json-schema-file", "-jf"])
def test_a_schema_holds(run, tmp_path, flag):
    given = json.dumps(SCHEMA)
    if "f" in flag:
        (tmp_path / "schema.json").write_text(given)
        given = tmp_path / "schema.json"
    done = run("chat", "--seed", 1, flag, given, "Hi")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"n"}


@pytest.mark.parametrize("flag", ["--grammar", "--grammar-file"])
def test_a_grammar_holds(run, tmp_path, flag):
    given = GBNF
    if flag.endswith("file"):
        given = tmp_path / "yes.gbnf"
        given.write_text(GBNF)
    assert run("chat", "--seed", 1, flag, given, "Hi").stdout in ("yes\n", "no\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--grammar", "root ::= x"), "no rule 'x'"),
        (("--json-schema", "{"), "no JSON"),
        (("--json-schema", '{"not": {}}'), '"not"'),
        (("--json-schema-file", "/nowhere/x.json"), "/nowhere/x.json cannot be read"),
        (("--grammar", GBNF, "--json-schema", "{}"), "not allowed with"),
    ],
)
def test_a_wrong_form_is_told_in_a_line(run, given, message):
    done = run("chat", *given, "Hi")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
