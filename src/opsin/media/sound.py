"""Sound as everybody hears it: one channel of samples at one rate, who it is, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.media.limits import ByteLimit

RATE = 16_000  # samples a second that models of speech hear
SEND: Final = "send WAV, FLAC, OGG, Opus, MP3, M4A, MP4 or WebM"
# How files begin: libsndfile knows more kinds, whose readers nobody needs.
_KNOWN: Final = (b"RIFF", b"RF64", b"riff", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff")
_OF_PICTURES: Final = (b"WEBP", b"AVI ")  # behind RIFF and a length
_M4A: Final = (b"ftypM4A ", b"ftypM4B ")  # behind a length: an MP4 without pictures


@dataclass(frozen=True)
class SoundLimits(ByteLimit):
    """What sound may cost. A file is refused by what its header says before it is decoded, and again as it is read.

    Attributes:
        bytes: of the file.
        seconds: of sound.
        channels: that are mixed into one.
    """

    bytes: int = 512 << 20
    seconds: float = 4 * 3600.0
    channels: int = 32

    def check_seconds(self, seconds: float, *, at_least: bool = False) -> None:
        """Refuse sound that is too long. `at_least`: there may be more of it."""
        if seconds > self.seconds:
            told = f"{'more than ' if at_least else ''}{seconds:.0f} seconds of sound"
            raise RequestError(f"{told}, at most {self.seconds:.0f}", hint="cut it into parts")

    def check_channels(self, channels: int) -> None:
        """Refuse sound without channels, or with too many."""
        if not 0 < channels <= self.channels:
            raise RequestError(f"{channels} channels, 1 to {self.channels} are mixed", hint="mix it down first")


@dataclass(frozen=True)
class SoundTrack:
    """An opened file of sound.

    Attributes:
        channels: as its header tells.
        rate: samples a second.
        seconds: as its header tells, 0 where it does not.
        pieces: float32 [samples, channels], decoded as they are read; full scale is -1 to 1. A header may lie.
    """

    channels: int
    rate: int
    seconds: float
    pieces: Iterator[Floats] = field(repr=False)


@dataclass(frozen=True)
class Waveform:
    """Decoded sound.

    Attributes:
        samples: float32 [n], all channels mixed into one; full scale is -1 to 1. Nobody writes into it.
        rate: samples a second.
        digest: 16 bytes; equal for equal files, and for equal samples handed over as arrays.
        notes: what a person should know.
    """

    samples: Floats = field(repr=False, compare=False)
    rate: int = RATE
    digest: bytes = bytes(16)
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate

    def __repr__(self) -> str:
        return f"<Waveform: {self.seconds:.2f} seconds at {self.rate} samples a second>"


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound to ask about, as a part of what somebody says: `model.chat(["Who speaks?", opsin.Sound("talk.mp3")])`.

    Attributes:
        source: a path, a file's bytes, a file open for reading, or an array of samples, [n] or [n, channels], of int16
            or of floats from -1 to 1.
        rate: samples a second of an array; files say it themselves.
    """

    source: object = field(repr=False)
    rate: int = RATE


def digest_of_samples(samples: Floats, rate: int) -> bytes:
    """Of samples that came without a file."""
    digest = blake2b(b"%d " % rate, digest_size=16, person=b"samples")
    digest.update(samples.tobytes())
    return digest.digest()


def is_sound(data: bytes) -> bool:
    """Whether a file begins as one of sound alone does: MP4 and WebM may be videos."""
    known = data.startswith(_KNOWN) and data[8:12] not in _OF_PICTURES
    return known or data[4:12] in _M4A or _is_mp3(data) or is_adts(data)


def is_adts(data: bytes) -> bool:
    """Whether it begins with the header of a frame of AAC: twelve ones, layer 0, and a rate (ISO 13818-7, 6.2)."""
    head = data[:3]
    return len(head) == 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 0xF < 13


def _is_mp3(data: bytes) -> bool:
    """Whether it begins with the header of an MPEG audio frame: eleven ones, no reserved version, layer or rate."""
    head = data[:4]
    frame = len(head) == 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return frame and head[1] & 0x18 != 0x08 and head[1] & 0x06 != 0 and head[2] >> 4 != 15 and head[2] & 0x0C != 0x0C
