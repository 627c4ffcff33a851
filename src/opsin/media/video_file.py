"""A video's bytes become a Film. PyAV (FFmpeg) reads them; opsin[video] brings it.

Only codecs that people send are read. Packets are counted once, without decoding; a frame is decoded when somebody asks
for it, from the key frame before it on, and the decoder stays where it is for the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from opsin.errors import RequestError
from opsin.media.container import MOST, explained, kind_of, open_container, opened
from opsin.media.film import Film, VideoLimits
from opsin.media.limits import Size
from opsin.media.picture import digest_of_file

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SEND: Final = "send MP4, MOV, WebM, Matroska, AVI, MPEG-TS or an animated GIF"
_CODECS: Final = frozenset(
    (
        *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video"),
        *("mpeg1video", "mjpeg", "gif", "h263", "prores", "theora"),
    )
)
_KEPT = 2  # decoded frames: what is cut from one, or made of two, asks for it more than once


def open_film(data: bytes, limits: VideoLimits | None = None) -> Film:
    """What the file says of its frames. Raises RequestError for what is no video, or too much of one."""
    limits = limits or VideoLimits()
    if not data:
        raise RequestError("an empty file", hint="send the video's bytes")
    limits.check_bytes(len(data))
    kind = kind_of(data)
    if kind is None:
        raise RequestError(f"of an unknown kind: it begins with {data[:8]!r}", hint=SEND)
    file = _VideoFile(data, kind, limits)
    return Film(file.size, file.times, digest_of_file(data), file.image, has_sound=file.has_sound)


class _VideoFile:
    """The first video of a file. Whoever asks for frames holds its lock; it decodes on from where it was."""

    def __init__(self, data: bytes, kind: str, limits: VideoLimits) -> None:
        self._data, self._kind, self._limits = data, kind, limits
        self._lock = Lock()
        self._kept: dict[int, Image.Image] = {}
        self._container: InputContainer | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._at = -1  # the last frame that came out
        self._exact = True  # frames come out at their packets' times
        with opened(data, kind, SEND) as container:
            stream = self._stream(container)
            self._coded = (stream.codec_context.width, stream.codec_context.height)
            limits.check_size(self._coded)
            self.has_sound = bool(container.streams.audio)
            stamps, keys = self._read_stamps(container, stream)
            self.unit = float(stream.time_base or 0.001)
        if not stamps:
            raise RequestError("there are no frames in it", hint=SEND)
        self.stamps = np.unique(np.array(stamps, np.int64))
        self.times = (self.stamps - self.stamps[0]) * self.unit
        limits.check_seconds(float(self.times[-1]))
        self._keys = sorted(keys)
        self._turn, first = 0, self._find(0)
        self._turn = round(first.rotation / 90) * 90 % 360
        self.size: Size = self._upright(first).size

    def _stream(self, container: InputContainer) -> VideoStream:
        streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise RequestError("there is no video in it", hint=SEND)
        name = streams[0].codec_context.name
        if name not in _CODECS:
            raise RequestError(f"its frames are coded as {name}, which is not decoded", hint="save it as H.264")
        return streams[0]

    def _read_stamps(self, container: InputContainer, stream: VideoStream) -> tuple[list[int], list[int]]:
        """When each frame is shown, and those that are decoded by themselves, in units of the stream."""
        stamps: list[int] = []
        keys: list[int] = []
        for packet in container.demux(stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or packet.is_discard or not packet.size:
                continue
            stamps.append(stamp)
            if packet.is_keyframe:
                keys.append(stamp)
            if len(stamps) % 256 == 0:
                self._limits.check_frames(len(stamps), self._coded)
        self._limits.check_frames(len(stamps), self._coded)
        return stamps, keys

    def image(self, number: int) -> Image.Image:
        """A frame, upright and in RGB. Raises RequestError where it cannot be decoded."""
        with self._lock:
            if number not in self._kept:
                image = self._upright(self._find(number))
                if image.size != self.size:
                    told = f"its frames change from {self.size[0]} x {self.size[1]} to {image.width} x {image.height}"
                    raise RequestError(told, hint="save it with one size")
                while len(self._kept) >= _KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[number] = image
            return self._kept[number]

    def _upright(self, frame: VideoFrame) -> Image.Image:
        self._limits.check_size((frame.width, frame.height))
        with explained(self._kind, SEND):
            image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        return image.rotate(self._turn, expand=True) if self._turn else image

    def _find(self, number: int) -> VideoFrame:
        """The frame that is shown at its time, or the next that there is: some packets show nothing."""
        stamp = int(self.stamps[number])
        with explained(self._kind, SEND):
            key = self._key(stamp)
            if number <= self._at or self._at < 0 or (key is not None and key > self.stamps[self._at]):
                self._begin(key)
            frame = self._next(stamp)
            if frame is None or (self._exact and frame.pts != stamp):  # not every kind can seek to a frame
                self._begin(None)
                frame = self._next(stamp)
                self._exact = frame is not None and frame.pts == stamp
        if frame is not None:
            return frame
        told = f"its frame at {self.times[number]:.2f} seconds cannot be decoded"
        raise RequestError(told, hint="send all of it, or save it again")

    def _next(self, stamp: int) -> VideoFrame | None:
        """The next frame at this time or later; None where there is none."""
        for frame in self._frames:
            if frame.pts is not None and frame.pts >= stamp:
                self._at = int(np.searchsorted(self.stamps, frame.pts, side="right")) - 1
                return frame
        self._at = -1
        return None

    def _key(self, stamp: int) -> int | None:
        """The time of the last frame up to this one that is decoded by itself; None for the first."""
        place = bisect_right(self._keys, stamp)
        return self._keys[place - 1] if place > 1 else None

    def _begin(self, key: int | None) -> None:
        """Stand before a key frame, or before the first frame."""
        if key is None or self._container is None:
            self._container = open_container(self._data, self._kind)
            codec = self._stream(self._container).codec_context
            codec.thread_count, codec.options = 1, dict(MOST)
        stream = self._stream(self._container)
        if key is not None:
            self._container.seek(key, stream=stream)
        self._frames, self._at = self._container.decode(stream), -1
