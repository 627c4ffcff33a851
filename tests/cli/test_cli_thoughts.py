"""`opsin chat` with a model that thinks: thoughts on stderr, the answer on stdout."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_llama

SOURCE = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.reasoning_content %}<think>\n"
    "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
    "{% if enable_thinking is false or hurry %}\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("thinking") / "t.gguf"
    return tiny_llama(path, specials=("<think>", "</think>"), metadata={"tokenizer.chat_template": SOURCE})


def test_thoughts_go_to_stderr_as_long_as_they_may(run, model):
    ask = ("chat", "-m", model, "-t", 1, "-n", 8, "--seed", 1, "--ignore-eos", "Why?")
    thinking, held = run(*ask), run(*ask, "--reasoning-budget", 0)
    assert thinking.stdout == "\n"
    assert len(held.stdout) > 3
    assert len(thinking.stderr) > len(held.stderr)
    for not_thinking in (run(*ask, "--no-think"), run(*ask, "--chat-template-kwargs", '{"hurry": true}')):
        assert len(not_thinking.stdout) > 3
        assert len(thinking.stderr) > len(not_thinking.stderr)


@pytest.mark.parametrize("wrong", [("--chat-template-kwargs", "[1]"), ("--chat-template-kwargs", "{")])
def test_what_cannot_be_taken_is_said(run, model, wrong):
    done = run("chat", "-m", model, *wrong, "Why?")
    assert (done.returncode, done.stdout) == (2, "")
    assert wrong[0] in done.stderr


def test_a_negative_budget_is_refused(run, model):
    done = run("chat", "-m", model, "--reasoning-budget", -2, "Why?")
    assert done.returncode != 0
    assert "--reasoning-budget" in done.stderr


def test_thoughts_may_stand_in_the_answer(run, model):
    ask = ("chat", "-m", model, "-t", 1, "-n", 8, "--seed", 1, "--ignore-eos", "Why?")
    apart, same = run(*ask), run(*ask, "--reasoning-format", "deepseek")
    within, legacy = (run(*ask, "--reasoning-format", form) for form in ("none", "deepseek-legacy"))
    assert apart.stdout == same.stdout == "\n"
    assert within.stdout == legacy.stdout and len(within.stdout) > 3
    assert len(apart.stderr) > len(within.stderr)
    assert run(*ask, "--reasoning-format", "other").returncode == 2


def test_thoughts_that_are_ended_have_a_last_word(run, model):
    ask = ("chat", "-m", model, "-t", 1, "-n", 60, "--seed", 1, "--ignore-eos", "--reasoning-budget", 2, "Why?")
    assert "Enough now." in run(*ask, "--reasoning-budget-message", "Enough now.").stderr
    assert "Enough now." in run(*ask, "--reasoning-budget-message", "Enough now.", "--reasoning-format", "none").stdout
