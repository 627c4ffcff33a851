"""The sound of a file that may hold pictures, too: M4A, MP4, WebM, Matroska and others, and AAC alone. PyAV decodes it.

What FFmpeg is told of an encoder's delay it leaves out, so the first sample is that of the recording: in MP4, WebM,
Matroska and AVI. AAC alone and MPEG-TS say nothing of it: there sound is late by the 1024 samples of most encoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.media.container import MOST, kind_of, opened
from opsin.media.sound import SEND, SoundTrack, is_adts

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_CODECS: Final = frozenset(
    ("aac", "alac", "mp2", "mp2float", "mp3", "mp3float", "opus", "vorbis", "flac", "ac3", "eac3")
)
_TELL_SECONDS: Final = ("mp4", "matroska", "avi")  # in their headers: of others it is a guess
_LATE: Final = 0.05  # seconds that a frame may come behind those before it; what is more is silence
_PIECE: Final = 1 << 16  # samples of silence at once


def track_kind(data: bytes) -> str | None:
    """FFmpeg's name of the demuxer for a file that begins so, where it may hold sound."""
    kind = "aac" if is_adts(data) else kind_of(data)
    return None if kind == "gif" else kind


@contextmanager
def open_track(data: bytes, kind: str) -> Iterator[SoundTrack]:
    """The first sound of a file, while the block lasts. Raises RequestError for what has none that is decoded."""
    with opened(data, kind, SEND) as container:
        if not container.streams.audio:
            raise RequestError("there is no sound in it", hint=SEND)
        stream = container.streams.audio[0]
        codec = stream.codec_context
        if codec.name not in _CODECS and not codec.name.startswith("pcm_"):
            raise RequestError(f"its sound is coded as {codec.name}, which is not decoded", hint="save it as AAC")
        codec.options = dict(MOST)
        seconds = _seconds(container, stream) if kind in _TELL_SECONDS else 0.0
        yield SoundTrack(codec.channels, codec.sample_rate, seconds, _pieces(container, stream))


def _seconds(container: InputContainer, stream: AudioStream) -> float:
    """As the header tells; 0 where it does not, as in what browsers record."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _pieces(container: InputContainer, stream: AudioStream) -> Iterator[Floats]:
    """Each frame [samples, channels], and silence where there is none for a while."""
    rate, begin, at = stream.codec_context.sample_rate, (container.start_time or 0) / 1e6, 0
    for frame in container.decode(stream):
        if frame.sample_rate != rate:
            told = f"its rate changes from {rate} to {frame.sample_rate} samples a second"
            raise RequestError(told, hint="save it with one rate")
        missing = 0 if frame.time is None else round((frame.time - begin) * rate) - at
        at += frame.samples
        if missing > _LATE * rate:
            at += missing
            for first in range(0, missing, _PIECE):
                yield np.zeros((min(_PIECE, missing - first), 1), np.float32)
        yield _values(frame)


def _values(frame: AudioFrame) -> Floats:
    """[samples, channels], full scale -1 to 1."""
    values = frame.to_ndarray()  # [channels, samples] where each lies by itself, else [1, samples * channels]
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    whole = float(1 << (8 * values.dtype.itemsize - 1))
    return (values / whole - (values.dtype.kind == "u")).astype(np.float32)
