"""Options are read by their whole names, and one that there is not is named as it was typed."""

from __future__ import annotations

import argparse

import pytest

from opsin.cli import main

PARSER = main.parser()
COMMANDS = next(action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        PARSER.parse_args(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_of_any_command_may_be_abbreviated(capsys, command: str) -> None:
    known = COMMANDS[command]._option_string_actions
    beginnings = {option[:length] for option in known for length in range(2, len(option))}
    for begun in beginnings - {*known, "--"}:
        said = refusal(capsys, command, begun, "64")
        assert said.startswith(f"opsin {command}: error: there is no option '{begun}'"), said


@pytest.mark.parametrize(
    "option",
    ["-mmFILE", "-mdx", "-npx", "-nglx", "-tx", "--ctx-sizes", "--mlocks", "--xyz=secret", "-vv=secret"],
)  # fmt: skip
def test_an_option_that_there_is_not_is_named_as_it_was_typed(capsys, option: str) -> None:
    for others in ((), ("-m", "x.gguf"), ("--api-key", "secret")):
        said = refusal(capsys, "serve", *others, option, "8")
        assert f"there is no option {option.partition('=')[0]!r}" in said
        assert "secret" not in said


def test_a_value_stands_apart_or_behind_an_equals_sign(capsys) -> None:
    read = main.parser().parse_args(["serve", "-m=a.gguf", "-t", "4", "--port=0", "--sse-ping-interval", "-1"])
    assert (str(read.model), read.threads, read.port, read.sse_ping_interval) == ("a.gguf", 4, 0, -1)
    assert refusal(capsys, "serve", "-t4").endswith("write -t 4")
    assert "did you mean --parallel?" in refusal(capsys, "serve", "--paralel", "4")
    assert "api-key" not in refusal(capsys, "serve", "--ssl-keys-file", "x")
    assert "did you mean --context?" in refusal(capsys, "chat", "--contxt=4")


def test_texts_and_what_follows_two_dashes_are_no_options(capsys) -> None:
    assert main.parser().parse_args(["chat", "-m", "x", "-5"]).prompt == "-5"
    assert main.parser().parse_args(["chat", "-m", "x", "- what is this?"]).prompt == "- what is this?"
    assert main.parser().parse_args(["chat", "-m", "x", "--", "-what"]).prompt == "-what"
    assert "there is no option '--verson'" in refusal(capsys, "--verson")


def test_names_may_be_written_with_underscores_as_llama_server_lets_them() -> None:
    read = main.parser().parse_args(["serve", "--n_predict=4", "--drain_seconds", "2"])
    assert (read.default_n_predict, read.drain_seconds) == (4, 2)
