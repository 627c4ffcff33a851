"""The words of a window, and when each was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opsin.api.speech.pauses import spread
from opsin.api.speech.segments import Word
from opsin.arrays import Ints
from opsin.media.mel import FRAMES
from opsin.text import Tokenizer

_FRAMES = 2  # of log-mel from one row of what was heard to the next; the first row is around the first frame
_BEFORE, _BEHIND = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"  # signs that go with the next word, and with the one before
UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")  # languages that write no spaces between words


@dataclass(frozen=True)
class Spelt:
    """A word, and how many ids it has."""

    text: str
    ids: int


def split_words(tokenizer: Tokenizer, ids: Sequence[int], language: str | None) -> list[Spelt]:
    """The words of a text's ids, each with the signs that belong to it; joined they are the text."""
    found: list[Spelt] = []
    for unit in _units(tokenizer, ids):
        is_sign = not any(letter.isalnum() for letter in unit.text)
        alone = not found or unit.text.startswith(" ") or language in UNSPACED or is_sign
        if alone and not (found and found[-1].text.isspace()):
            found.append(unit)
        else:
            found[-1] = Spelt(found[-1].text + unit.text, found[-1].ids + unit.ids)
    return _with_signs(found)


def _units(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Spelt]:
    """Ids together that spell whole characters."""
    made, first = list[Spelt](), 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[first:end])
        if text and (not text.endswith("\ufffd") or end == len(ids)):
            made.append(Spelt(text, end - first))
            first = end
    return made


def _with_signs(words: Sequence[Spelt]) -> list[Spelt]:
    """Opening signs with the word behind them, others with the one before."""
    found: list[Spelt] = []
    opening: Spelt | None = None
    for word in words:
        sign = word.text.strip()
        if opening is not None:
            word, opening = Spelt(opening.text + word.text, opening.ids + word.ids), None
        if sign and word.text.startswith(" ") and all(letter in _BEFORE for letter in sign):
            opening = word
        elif found and sign and not word.text.startswith(" ") and all(letter in _BEHIND for letter in sign):
            found[-1] = Spelt(found[-1].text + word.text, found[-1].ids + word.ids)
        else:
            found.append(word)
    return [*found, opening] if opening is not None else found


def place_words(
    words: Sequence[Spelt], rows: Ints, quiet: list[tuple[int, int]], chances: Sequence[float], start: float
) -> list[Word]:
    """Words with their times.

    Args:
        words: of all ids.
        rows: of what was heard, where each id begins, and where the last one ends (`pointing.py`).
        quiet: pauses of the window, in frames of log-mel.
        chances: of each id.
        start: of the window, in seconds.
    """
    cuts = np.cumsum([0, *(word.ids for word in words)])
    ends, begins = spread([int(rows[cut]) * _FRAMES for cut in cuts], quiet)
    placed: list[Word] = []
    for i, word in enumerate(words):
        begin, end = (round(start + frame / FRAMES, 2) for frame in (begins[i], max(begins[i], ends[i + 1])))
        placed.append(Word(word.text, begin, end, float(np.mean(chances[cuts[i] : cuts[i + 1]]))))
    return placed
