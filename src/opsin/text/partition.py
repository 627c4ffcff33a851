"""Finds special tokens in text and cuts it there. Follows llama.cpp: the longest token text wins everywhere first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Fragment = str | int  # ordinary text, or the id of a special token

_MAX_TOGETHER = 4096
_HEAD = 4
_SLICE = 1 << 14  # characters: so many are looked through before other threads have their turn
WHITESPACE = " \t\n\v\f\r"


@dataclass(frozen=True)
class SpecialToken:
    """A token that is found by its text. `strip_left` and `strip_right` swallow the whitespace beside it."""

    id: int
    text: str
    strip_left: bool = False
    strip_right: bool = False


class Partition:
    """Cuts text at a fixed set of special tokens. One that is empty cuts nowhere."""

    def __init__(self, tokens: Iterable[SpecialToken]) -> None:
        ordered = sorted(tokens, key=lambda token: (-len(token.text.encode("utf-8", "surrogatepass")), token.id))
        self._tokens = ordered
        self._heads = {token.text[:2] for token in ordered}
        self._longest = max((len(token.text) for token in ordered), default=0)

    def split(self, text: str) -> list[Fragment]:
        """Fragments of `text` in order, none of them empty."""
        if not text:
            return []
        if self._pattern is not None:
            return self._split_once(text, self._pattern)
        fragments: list[Fragment] = [text]
        heads = {head for head in self._heads if head in text}
        for token in self._tokens:
            if token.text[:2] in heads and token.text in text:
                fragments = [part for fragment in fragments for part in _split_at(fragment, token)]
        return fragments

    def _split_once(self, text: str, pattern: re.Pattern[str]) -> list[Fragment]:
        parts: list[Fragment] = []
        place = begin = 0  # behind the last token; where to look on
        while begin < len(text):
            stop = begin + _SLICE
            for match in pattern.finditer(text, begin, stop + self._longest):
                if match.start() >= stop:
                    break
                parts += [text[place : match.start()], self._ids[match.group()]]
                place = match.end()
            begin = max(stop, place)
        return [part for part in [*parts, text[place:]] if part != ""]

    @cached_property
    def _ids(self) -> dict[Fragment, int]:
        return {token.text: token.id for token in reversed(self._tokens)}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """Finds all tokens in one pass over the text; None where one pass could choose others than many do."""
        plain = 0 < len(self._tokens) <= _MAX_TOGETHER and not any(t.strip_left or t.strip_right for t in self._tokens)
        if not plain or _overlap([token.text for token in self._tokens]):
            return None
        return re.compile(f"({_alternatives([token.text for token in self._tokens])})")


def _alternatives(texts: Sequence[str]) -> str:
    """A pattern for these texts, of which the longest come first; those that begin alike are tried together."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(text[:_HEAD] if len(text) > _HEAD else "", []).append(text)
    short = map(re.escape, groups.pop("", []))
    long = (f"{re.escape(head)}(?:{'|'.join(re.escape(t[_HEAD:]) for t in group)})" for head, group in groups.items())
    return "|".join([*long, *short])


def _overlap(texts: Sequence[str]) -> bool:
    """Whether an end of one text begins another. Runs of one character may overlap: the first longest wins anyway."""
    runs: set[str] = set()
    heads: set[str] = set()
    for text in texts:
        (runs if len(set(text)) == 1 else heads).update(text[:size] for size in range(1, len(text)))
    return any(
        text[-size:] in heads or (len(set(text)) > 1 and text[-size:] in runs)
        for text in texts
        for size in range(1, len(text))
    )


def _split_at(fragment: Fragment, token: SpecialToken) -> list[Fragment]:
    if isinstance(fragment, int):
        return [fragment]
    texts = fragment.split(token.text)
    parts: list[Fragment] = []
    for index, text in enumerate(texts):
        if index > 0:
            parts.append(token.id)
            if token.strip_right:
                text = text.lstrip(WHITESPACE)
        if index < len(texts) - 1 and token.strip_left:
            text = text.rstrip(WHITESPACE)
        if text:
            parts.append(text)
    return parts
