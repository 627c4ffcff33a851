"""What was written of a window at one temperature, and whether it goes round: the same again and again, to no end.

A text that is packed well repeats itself, and so may whoever speaks. A model that goes round does it in a few tokens,
or comes to no end; whoever says a sentence four times comes to one.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Final

from opsin.api.speech.segments import are_few

_LAST: Final = 32  # ids that are looked at
_LEAST_ENTROPY: Final = 2.4  # of these, in nats: eleven that are equally frequent


@dataclass(frozen=True)
class Drawn:
    """Ids, and whether they came to an end."""

    ids: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class Try:
    """What was written of a window.

    Attributes:
        ids: moments among them.
        temperature: at which it was written.
        average: logarithm of how likely an id is.
        compression: of its text: how many times shorter it is when packed.
        ended: whether it came to an end.
    """

    ids: tuple[int, ...]
    temperature: float
    average: float
    compression: float
    ended: bool = True

    def passes_over(self, seconds: float, least: float) -> bool:
        """Whether so many seconds have a few words of which it is half as sure as it must be: others may be there."""
        return are_few(len(self.ids), seconds) and self.average < least / 2

    def goes_round(self, most: float) -> bool:
        """Whether it is packed better than this, and in a few ids or without an end."""
        return self.compression > most and (not self.ended or _entropy(self.ids[-_LAST:]) < _LEAST_ENTROPY)


def compression(text: str) -> float:
    """How many times shorter a text is when packed; 0 of nothing."""
    plain = text.strip().encode()
    return len(plain) / len(zlib.compress(plain)) if plain else 0.0


def _entropy(ids: tuple[int, ...]) -> float:
    """Of how often each comes, in nats."""
    return -sum(count / len(ids) * math.log(count / len(ids)) for count in Counter(ids).values())
