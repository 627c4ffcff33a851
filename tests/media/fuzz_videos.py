"""Damaged videos, by chance: each becomes a film whose first, middle and last frame are asked for, or is refused.

    python tests/media/fuzz_videos.py --rounds 5000 --seed 7

Prints how many were what, the slowest, and how much memory was used at most.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
from made_videos import made_video

from opsin.errors import RequestError
from opsin.media.film import VideoLimits
from opsin.media.video_file import open_film

LIMITS = VideoLimits(bytes=1 << 22, frames=10_000, pixels=4_000_000, decoded=4_000_000_000)
KINDS = (("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("mpegts", "libx264"))


@cache
def originals() -> list[bytes]:
    return [made_video(12, kind=kind, codec=codec, gop=5, size=(48, 32)) for kind, codec in KINDS]


def mutants(count: int, seed: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(originals()[random.integers(len(KINDS))])
        match random.integers(4):
            case 0:  # bytes anywhere
                for _ in range(random.integers(1, 20)):
                    data[random.integers(len(data))] = random.integers(256)
            case 1:  # bytes of its head, where sizes and counts stand
                for _ in range(random.integers(1, 6)):
                    data[random.integers(min(len(data), 600))] = random.choice([0, 1, 127, 128, 255])
            case 2:  # cut
                del data[random.integers(1, len(data)) :]
            case 3:  # a run moved
                at, length = random.integers(len(data)), random.integers(1, 200)
                run = data[at : at + length]
                del data[at : at + length]
                data[random.integers(len(data)) : 0] = run
        yield bytes(data)


def tried(data: bytes) -> str:
    try:
        film = open_film(data, LIMITS)
        for number in dict.fromkeys((0, len(film) // 2, len(film) - 1, 0)):
            film.decode(number)
    except RequestError:
        return "refused"
    return "film"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    outcomes, slowest = Counter[str](), 0.0
    for mutant in mutants(args.rounds, args.seed):
        begun = time.perf_counter()
        outcomes[tried(mutant)] += 1
        slowest = max(slowest, time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{dict(outcomes)}, slowest {slowest:.2f} s, {peak:.0f} MB at most")


if __name__ == "__main__":
    main()
