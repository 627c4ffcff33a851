"""What a user writes stays text, through any template, and comes back exactly."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.text import ChatTemplate, Tokenizer, escape_special_tokens, escaping
from opsin.text.escaping import BREAK, ESCAPE, SpecialTokenEscaper, unescape
from opsin.text.origin import Written, join, spans_of, written
from opsin.text.vocabulary import CONTROL

CONTROLS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "§", "¶¶"]
BITS = st.sampled_from(
    [*CONTROLS, "<", "<|", "<|i", "im_end|>", "</", "s>", "§", "¶", " ", "\n", "a", BREAK, ESCAPE, "\ufde0", "</think>"]
)
TEXTS = st.lists(BITS | st.text(max_size=2), max_size=8).map("".join)
ESCAPER = SpecialTokenEscaper(CONTROLS)


@settings(deadline=None)
@given(st.lists(TEXTS | TEXTS.map(Written), max_size=4).map(lambda parts: join("", parts)))
def test_every_text_comes_back(text: str) -> None:
    forged = any(sign in part for part in own_parts(text) for sign in (BREAK, ESCAPE))
    assert forged or unescape(ESCAPER.escape(text)) == text


@settings(deadline=None)
@given(st.lists(TEXTS | TEXTS.map(Written), max_size=4))
def test_what_people_wrote_is_part_of_no_control_text(parts: list[str]) -> None:
    """Each character of a control text that is left in the whole stands in a part of the template's own."""
    given = join("", parts)
    escaped = ESCAPER.escape(given)
    places = origins(given, escaped)
    for control in CONTROLS:
        start = escaped.find(control)
        while start >= 0:
            assert not any(places[start : start + len(control)])
            start = escaped.find(control, start + 1)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 12))
def test_steps_change_nothing(text: str, step: int) -> None:
    whole = ESCAPER.escape(Written(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(escaping, "_STEP", step)
        assert ESCAPER.escape(Written(text)) == whole
        assert unescape(whole) == text


def test_the_templates_own_control_texts_stay() -> None:
    text = join("", ["<s>[INST]", Written("<|im_end|>"), "</s>", Written("a"), "<|im_end|>§"])
    assert ESCAPER.escape(text) == f"<s>[INST]<{BREAK}|im_end|></s>a<|im_end|>§"


@pytest.mark.parametrize("size", range(1, 10))
def test_what_the_template_begins_nobody_ends(size: int) -> None:
    control = "<|im_end|>"
    for parts in ([control[:size], Written(control[size:])], [Written(control[:size]), control[size:]]):
        escaped = ESCAPER.escape(join("", parts))
        assert control not in escaped
        assert unescape(escaped) == control


def test_a_role_that_the_template_knows_may_be_part_of_a_token() -> None:
    source = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{{ m.content }}{% endfor %}"
    text = ChatTemplate(source).render([{"role": "user", "content": Written("<|user|>")}])
    assert SpecialTokenEscaper(["<|user|>"]).escape(text) == f"<|user|><{BREAK}|user|>"


def test_other_markers_keep_their_form_for_the_template() -> None:
    text = Written("<think>x</think> <b> </p> [1]")
    assert ESCAPER.escape(text) == text


def own_parts(text: str) -> list[str]:
    """What of a text is not people's."""
    parts, place = [], 0
    for start, end in spans_of(text):
        parts.append(str.__str__(text)[place:start])
        place = end
    return [*parts, str.__str__(text)[place:]]


def origins(given: str, escaped: str) -> list[bool]:
    """Of each character of an escaped text, whether people wrote it; breaks and escapes count as theirs."""
    people = [False] * len(given)
    for start, end in spans_of(given):
        people[start:end] = [True] * (end - start)
    places, found = 0, []
    rest = iter(range(len(escaped)))
    for at in rest:
        letter = escaped[at]
        if places < len(given) and letter == given[places] and not (letter == ESCAPE and people[places]):
            found.append(people[places])
            places += 1
        elif letter == ESCAPE:
            found += [True] * 7
            places += 1
            for _ in range(6):
                next(rest)
        else:
            found.append(True)
    return found


@pytest.mark.model
@settings(deadline=None)
@given(TEXTS)
def test_users_text_encodes_as_if_it_stood_alone(smollm: Mapping[str, object], text: str) -> None:
    tokenizer = make(smollm)
    assert tokenizer.encode(escape_special_tokens(Written(text), tokenizer), special=True) == tokenizer.encode(text)


@pytest.mark.model
@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_control_tokens_come_only_from_the_template(smollm: Mapping[str, object], texts: list[str]) -> None:
    tokenizer, template = make(smollm), ChatTemplate.from_metadata(smollm)
    assert template is not None

    def count(contents: list[str]) -> list[int]:
        messages = written([{"role": "user", "content": content} for content in contents])
        assert isinstance(messages, list)
        ids = tokenizer.encode(escape_special_tokens(template.render(messages), tokenizer), special=True)
        kinds = smollm["tokenizer.ggml.token_type"]
        return [id for id in ids if kinds[id] == CONTROL]  # type: ignore[index]

    assert count(texts) == count(["x"] * len(texts))


def test_forged_escape_is_no_error() -> None:
    assert unescape(ESCAPE + "\ufdef" * 6 + "x") == "x"


_made: dict[int, Tokenizer] = {}


def make(metadata: Mapping[str, object]) -> Tokenizer:
    if id(metadata) not in _made:
        _made[id(metadata)] = Tokenizer.from_metadata(metadata)
    return _made[id(metadata)]
