"""What families share in preparing sound: pieces of a waveform as spans of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from opsin.arrays import Floats
from opsin.media.sound import Waveform
from opsin.spans import Features, MediaSpan


def sound_digest(sound: Waveform, *way: object) -> bytes:
    """Of a sound and of all that happens to it, which `way` says."""
    return blake2b(sound.digest + repr((sound.rate, way)).encode(), digest_size=16, person=b"sound").digest()


def sound_span(
    sound: Waveform, *way: object, rows: int, shape: tuple[int, int], make: Callable[[], Floats]
) -> MediaSpan:
    """So many rows of a sound, one after another in time. `shape` is that of their frames, which `make` gives."""
    return MediaSpan(sound_digest(sound, *way), rows=rows, positions=rows, features=Features(shape, make))
