"""Long recordings with known words, for benchmarks: short cuts, joined by pauses with noise and music."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.media.hearing import open_sound

RATE = 16_000
EXAMPLE = Path(__file__).parents[1] / "examples" / "sense.flac"
EXAMPLE_WORDS = (
    "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do for "
    "them"
)
Samples = npt.NDArray[np.float32]
_SHORT = {"mr": "mister", "mrs": "missus"}
_LINE = re.compile(r"<s> (.*) </s> \((.*)\)")  # of pocketsphinx' transcriptions
_STRAY = {"a more a amiable": "a more amiable"}  # a word that nobody says, in a transcription


@dataclass(frozen=True)
class Spoken:
    """A recording at 16 kHz and its words."""

    samples: Samples
    words: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def cuts(folder: Path | None) -> list[Spoken]:
    """A folder's WAV files that its file `transcription` names, as pocketsphinx-testdata has them; or the example."""
    if folder is None:
        return [Spoken(open_sound(EXAMPLE).samples, normal(EXAMPLE_WORDS))]
    lines = _LINE.findall((folder / "transcription").read_text(encoding="utf-8"))
    return [Spoken(open_sound(folder / f"{name}.wav").samples, normal(text)) for text, name in lines]


def joined(cuts: Sequence[Spoken], seconds: float, *, disturbed: bool, seed: int = 0) -> Spoken:
    """Cuts in random order up to this length, each once before any comes again: what is said over and over is doubted.

    `disturbed`: pauses of 0.2 to 4 s hold silence, noise or music, and there is noise behind half of what is said,
    20 dB below it.
    """
    random = np.random.default_rng(seed)
    parts: list[Samples] = []
    words: list[str] = []
    deck: list[Spoken] = []
    length = 0
    while length < seconds * RATE:
        deck = deck or [cuts[i] for i in random.permutation(len(cuts))]
        cut = deck.pop()
        said = cut.samples
        if disturbed and random.random() < 0.5:
            said = said + _noise(len(said), 0.1 * float(said.std()), random)
        pause = _pause(random) if disturbed else np.zeros(RATE // 2, np.float32)
        parts += [said, pause]
        words += cut.words
        length += len(said) + len(pause)
    return Spoken(np.concatenate(parts), tuple(words))


def _pause(random: np.random.Generator) -> Samples:
    count = int(random.uniform(0.2, 4) * RATE)
    kind = random.integers(3)
    if kind == 0:
        return np.zeros(count, np.float32)
    if kind == 1:
        return _noise(count, 0.01, random)
    times = np.arange(count) / RATE
    notes = 220 * 2 ** (random.choice([0, 3, 5, 7, 10, 12], 4) / 12)  # a chord whose notes come one after another
    tones = [np.sin(2 * np.pi * note * times) * (times > i * 0.3) for i, note in enumerate(notes)]
    fade = np.minimum(1, np.minimum(times, times[::-1]) * 10)
    chord: Samples = (0.02 * np.sum(tones, 0) * fade).astype(np.float32)
    return chord


def _noise(count: int, deviation: float, random: np.random.Generator) -> Samples:
    return (random.standard_normal(count) * deviation).astype(np.float32)


def normal(text: str) -> tuple[str, ...]:
    """Words alone, as they are compared."""
    plain = re.sub(r"[^a-z0-9' ]+", " ", text.lower().replace(".", " "))
    for stray, right in _STRAY.items():
        plain = plain.replace(stray, right)
    return tuple(_SHORT.get(word, word) for word in plain.split())


def errors(known: Sequence[str], written: Sequence[str]) -> int:
    """Words to change, to leave out and to add, fewest together (Levenshtein 1966)."""
    ids = {word: id for id, word in enumerate({*known, *written})}
    theirs = np.array([ids[word] for word in written], np.int64)
    places = np.arange(len(written) + 1)
    costs = places.copy()
    for word in known:
        fresh = np.concatenate([[costs[0] + 1], np.minimum(costs[1:] + 1, costs[:-1] + (theirs != ids[word]))])
        costs = np.minimum.accumulate(fresh - places) + places  # words that are added, from the left
    return int(costs[-1])
