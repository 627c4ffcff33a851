"""Damaged sounds, by chance: each becomes a waveform within its limits or is refused, soon and in little memory.

    python tests/media/fuzz_sounds.py --rounds 5000 --seed 7

Prints how many of each kind were what, the slowest, and how much memory was used at most.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import warnings
from collections import Counter
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from fuzz_pictures import damage

from opsin.errors import RequestError
from opsin.media.hearing import check_sound, open_sound
from opsin.media.sound import SoundLimits

sys.path.append(str(Path(__file__).parents[1]))
from made_tracks import made_track

LIMITS = SoundLimits(bytes=1 << 20, seconds=60, channels=8)
SLOW_SECONDS = 10.0  # of work
MOST_KILOBYTES = 300_000  # that all mutants together may add to the process
FILES = (("WAV", "PCM_16"), ("WAV", "MS_ADPCM"), ("RF64", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"),
         ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("CAF", "ALAC_16"))  # fmt: skip
TRACKS = (("ipod", "aac", 16_000), ("mp4", "alac", 16_000), ("mov", "pcm_s16le", 16_000), ("adts", "aac", 16_000),
          ("webm", "libopus", 48_000), ("matroska", "flac", 16_000), ("matroska", "aac", 16_000),
          ("mpegts", "aac", 16_000), ("avi", "pcm_u8", 16_000), ("mp4", "libmp3lame", 16_000))  # fmt: skip


@cache
def originals() -> list[tuple[str, bytes]]:
    """By name, a third of a second in two channels each."""
    noise = np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32) * 0.1
    made = [(f"{kind} {codec}", made_track(noise[:, : rate // 3], kind, codec, rate)) for kind, codec, rate in TRACKS]
    for kind, subtype in FILES:
        file = BytesIO()
        soundfile.write(file, noise[:, :5000].T, 16_000, format=kind, subtype=subtype)
        made.append((f"{kind} {subtype}", file.getvalue()))
    return made


def tried(data: bytes) -> str:
    """What came of it. Raises AssertionError for what should not be."""
    begun = time.process_time()  # not the clock on the wall: the machine may be busy
    try:
        check_sound(data, LIMITS)
        sound = open_sound(data, LIMITS)
    except RequestError as error:
        outcome = "refused"
        assert error.hint, f"an error without a way out: {error}"
    else:
        outcome = "sound"
        assert 0 < sound.seconds < LIMITS.seconds + 1 and np.isfinite(sound.samples).all()
    seconds = time.process_time() - begun
    assert seconds < SLOW_SECONDS, f"took {seconds:.1f} s"
    return outcome


def run(rounds: int, seed: int, first: int = 0) -> Counter[str]:
    """Try so many mutants, each of which depends on the seed and its number alone."""
    outcomes: Counter[str] = Counter()
    seeds = originals()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, first + rounds):
        dice = random.Random(f"{seed}/{number}")
        name, original = dice.choice(seeds)
        data = bytearray(original)
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            if data:
                damage(data, seeds, dice)
        try:
            outcomes[f"{name} {tried(bytes(data))}"] += 1
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < MOST_KILOBYTES, f"{grown >> 10} MB more"
        except BaseException as error:
            raise AssertionError(f"mutant {number} of seed {seed}, {name}: {type(error).__name__}: {error}") from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("error")
    begun = time.perf_counter()
    outcomes = run(args.rounds, args.seed, args.first)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    for name, count in sorted(outcomes.items()):
        print(f"{name:30} {count:6}")
    print(f"{args.rounds} mutants, {peak} MB at most, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
