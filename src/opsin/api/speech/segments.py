"""What was written of windows becomes segments with moments, and tells where the next window begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opsin.api.speech.speech_ids import STEP, SpeechIds
from opsin.media.mel import FRAMES

_PER_STEP = round(STEP * FRAMES)  # frames of log-mel
_LONG, _LEAST_RATE = 8.0, 1.0  # seconds, and ids a second, slower than which nobody speaks for so long


@dataclass(frozen=True)
class Word:
    """A word with its signs, as it stands in the text (often behind a space)."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """Some words that were said together.

    Attributes:
        start, end: seconds from the beginning of the sound.
        text: as it was written, often behind a space.
        ids: its tokens, moments among them.
        temperature: at which it was written.
        average_logprob: of its window's ids.
        compression_ratio: of its window's text: what is said over and over is packed well.
        no_speech: how likely nobody speaks in its window.
        frame: of log-mel, with which its window begins.
        words: with their times, where these were asked for.
    """

    start: float
    end: float
    text: str
    ids: tuple[int, ...]
    temperature: float
    average_logprob: float
    compression_ratio: float
    no_speech: float
    frame: int
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Utterance:
    """Ids of one segment of a window, with its beginning and end in seconds from there."""

    ids: tuple[int, ...]
    start: float
    end: float

    @property
    def is_stretched(self) -> bool:
        """Whether it is slower than anybody speaks."""
        return are_few(len(self.ids) - 2, self.end - self.start)


def are_few(ids: int, seconds: float) -> bool:
    """Whether so many are too few for so long a speech; of a short one nobody can tell."""
    return seconds > _LONG and ids < _LEAST_RATE * seconds


def utterances(written: Sequence[int], ids: SpeechIds, frames: int) -> tuple[list[Utterance], int]:
    """The segments of a window of so many frames, and how many of these are done.

    Two moments side by side end a segment. What follows the last such pair was cut by the window's end: it is heard
    again, but where it ends with a single moment, behind which nobody speaks. A few words that are stretched to the
    window's end may hide others: they are heard again, too, where something stands before them.
    """
    is_moment = [id >= ids.first_moment for id in written]
    cuts = [n + 1 for n, pair in enumerate(zip(is_moment, is_moment[1:], strict=False)) if all(pair)]
    ends_alone = is_moment[-2:] == [False, True]
    if not cuts:
        moments = [id for id, moment in zip(written, is_moment, strict=True) if moment]
        last = (moments[-1] - ids.first_moment) * STEP if moments else 0.0
        return [Utterance(tuple(written), 0.0, last or frames / FRAMES)], frames
    cuts += [len(written)] if ends_alone else []
    found = []
    for begin, end in zip([0, *cuts], cuts, strict=False):
        part = tuple(written[begin:end])
        start, stop = ((id - ids.first_moment) * STEP for id in (part[0], part[-1]))
        found.append(Utterance(part, max(0.0, start), max(0.0, stop)))
    if ends_alone and len(found) > 1 and found[-1].is_stretched:
        return found[:-1], round(found[-1].start * FRAMES)
    done = frames if ends_alone else min(frames, (written[cuts[-1] - 1] - ids.first_moment) * _PER_STEP)
    return found, done if done > 0 else frames
