"""Which frames of a film are looked at: rules of families and of whoever asks. All give numbers of frames, rising."""

from __future__ import annotations

import math

import numpy as np

from opsin.media.film import Film, FrameChoice

FPS, MOST_FRAMES = 1.0, 64  # where neither a family nor a person says


def by_rate(film: Film, choice: FrameChoice, *, fps: float = FPS, most: int = MOST_FRAMES, least: int = 1) -> list[int]:
    """So many of each second, or so many in all; the first and the last frame are among them.

    What `choice` says holds before `fps` and `most`; a film of fewer frames than wanted is looked at whole.
    """
    count = wanted(film, choice, fps=fps, most=most, least=least)
    return [int(n) for n in np.linspace(0, len(film) - 1, count).round().astype(int)]


def wanted(film: Film, choice: FrameChoice, *, fps: float, most: int, least: int = 1) -> int:
    """How many frames."""
    rate = choice.fps or (fps if choice.frames is None else math.inf)
    count = int(min(len(film) / film.rate * rate, 1 << 30))
    if choice.frames is not None:
        most = choice.frames
    elif choice.fps is not None:
        most = len(film)
    return max(1, min(max(count, min(least, most)), most, len(film)))


def in_steps(film: Film, choice: FrameChoice, *, fps: float, most: int, least: int, step: int) -> list[int]:
    """The same, a whole number of `step` frames from the first on, each as far from the next.

    A film of fewer than `step` is looked at whole.
    """
    count = wanted(film, choice, fps=fps, most=most, least=least)
    if len(film) < step:
        return list(range(len(film)))
    count = max(count // step, 1) * step
    return [int(n) for n in np.arange(0, len(film), len(film) / count)[:count].astype(int)]


def evenly(film: Film, choice: FrameChoice, *, most: int) -> list[int]:
    """At most so many, each as far from the next; the first is among them, what comes last is not."""
    count = wanted(film, choice, fps=math.inf, most=most)
    return [number * len(film) // count for number in range(count)]


def within_ends(film: Film, choice: FrameChoice, *, fps: float, most: int, ends: float) -> list[int]:
    """As `by_rate`; of a film that has more seconds than can be seen the first and the last `ends` are left out."""
    asked = choice.fps is not None or choice.frames is not None
    usual = max(1, min(round(fps * film.seconds), most))
    count = wanted(film, choice, fps=fps, most=most) if asked else usual
    first, last = 0, len(film) - 1
    if film.seconds - 2 * ends > most * fps:
        first, last = int(ends * film.rate), min(int(len(film) - ends * film.rate), last)
    return [int(number) for number in np.unique(np.linspace(first, last, count, dtype=int))]
