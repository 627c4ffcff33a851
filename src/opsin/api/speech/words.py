"""The words of a window, and when each was said: some heads of a decoder look at the sound as they write it.

Their attention is followed by dynamic time warping (Radford et al. 2022's published code; Sakoe and Chiba 1978).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opsin.api.speech.segments import Word
from opsin.arrays import Floats
from opsin.text import Tokenizer

_PER_ROW = 0.02  # seconds that one row of what was heard lasts
_MEDIAN = 7  # rows over which weights are smoothed
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


def place_words(words: Sequence[Spelt], weights: Floats, chances: Sequence[float], start: float) -> list[Word]:
    """Words with their times.

    Args:
        words: of all ids.
        weights: [heads, ids + 1, rows], of what was heard, as the row before each id and the last one look at it.
        chances: of each id.
        start: of the window, in seconds.
    """
    if not words:
        return []
    begins = _jumps(_smooth(weights))
    cuts = np.cumsum([0, *(word.ids for word in words)])
    times = [start + float(begins[cut]) * _PER_ROW for cut in cuts]
    return [
        Word(word.text, round(times[i], 2), round(times[i + 1], 2), float(np.mean(chances[cuts[i] : cuts[i + 1]])))
        for i, word in enumerate(words)
    ]


def _smooth(weights: Floats) -> npt.NDArray[np.float64]:
    """[ids, rows]: the mean of heads that are normed over ids and median filtered over rows."""
    shares = weights.astype(np.float64)
    shares /= np.maximum(shares.sum(-1, keepdims=True), 1e-30)
    shares = (shares - shares.mean(1, keepdims=True)) / np.maximum(shares.std(1, keepdims=True), 1e-10)
    half = min(_MEDIAN // 2, shares.shape[-1] - 1)
    padded = np.pad(shares, ((0, 0), (0, 0), (half, half)), "reflect")
    seen = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=-1)
    smooth: npt.NDArray[np.float64] = np.median(seen, -1).mean(0)
    return smooth


def _jumps(likeness: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The row at which the cheapest path through [ids, rows] comes to each id."""
    ids, rows = likeness.shape
    path = _path(-likeness)
    begins = np.zeros(ids, np.int64)
    for id, row in path:  # from its end on, so that the first row of an id stays
        begins[id] = row
    assert len(path) >= max(ids, rows)
    return begins


def _path(costs: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """The cheapest way from the last cell to the first, by steps of one along either side or both."""
    high, wide = costs.shape
    whole = np.full((high + 1, wide + 1), np.inf)
    whole[0, 0] = 0
    for both in range(2, high + wide + 1):  # a diagonal needs the two before it alone
        i = np.arange(max(1, both - wide), min(high, both - 1) + 1)
        j = both - i
        least = np.minimum(np.minimum(whole[i - 1, j - 1], whole[i - 1, j]), whole[i, j - 1])
        whole[i, j] = costs[i - 1, j - 1] + least
    i, j, found = high, wide, [(high - 1, wide - 1)]
    while (i, j) != (1, 1):
        steps = [(whole[i - 1, j - 1], i - 1, j - 1), (whole[i - 1, j], i - 1, j), (whole[i, j - 1], i, j - 1)]
        _, i, j = min(steps, key=lambda step: step[0])
        found.append((i - 1, j - 1))
    return found
