"""What a family's file says of writing down what was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Writing:
    """Of a model that transcribes.

    Attributes:
        never_first: ids that no window of sound begins with.
        has_languages: whether it is told the language, and can tell it.
    """

    never_first: tuple[int, ...] = ()
    has_languages: bool = True


@dataclass(frozen=True)
class Dictation:
    """Of a model that is talked to, and was taught a prompt of its own for writing down what was said.

    Attributes:
        prompt: all of it, special tokens too, with {sound}, {language}, and {words} where it takes words that may come.
        told: takes the place of {language} where that is known, with its {code} or {name}.
        token: that vocabularies of such models have. In an answer the language's name stands before it, text behind.
        languages: names by code; where there are none, any code is told as it is.
    """

    prompt: str
    told: str
    token: str
    languages: Mapping[str, str] = field(default_factory=dict)
