"""Finds special tokens in text and cuts it there. Follows llama.cpp: the longest token text wins everywhere first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Fragment = str | int  # ordinary text, or the id of a special token

_WHITESPACE: Final = " \t\n\v\f\r"


@dataclass(frozen=True)
class SpecialToken:
    """A token that is found by its text. `strip_left` and `strip_right` swallow the whitespace beside it."""

    id: int
    text: str
    strip_left: bool = False
    strip_right: bool = False


class Partition:
    """Cuts text at a fixed set of special tokens."""

    def __init__(self, tokens: Iterable[SpecialToken]) -> None:
        ordered = sorted(tokens, key=lambda token: (-len(token.text.encode("utf-8", "surrogatepass")), token.id))
        self._tokens = ordered
        self._heads = {token.text[:2] for token in ordered}

    def split(self, text: str) -> list[Fragment]:
        """Fragments of `text` in order, none of them empty."""
        fragments: list[Fragment] = [text] if text else []
        heads = {head for head in self._heads if head in text}
        if not heads:
            return fragments
        for token in self._tokens:
            if token.text[:2] in heads and token.text in text:
                fragments = [part for fragment in fragments for part in _split_at(fragment, token)]
        return fragments


def _split_at(fragment: Fragment, token: SpecialToken) -> list[Fragment]:
    if isinstance(fragment, int):
        return [fragment]
    texts = fragment.split(token.text)
    parts: list[Fragment] = []
    for index, text in enumerate(texts):
        if index > 0:
            parts.append(token.id)
            if token.strip_right:
                text = text.lstrip(_WHITESPACE)
        if index < len(texts) - 1 and token.strip_left:
            text = text.rstrip(_WHITESPACE)
        if text:
            parts.append(text)
    return parts
