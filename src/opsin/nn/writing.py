"""What a family's file says of writing down what was said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Writing:
    """Of a model that transcribes.

    Attributes:
        never_first: ids that no window of sound begins with.
        alignment: (layer, head) of the attention that follows the sound, word by word; none where nobody knows.
        has_languages: whether it is told the language, and can tell it.
    """

    never_first: tuple[int, ...] = ()
    alignment: tuple[tuple[int, int], ...] = ()
    has_languages: bool = True
