"""Bytes, a path, an open file or an array becomes a Waveform. Whatever strangers send: that or a RequestError.

WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF and CAF are decoded by libsndfile, what else there is by PyAV
(`sound_track.py`), all piece by piece, and resampled by soxr.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.errors import FieldError, RequestError
from opsin.media.files import Readable, is_readable, read_open, read_path
from opsin.media.picture import digest_of_file
from opsin.media.sound import RATE, SEND, Sound, SoundLimits, SoundTrack, Waveform, digest_of_samples, is_sound
from opsin.media.sound_track import open_track, track_kind

if TYPE_CHECKING:
    from soundfile import SoundFile

Recorded = bytes | bytearray | memoryview | str | os.PathLike[str] | Readable | npt.NDArray[np.generic]
Heard = Recorded | Waveform | Sound
_PIECE = 1 << 16  # frames that are decoded at once
_LOUDEST: Final = 1e4  # times full scale: what is beyond is no sound
_RATES: Final = range(1000, 768_001)
_OTHERS: Final = {
    b"0&\xb2u": "WMA", b"#!AMR": "AMR", b"MThd": "MIDI, notes without sound",
    b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"GIF8": "a picture",
}  # fmt: skip


def open_sound(
    source: Heard, limits: SoundLimits | None = None, *, rate: int = RATE, name: str | None = None
) -> Waveform:
    """Decode sound, mix it into one channel and bring it to `rate` samples a second; a Waveform of that rate stays.

    Args:
        source: a file's bytes; a path (`~` is the home folder); a file open for reading; or an array of samples at
            `rate`, [n] or [n, channels], of int16 or of floats from -1 to 1, or a `Sound` of one of them.
        limits: of bytes, seconds and channels, checked before anything is decoded.
        rate: samples a second that are wanted.
        name: what errors call it; by default its path, or "the sound".

    Raises:
        RequestError: whatever is wrong with it, beginning with its name.
    """
    limits = limits or SoundLimits()
    held, given = (cast("Recorded", source.source), source.rate) if isinstance(source, Sound) else (source, rate)
    name = name or (str(os.fspath(held)) if isinstance(held, str | os.PathLike) else "the sound")
    try:
        return _at_rate(_opened(held, limits, given, rate), rate)
    except RequestError as error:
        raise FieldError(name, error.message, hint=error.hint) from error.__cause__


def _opened(source: Recorded | Waveform, limits: SoundLimits, given: int, rate: int) -> Waveform:
    """An array, which has `given` samples a second, at its own rate, a file at `rate`."""
    if isinstance(source, Waveform):
        return source
    if isinstance(source, str | os.PathLike):
        return _from_file(read_path(source, limits, what="a recording"), limits, rate)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_file(bytes(source), limits, rate)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits, given)
    if is_readable(source):
        return _from_file(read_open(source, limits), limits, rate)
    raise RequestError(
        f"a {type(source).__name__} is no sound", hint="give bytes, a path, an open file or a NumPy array"
    )


def check_sound(data: bytes, limits: SoundLimits | None = None) -> None:
    """Raises RequestError for a file that is no sound, or too much of it, as far as its header tells."""
    limits = limits or SoundLimits()
    with _track(data, limits) as file:
        _check_header(file, limits)


def _from_file(data: bytes, limits: SoundLimits, rate: int) -> Waveform:
    try:
        with _track(data, limits) as file:
            _check_header(file, limits)
            samples = _joined(_mono(file, limits), file.rate, rate)
    except MemoryError as error:
        raise RequestError("there is no memory to decode this sound", hint="cut it into parts") from error
    return Waveform(_checked(samples), rate, digest_of_file(data))


@contextmanager
def _track(data: bytes, limits: SoundLimits) -> Iterator[SoundTrack]:
    """The opened file. Raises RequestError, also for what is damaged within."""
    if not data:
        raise RequestError("an empty file", hint="send the recording's bytes")
    limits.check_bytes(len(data))
    kind = track_kind(data)
    if kind is not None:
        with open_track(data, kind) as track:
            yield track
        return
    _check_kind(data)
    import soundfile  # it loads libsndfile, which is not needed before the first sound

    try:
        with soundfile.SoundFile(_Bounded(data)) as file:
            seconds = file.frames / file.samplerate if file.samplerate > 0 else 0.0
            yield SoundTrack(file.channels, file.samplerate, seconds, _pieces(file))
    except soundfile.LibsndfileError as error:
        raise RequestError(f"it cannot be decoded: {error.error_string}", hint=SEND) from error


def _pieces(file: SoundFile) -> Iterator[Floats]:
    while len(piece := file.read(_PIECE, dtype="float32", always_2d=True)):
        yield piece


class _Bounded(BytesIO):
    """Damaged files send libsndfile before their beginning: it goes no further than there, and no error is printed."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        size = self.getbuffer().nbytes
        start = {1: self.tell(), 2: size}.get(whence, 0)
        return super().seek(min(max(start + offset, 0), size))


def _check_kind(data: bytes) -> None:
    """Raises RequestError, naming the kind, for what is not decoded."""
    if is_sound(data):
        return
    kinds = [what for start, what in _OTHERS.items() if data.startswith(start)]
    if kinds:
        raise RequestError(f"{kinds[0]}, which is not decoded", hint=SEND)
    raise RequestError(f"of an unknown kind: it begins with {data[:8]!r}", hint=SEND)


def _check_header(file: SoundTrack, limits: SoundLimits) -> None:
    limits.check_channels(file.channels)
    _check_rate(file.rate)
    limits.check_seconds(file.seconds)


def _check_rate(rate: int) -> None:
    if rate not in _RATES:
        told = f"{rate} samples a second, {_RATES.start} to {_RATES.stop - 1} are read"
        raise RequestError(told, hint=SEND)


def _mono(file: SoundTrack, limits: SoundLimits) -> Iterator[Floats]:
    """The mean of its channels, piece by piece; a header may have said too little."""
    samples = 0
    for piece in file.pieces:
        samples += len(piece)
        limits.check_seconds(samples / file.rate, at_least=True)
        with np.errstate(invalid="ignore", over="ignore"):  # what is no sound is refused at the end
            mean = piece.mean(1, dtype=np.float32) if piece.shape[1] > 1 else piece[:, 0]
        yield mean


def _joined(pieces: Iterator[Floats], given: int, wanted: int) -> Floats:
    """All pieces at another rate: float32 [n]."""
    if given == wanted:
        return np.concatenate([np.zeros(0, np.float32), *pieces])
    import soxr

    stream = soxr.ResampleStream(given, wanted, 1, dtype="float32")
    made = [stream.resample_chunk(piece) for piece in pieces]
    made.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(made)


def _at_rate(sound: Waveform, rate: int) -> Waveform:
    if sound.rate == rate:
        return sound
    return Waveform(_joined(iter([sound.samples]), sound.rate, rate), rate, sound.digest, sound.notes)


def _from_array(array: npt.NDArray[np.generic], limits: SoundLimits, rate: int) -> Waveform:
    if array.ndim not in (1, 2) or array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise RequestError(f"an array of shape {list(array.shape)}", hint="give [samples] or [samples, channels]")
    _check_rate(rate)
    limits.check_channels(array.shape[1] if array.ndim == 2 else 1)
    limits.check_seconds(len(array) / rate)
    if array.dtype == np.int16:
        values = array.astype(np.float32) / np.float32(32768)
    elif array.dtype.kind == "f":
        values = array.astype(np.float32)
    else:
        raise RequestError(f"an array of {array.dtype}", hint="give int16, or floats from -1 to 1")
    samples = _checked(values if values.ndim == 1 else values.mean(1, dtype=np.float32))
    return Waveform(samples, rate, digest_of_samples(samples, rate))


def _checked(samples: Floats) -> Floats:
    """Raises RequestError for no samples, and for what is no sound."""
    if not len(samples):
        raise RequestError("there is no sound in it", hint="send a recording with samples")
    loudest = float(np.max(np.abs(samples)))
    if not loudest <= _LOUDEST:
        raise RequestError(f"samples up to {loudest:g}, where full scale is 1", hint="the file is damaged")
    return samples
