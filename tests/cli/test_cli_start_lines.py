"""llama-server's start lines: each of its flags is taken, accepted with a line, or refused with what to do."""

from __future__ import annotations

import argparse

import pytest
from llama_server_flags import FLAGS, VARIABLES

from opsin.cli import environment, main, serve
from opsin.cli.chat_flags import template_of
from opsin.cli.start_lines import flags, said
from opsin.errors import FieldError, RequestError
from opsin.grammar import Grammar
from opsin.text.named_templates import NAMED_TEMPLATES

NEVER = {"LLAMA_API_KEY", "HF_TOKEN", "MTMD_BACKEND_DEVICE"}  # not of its prefix: read elsewhere, or by nobody


PARSER = main.parser()


def parsed(*arguments: str) -> argparse.Namespace:
    return PARSER.parse_args(["serve", "-m", "x.gguf", *arguments])


def lines(*arguments: str, **variables: str) -> list[str]:
    args = parsed(*arguments)
    return [*said(args), *environment.fill(args, variables)]


def settings(*arguments: str, **variables: str):
    args = parsed(*arguments)
    environment.fill(args, variables)
    return serve._settings(args)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return set(parser._subparsers._group_actions[0].choices["serve"]._option_string_actions)


def test_each_flag_of_llama_server_is_in_the_table_and_read_by_the_parser():
    names = [name for flag in flags() for name in flag.names]
    assert len(names) == len(set(names))
    assert FLAGS.keys() <= set(names)
    assert set(names) <= options(PARSER)


def test_flags_have_as_many_values_as_there():
    by_name = {name: flag for flag in flags() for name in flag.names}
    assert {name: by_name[name].values for name in FLAGS} == FLAGS


def test_each_variable_of_llama_server_is_in_the_table_or_read():
    known = {flag.variable for flag in flags()}
    assert not set(VARIABLES) - known - NEVER
    taken = {flag.variable for flag in flags() if flag.verdict == "taken" and flag.variable}
    assert taken <= set(environment._READ)


@pytest.mark.parametrize("flag", [flag for flag in flags() if flag.verdict == "accepted"], ids=lambda f: f.names[0])
def test_what_does_no_harm_is_accepted_with_a_line(flag):
    for name in flag.names:
        told = lines(name, *["7"] * flag.values)
        assert len(told) == 1 and told[0].startswith(f"{name}: ") and len(told[0]) < 160


@pytest.mark.parametrize("flag", [flag for flag in flags() if flag.verdict == "refused"], ids=lambda f: f.names[0])
def test_what_somebody_would_miss_is_refused_by_name(flag):
    for name in flag.names:
        with pytest.raises(RequestError, match=f"^{name}: ....."):
            parsed(name, *["7"] * flag.values)


def test_flags_that_are_left_aside_for_one_reason_are_one_line():
    told = lines("--mlock", "-fa", "on", "--jinja", "-ngl", "99", "--no-mmap", "-ub", "512", "--cont-batching")
    assert [line.partition(":")[0] for line in told] == [
        "--mlock, --no-mmap",
        "-fa, -ub, --cont-batching",
        "--jinja",
        "-ngl",
    ]


def test_values_that_ask_for_nothing_are_taken_without_a_word():
    assert lines("-ngl", "0", "--keep", "0", "--reasoning-budget", "-1", "-dev", "none") == []


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"LLAMA_ARG_N_GPU_LAYERS": "99", "LLAMA_ARG_CPU_MOE": "1"},
            ["LLAMA_ARG_CPU_MOE, LLAMA_ARG_N_GPU_LAYERS: there is no GPU"],
        ),
        (
            {"LLAMA_ARG_CONTEXT_SHIFT": "false", "LLAMA_ARG_EMBEDDINGS": "0"},
            ["LLAMA_ARG_CONTEXT_SHIFT: all answers share"],
        ),
        ({"LLAMA_ARG_FLASH_ATTN": ""}, []),
        ({"LLAMA_ARG_SOMETHING": "1"}, ["set in the environment, and not read by this server: LLAMA_ARG_SOMETHING"]),
    ],
)  # fmt: skip
def test_variables_are_told_as_flags_are(variables, told):
    got = lines(**variables)
    assert len(got) == len(told) and all(line.startswith(start) for line, start in zip(got, told, strict=True)), got


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTEXT_SHIFT", "1"),
        ("REASONING_PRESERVE", "off"),
        ("RPC", "a:1"),
    ],
)
def test_variables_are_refused_as_flags_are(name, value):
    with pytest.raises(RequestError, match=f"LLAMA_ARG_{name} is set: ....."):
        lines(**{f"LLAMA_ARG_{name}": value})


@pytest.mark.parametrize(
    ("typed", "name"), [("-ngl=1", "-ngl"), ("--ctx", "--ctx"), ("-cx", "-cx"), ("--flash", "--flash")]
)
def test_names_are_whole(typed, name, capsys):
    if typed == "-ngl=1":
        assert lines(typed)
        return
    assert main.run(["serve", "-m", "x.gguf", typed, "1"]) == 2
    assert repr(name) in capsys.readouterr().err


def test_what_requests_take_where_they_say_nothing_is_read_as_their_fields():
    made = settings(
        "--temp", "0.5", "-n", "64", "-s", "7", "--top-k", "5", "-r", "A", "-r", "B", "--ignore-eos",
        LLAMA_ARG_TOP_P="0.9", LLAMA_ARG_TEMPERATURE="0.1",
    )  # fmt: skip
    assert made.defaults == {
        "temperature": 0.5, "n_predict": 64, "seed": 7, "top_k": 5, "stop": ["A", "B"], "ignore_eos": True,
        "top_p": 0.9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "value", "field"), [("--repeat-last-n", "-5", "repeat_last_n"), ("-n", "-7", "n_predict")]
)
def test_a_default_that_no_request_could_have_ends_it(flag, value, field):
    with pytest.raises(RequestError, match=f"^{field}: "):
        settings(flag, value)


def test_a_bias_is_an_id_and_a_number(capsys):
    args = parsed("-l", "15043+1", "-l", "7-2.5", "--logit-bias", "9-inf")
    assert args.default_logit_bias == [[15043, 1.0], [7, -2.5], [9, False]]
    assert main.run(["serve", "-m", "x.gguf", "-l", "much"]) == 2
    assert "'much' is no bias" in capsys.readouterr().err


def test_the_cache_has_one_number_format():
    assert serve._cache_type(parsed("-ctk", "q8_0", "-ctv", "q8_0")) == "q8_0"
    assert serve._cache_type(parsed("--cache-type-k", "f32")) == "f32"
    assert serve._cache_type(parsed("--cache-type", "q8_0")) == "q8_0"
    for wrong in (("-ctk", "q8_0", "-ctv", "f16"), ("-ctk", "iq4_nl")):
        with pytest.raises(RequestError, match="f16, q8_0, q4_0, f32"):
            serve._cache_type(parsed(*wrong))


def test_what_is_chosen_by_itself_may_be_asked_for():
    args = parsed("-np", "-1", "-t", "-1")
    assert (args.parallel, args.threads) == (None, None)
    assert parsed("--mmproj-auto").vision is True and parsed("--no-mmproj-auto").vision is False


def test_what_is_told_can_be_switched_off():
    made = settings("--no-slots", "--no-webui", "--tags", "a, b", "--cors-origins", "http://a,http://b", "--reuse-port")
    assert (made.slots, made.page, made.tags, made.origins, made.reuse_port) == (
        False, False, ("a", "b"), ("http://a", "http://b"), True,
    )  # fmt: skip
    made = settings(LLAMA_ARG_ENDPOINT_SLOTS="off", LLAMA_ARG_NO_UI="1", LLAMA_ARG_REUSE_PORT="true")
    assert (made.slots, made.page, made.reuse_port) == (False, False, True)


def test_where_things_are_kept(tmp_path):
    made = settings("--slot-save-path", str(tmp_path / "a" / "slots"), "--max-files", "3")
    assert (made.slot_path, made.files_bytes) == (tmp_path / "a" / "slots", 3 << 20)
    assert made.slot_path.stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RequestError, match="cannot be made"):
        settings("--slot-save-path", str(tmp_path / "file"))


def test_thoughts_and_templates_are_taken_as_fields_of_conversations(tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    made = settings(
        "--chat-template-kwargs", '{"a": 1}', "-rea", "off", "--reasoning-budget", "5", "--reasoning-format", "none",
        LLAMA_ARG_REASONING_EFFORT="low", LLAMA_ARG_REASONING="on",
    )  # fmt: skip
    assert made.chat_defaults == {
        "chat_template_kwargs": {"a": 1}, "enable_thinking": False, "thinking_budget_tokens": 5,
        "reasoning_format": "none", "reasoning_effort": "low",
    }  # fmt: skip
    assert settings("-rea", "auto", "--reasoning-budget", "-1", "--reasoning-effort", "default").chat_defaults == {}
    assert template_of(parsed("--chat-template-file", str(tmp_path / "t.jinja"))) == "{{ messages }}"
    assert template_of(parsed("--chat-template", "chatml")) == NAMED_TEMPLATES["chatml"]
    assert template_of(parsed("--chat-template", "{{ 1 }}")) == "{{ 1 }}" and template_of(parsed()) is None


def test_what_all_answers_are_held_to_is_taken(tmp_path):
    (tmp_path / "yes.gbnf").write_text('root ::= "yes"')
    (tmp_path / "yes.json").write_text('{"const": "yes"}')
    for typed in (("--grammar", 'root ::= "yes"'), ("--grammar-file", str(tmp_path / "yes.gbnf"))):
        assert isinstance(settings(*typed).grammar, Grammar)
    schema = Grammar.json_schema('{"const": "yes"}')
    for typed in (("-j", '{"const": "yes"}'), ("--json-schema-file", str(tmp_path / "yes.json"))):
        assert settings(*typed).grammar == schema
    assert settings("-j", "{}").grammar == Grammar.json_object()
    assert settings().grammar is None
    with pytest.raises(RequestError, match="no rule 'x'"):
        settings("--grammar", "root ::= x")


def test_how_conversations_go_on_is_taken():
    assert settings().prefill and settings("--prefill-assistant").prefill
    assert not settings("--no-prefill-assistant").prefill
    assert not settings(LLAMA_ARG_NO_PREFILL_ASSISTANT="1").prefill
    assert not settings(LLAMA_ARG_PREFILL_ASSISTANT="off").prefill
    words = {"reasoning_budget_message": "Enough."}
    assert settings("--reasoning-budget-message", "Enough.").chat_defaults == words
    assert settings(LLAMA_ARG_THINK_BUDGET_MESSAGE="Enough.").chat_defaults == words
    with pytest.raises(FieldError, match="^reasoning_budget_message: "):
        settings("--reasoning-budget-message", "x" * 5000)


@pytest.mark.parametrize("typed", [("--chat-template", "chatty"), ("--chat-template-file", "/no/such/file")])
def test_a_template_that_is_none_is_refused(typed):
    with pytest.raises(RequestError, match="template"):
        template_of(parsed(*typed))
