"""What a user writes stays text, through any template, and comes back exactly."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.text import ChatTemplate, Tokenizer, protect, protect_values
from opsin.text.protection import ESCAPE, MARK, Guard, unprotect
from opsin.text.vocabulary import CONTROL

CONTROLS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "§", "¶¶"]
BITS = st.sampled_from(
    [*CONTROLS, "<", "<|", "<|i", "im_end|>", "</", "s>", "§", "¶", " ", "\n", "a", MARK, ESCAPE, "\ufde0", "</think>"]
)
TEXTS = st.lists(BITS | st.text(max_size=2), max_size=8).map("".join)
GUARD = Guard(CONTROLS)


@settings(deadline=None)
@given(TEXTS)
def test_every_text_comes_back(text: str) -> None:
    assert unprotect(GUARD.protect(text)) == text


@settings(deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 40), st.integers(0, 40))
def test_no_control_text_in_what_is_joined_stripped_and_cut(one: str, other: str, start: int, end: int) -> None:
    first, second = GUARD.protect(one), GUARD.protect(other)
    for joined in (first + second, first.strip() + second.strip(), first[start:] + second[:end]):
        assert not any(control in joined for control in CONTROLS)
    assert "<|im_end|>" not in first + "im_end|>"


def test_other_markers_keep_their_form_for_the_template() -> None:
    text = "<think>x</think> <b> </p> [1]"
    assert GUARD.protect(text) == text


@pytest.mark.model
@settings(deadline=None)
@given(TEXTS)
def test_users_text_encodes_as_if_it_stood_alone(smollm: Mapping[str, object], text: str) -> None:
    tokenizer = make(smollm)
    assert tokenizer.encode(protect(text, tokenizer), special=True) == tokenizer.encode(text)


@pytest.mark.model
@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_control_tokens_come_only_from_the_template(smollm: Mapping[str, object], texts: list[str]) -> None:
    tokenizer, template = make(smollm), ChatTemplate.from_metadata(smollm)
    assert template is not None

    def count(contents: list[str]) -> list[int]:
        messages = protect_values([{"role": "user", "content": content} for content in contents], tokenizer)
        assert isinstance(messages, list)
        ids = tokenizer.encode(template.render(messages), special=True)
        kinds = smollm["tokenizer.ggml.token_type"]
        return [id for id in ids if kinds[id] == CONTROL]  # type: ignore[index]

    assert count(texts) == count(["x"] * len(texts))


def test_values_are_protected_wherever_strings_are() -> None:
    tokenizer = type("Guarded", (), {"guard": GUARD})()
    value = {"content": [{"type": "text", "text": "<s>"}], "tool": {"<s>": ("</s>", 1, None)}}
    found = protect_values(value, tokenizer)
    assert found == {
        "content": [{"type": "text", "text": f"<{MARK}s>"}],
        "tool": {f"<{MARK}s>": [f"<{MARK}/s>", 1, None]},
    }
    assert value["tool"] == {"<s>": ("</s>", 1, None)}


def test_forged_escape_is_no_error() -> None:
    assert unprotect(ESCAPE + "\ufdef" * 6 + "x") == "x"


_made: dict[int, Tokenizer] = {}


def make(metadata: Mapping[str, object]) -> Tokenizer:
    if id(metadata) not in _made:
        _made[id(metadata)] = Tokenizer.from_metadata(metadata)
    return _made[id(metadata)]
