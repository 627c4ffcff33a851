"""The markers that families write around media: some are tokens, and must be tokens of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

_WORD = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")  # how families write the markers that are tokens


class KnowsTokens(Protocol):
    """A tokenizer."""

    def encode(self, text: str, *, special: bool) -> list[int]: ...


def strange_word(markers: Iterable[str], tokenizer: KnowsTokens) -> str | None:
    """The first word in markers that looks like a token and is none."""
    words = sorted({word for marker in markers for word in _WORD.findall(marker)})
    return next((word for word in words if len(tokenizer.encode(word, special=True)) != 1), None)
