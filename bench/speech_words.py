"""How far the times of words lie from those that are known, and how far those of transformers do.

    python bench/speech_words.py FILE... --espeak libespeak-ng.so.1 [--data FOLDER] [--voices NAME:RATE...]
        [--transformers FOLDER] [--cuts FOLDER]

espeak-ng (Debian: libespeak-ng1, espeak-ng-data) speaks, and tells at which sample each word and each phone begins.
Words that were written as they were said are compared: how many begin, and end, within 0.1 s of it, and how late all
are. --voices: espeak-ng's, each with words a minute. --transformers: the model's folder as `tools/fetch_whisper.py`
makes it; it writes the same sounds, and cuts joined as in `bench/speech_errors.py`, of which the times of segments
with the same text are compared.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path

import numpy as np
import soxr
import speech_sounds
from figure import Figure
from speech_sounds import RATE, Samples

import opsin
from opsin.api.speech.segments import Segment, Word

THREADS = 2
WANTED, BESIDE = 0.1, 0.2  # seconds from what is known, and from transformers
JOINED = (0, 1, 2)  # seeds of recordings of a minute
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
VOICES = ("en-us:130", "en-us:175", "en:150", "en-us+f3:160", "en-gb-scotland+m3:190", "en-us+croak:145")
_WORD, _PHONE, _PHONES, _SYNCHRONOUS, _RATE, _UTF8 = 1, 7, 1, 2, 1, 1  # of speak_lib.h


@dataclass(frozen=True)
class Said:
    """A sound at 16 kHz, its words, and when each begins and ends, in seconds."""

    samples: Samples
    words: tuple[str, ...]
    begins: tuple[float, ...]
    ends: tuple[float, ...]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("place", ctypes.c_int), ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    )  # fmt: skip


_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def spoken(library: str, data: str | None, voice: str, words_a_minute: int) -> Iterator[Said]:
    """All texts, by one voice."""
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data and data.encode(), _PHONES)
    if rate <= 0 or espeak.espeak_SetVoiceByName(voice.encode()):
        raise SystemExit(f"espeak-ng does not begin, or has no voice {voice!r}; see --data")
    espeak.espeak_SetParameter(_RATE, words_a_minute, 0)
    for text in TEXTS:
        pieces: list[Samples] = []
        words: list[tuple[float, int]] = []
        phones: list[tuple[float, bytes]] = []

        def take(wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
            if count > 0:
                pieces.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 32768)  # noqa: B023
            number = 0
            while (event := events[number]).type:
                if event.type == _WORD:
                    words.append((event.milliseconds / 1000, event.place - 1))  # noqa: B023
                elif event.type == _PHONE:
                    phones.append((event.milliseconds / 1000, bytes(event.id)))  # noqa: B023
                number += 1
            return 0

        callback = _Heard(take)
        espeak.espeak_SetSynthCallback(callback)
        given = text.encode()
        espeak.espeak_Synth(given, len(given) + 1, 0, 1, 0, _UTF8, None, None)
        samples = soxr.resample(np.concatenate(pieces), rate, RATE).astype(np.float32)
        begins = tuple(begin for begin, _ in words)
        names = tuple(" ".join(speech_sounds.normal(text[place:])[:1]) for _, place in words)
        yield Said(samples, names, begins, tuple(_ends(begins, phones, len(samples) / RATE)))


def _ends(begins: Sequence[float], phones: Sequence[tuple[float, bytes]], whole: float) -> Iterator[float]:
    """Where the last phone before each next word ends, which is no pause."""
    for begin, following in itertools.pairwise((*begins, whole)):
        pauses = [at for at, phone in phones if begin < at < following and phone.startswith(b"_")]
        yield min(pauses, default=following)


def late(said: Said, written: Sequence[Word]) -> tuple[list[float], list[float]]:
    """Seconds by which words that were written as they were said begin behind where they do; and end."""
    names = [" ".join(speech_sounds.normal(word.text)) for word in written]
    blocks = SequenceMatcher(None, said.words, names, autojunk=False).get_matching_blocks()
    pairs = [(block.a + n, block.b + n) for block in blocks for n in range(block.size)]
    begins = [written[j].start - said.begins[i] for i, j in pairs]
    return begins, [written[j].end - said.ends[i] for i, j in pairs]


def apart(ours: Sequence[Segment], theirs: Sequence[tuple[str, float, float]]) -> list[float]:
    """Seconds by which segments of the same text begin and end behind those of transformers."""
    texts = [" ".join(speech_sounds.normal(one.text)) for one in ours]
    others = [" ".join(speech_sounds.normal(text)) for text, _, _ in theirs]
    blocks = SequenceMatcher(None, texts, others, autojunk=False).get_matching_blocks()
    pairs = [(ours[block.a + n], theirs[block.b + n]) for block in blocks for n in range(block.size)]
    return [off for one, (_, start, end) in pairs for off in (one.start - start, one.end - end)]


def told(name: str, off: Sequence[float], bound: float) -> str:
    """A line: the median of how far times are off, and more of it."""
    values = np.array(off)
    size = np.abs(values)
    note = f"of {len(values)}, {np.mean(size <= bound):.0%} within {bound} s; late by {np.median(values):+.3f}"
    return Figure(name, float(np.median(size)), bound, "s off in the middle", note).line()


def compared(name: str, sounds: Sequence[Said], write: Callable[[Samples], Sequence[Word]]) -> None:
    """Print how far words begin and end from where they are known to."""
    off = [late(said, write(said.samples)) for said in sounds]
    for what, each in zip(("begin", "end"), zip(*off, strict=True), strict=True):
        print(told(f"{name}, words {what}", list(itertools.chain(*each)), WANTED), flush=True)


def main() -> None:
    """Print two lines for each program and voice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--espeak", required=True)
    parser.add_argument("--data")
    parser.add_argument("--voices", nargs="+", default=VOICES, metavar="NAME:RATE")
    parser.add_argument("--transformers", type=Path)
    parser.add_argument("--cuts", type=Path)
    args = parser.parse_args()
    spoke = {voice: list(spoken(args.espeak, args.data, *_voice(voice))) for voice in args.voices}
    cuts = speech_sounds.cuts(args.cuts)
    joined = [speech_sounds.joined(cuts, 60, disturbed=True, seed=seed).samples for seed in JOINED]
    theirs: list[list[tuple[str, float, float]]] = []
    if args.transformers:
        from speech_theirs import Theirs

        program = Theirs.load(args.transformers, THREADS)
        theirs = [program.segments(samples) for samples in joined]
        for voice, sounds in spoke.items():
            compared(f"transformers, {voice}", sounds, program.words)
    for file in args.files:
        with opsin.load(file, threads=THREADS) as model:
            for voice, sounds in spoke.items():
                compared(f"{file.name}, {voice}", sounds, partial(_words, model))
            made = [list(model.transcribe(samples, language="en")) for samples in joined if theirs]
        off = [each for ours, others in zip(made, theirs, strict=True) for each in apart(ours, others)]
        if off:
            print(told(f"{file.name}, segments beside transformers", off, BESIDE), flush=True)


def _voice(told: str) -> tuple[str, int]:
    name, _, rate = told.rpartition(":")
    return name, int(rate)


def _words(model: opsin.Model, samples: Samples) -> list[Word]:
    made = model.transcribe(samples, language="en", words=True)
    return [word for segment in made for word in segment.words]


if __name__ == "__main__":
    main()
