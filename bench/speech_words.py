"""How far the times of words lie from those that are known, and from those of transformers.

    python bench/speech_words.py FILE... --espeak libespeak-ng.so.1 [--data FOLDER] [--transformers FOLDER]

espeak-ng (Debian: libespeak-ng1, espeak-ng-data) speaks, and tells at which sample each word begins. Words that were
written as they were said are compared: where each begins, in how many it is off by 0.1 s at most, and by how much all
are late. --transformers: the model's folder as `tools/fetch_whisper.py` makes it; it writes the same sounds, and ends
of words are compared.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import soxr
import speech_sounds
from figure import Figure
from speech_sounds import RATE, Samples

import opsin
from opsin.api.speech.segments import Word

THREADS = 2
WANTED = 0.1  # seconds
TEXTS = (  # of the Harvard sentences (IEEE 1969), which hold the sounds of English as often as it does
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It is easy to tell the "
    "depth of a well. These days a chicken leg is a rare dish. Rice is often served in round bowls.",
    "The juice of lemons makes fine punch. The box was thrown beside the parked truck. The hogs were fed chopped corn "
    "and garbage. Four hours of steady work faced us. A large size in stockings is hard to sell.",
    "The boy was there when the sun rose. A rod is used to catch pink salmon. The source of the huge river is the "
    "clear spring. Kick the ball straight and follow through. Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening. Smoky fires lack flame and heat. The soft cushion broke the fall of the "
    "man. The salt breeze came across from the sea. The girl at the booth sold fifty bonds.",
)
_WORD, _SYNCHRONOUS, _RATE, _UTF8 = 1, 2, 1, 1  # of speak_lib.h


@dataclass(frozen=True)
class Said:
    """A sound at 16 kHz, its words, and when each begins, in seconds."""

    samples: Samples
    words: tuple[str, ...]
    begins: tuple[float, ...]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("place", ctypes.c_int), ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    )  # fmt: skip


_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def spoken(library: str, data: str | None, voice: str, words_a_minute: int) -> Iterator[Said]:
    """All texts, by one voice."""
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data and data.encode(), 0)
    if rate <= 0 or espeak.espeak_SetVoiceByName(voice.encode()):
        raise SystemExit(f"espeak-ng does not begin, or has no voice {voice!r}; see --data")
    espeak.espeak_SetParameter(_RATE, words_a_minute, 0)
    for text in TEXTS:
        pieces: list[Samples] = []
        found: list[tuple[int, float]] = []

        def take(wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
            if count > 0:
                pieces.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 32768)  # noqa: B023
            number = 0
            while events[number].type:
                if events[number].type == _WORD:
                    found.append((events[number].place - 1, events[number].milliseconds / 1000))  # noqa: B023
                number += 1
            return 0

        callback = _Heard(take)
        espeak.espeak_SetSynthCallback(callback)
        given = text.encode()
        espeak.espeak_Synth(given, len(given) + 1, 0, 1, 0, _UTF8, None, None)
        samples = soxr.resample(np.concatenate(pieces), rate, RATE).astype(np.float32)
        names = [" ".join(speech_sounds.normal(text[place:])[:1]) for place, _ in found]
        yield Said(samples, tuple(names), tuple(begin for _, begin in found))


def late(said: Said, written: Sequence[Word]) -> list[float]:
    """Seconds by which words that were written as they were said begin behind where they do."""
    return [written[j].start - said.begins[i] for i, j in _alike(said.words, [word.text for word in written])]


def apart(written: Sequence[Word], theirs: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds by which words end behind where those of transformers do that are the same."""
    pairs = _alike([" ".join(speech_sounds.normal(text)) for text, _ in theirs], [word.text for word in written])
    return [written[j].end - theirs[i][1] for i, j in pairs]


def _alike(known: Sequence[str], written: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of words that stand in both, in order."""
    names = [" ".join(speech_sounds.normal(text)) for text in written]
    for block in SequenceMatcher(None, known, names, autojunk=False).get_matching_blocks():
        yield from ((block.a + i, block.b + i) for i in range(block.size))


def told(name: str, off: Sequence[float], bound: float) -> str:
    """A line: the median of how far words are off, and more of it."""
    values = np.array(off)
    middle, size = float(np.median(values)), np.abs(values)
    note = (
        f"{len(values)} words, {np.mean(size <= WANTED):.0%} within {WANTED} s; late by {middle:+.3f} in the middle, "
        f"{np.mean(np.abs(values - middle) <= WANTED):.0%} within {WANTED} s of that"
    )
    return Figure(name, float(np.median(size)), bound, "s off in the middle", note).line()


def main() -> None:
    """Print a line for each file, and one beside transformers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--espeak", required=True)
    parser.add_argument("--data")
    parser.add_argument("--voice", default="en-us")
    parser.add_argument("--rate", type=int, default=150, help="words a minute")
    parser.add_argument("--transformers", type=Path)
    args = parser.parse_args()
    sounds = [*spoken(args.espeak, args.data, args.voice, args.rate)]
    known: list[list[tuple[str, float]]] = []
    if args.transformers:
        from speech_theirs import Theirs

        program = Theirs.load(args.transformers, THREADS)
        known = [program.words(said.samples) for said in sounds]
    for file in args.files:
        with opsin.load(file, threads=THREADS) as model:
            written = [
                [
                    word
                    for segment in model.transcribe(said.samples, language="en", words=True)
                    for word in segment.words
                ]
                for said in sounds
            ]
        beside = [off for words, theirs in zip(written, known, strict=False) for off in apart(words, theirs)]
        off = [each for said, words in zip(sounds, written, strict=True) for each in late(said, words)]
        print(told(f"{file.name}, words begin", off, WANTED), flush=True)
        if beside:
            print(told(f"{file.name}, words end, beside transformers", beside, WANTED), flush=True)


if __name__ == "__main__":
    main()
