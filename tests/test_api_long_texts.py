"""Texts that cannot fit are refused by their length, and no text keeps the interpreter from other threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from turns import LONGEST, longest_wait

import opsin
from opsin.api import Model
from opsin.errors import ContextError
from opsin.text import ChatTemplate, Tokenizer

MANY, MILLION = 100_000, 1_000_000


@pytest.fixture(scope="module")
def model(tiny_file: Callable[..., Path]) -> Iterator[Model]:
    with opsin.load(tiny_file(), threads=1) as made:
        yield made


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_what_cannot_fit_is_neither_rendered_nor_encoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("worked on")

    text = "a" * 1_000_000
    monkeypatch.setattr(Tokenizer, "encode", never)
    monkeypatch.setattr(ChatTemplate, "render", never)
    hi = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}] * (MANY // 2)
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    for ask in (
        lambda: model.question(user(text)), lambda: model.question(parts), lambda: model.question(hi),
        lambda: model.chat(user(text)), lambda: model.complete(text), lambda: model.raw([text]),
        lambda: model.raw([[1] * 100_000, "a"]),
    ):  # fmt: skip
        with pytest.raises(ContextError, match=f"at least [0-9]+ tokens. .*size .{model.context}") as caught:
            ask()
        assert caught.value.prompt_tokens >= caught.value.context_tokens == model.context


def test_of_a_prompt_that_is_quickly_counted_the_exact_number_is_told(model: Model) -> None:
    text = "the " * (2 * model.context)
    for ask, wanted in (
        (lambda: model.chat(user(text)), model.count(user(text))),
        (lambda: model.complete(text), len(model.tokenize(text))),
    ):
        with pytest.raises(ContextError, match=f"the prompt .{wanted} tokens") as caught:
            ask()
        assert caught.value.prompt_tokens == wanted


def test_space_that_a_template_takes_away_is_no_reason_to_refuse(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    long = user(" " * 1_000_000 + "hi" + "\n" * 1_000_000)
    template = ChatTemplate("{% for m in messages %}{{ m.content | trim }}{% endfor %}")
    monkeypatch.setattr(model.text.prompting, "template", template)
    assert model.detokenize(model.question(long).prompt.spans[0].ids) == "hi"


@pytest.mark.model
def test_no_door_keeps_other_threads_from_their_turn(smollm2: Path) -> None:
    with opsin.load(smollm2, threads=1) as made:
        for text in ("a" * MILLION, "The sun shines on the sea, isn't it?\n" * (MILLION // 37), "!" * MILLION):
            for ask in (
                lambda text: made.tokenize(text, special=True), lambda text: made.count(user(text)),
                lambda text: made.write(user(text)), lambda text: refused(made.question, user(text)),
                lambda text: refused(made.raw, [text]), lambda text: refused(made.complete, text),
            ):  # fmt: skip
                waited = longest_wait(lambda number, ask=ask, text=text: ask(text + "b" * number))
                assert waited < LONGEST, text[:40]


def refused(ask: Callable[..., object], asked: object) -> None:
    with pytest.raises(ContextError):
        ask(asked)
