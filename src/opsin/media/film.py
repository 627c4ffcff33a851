"""A video as families see it: which frames there are, when, and how large. None is decoded before it is asked for.

Beside it: which of them are wanted (`FrameChoice`), and what a video may cost (`VideoLimits`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from hashlib import blake2b
from types import MethodType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opsin.errors import FieldError, RequestError
from opsin.media.budget import MOST, USUAL, PictureBudget
from opsin.media.limits import ByteLimit, Size
from opsin.media.picture import Picture

if TYPE_CHECKING:
    from PIL import Image

    from opsin.spans import Patches

MOST_FPS = 240.0


@dataclass(frozen=True)
class VideoLimits(ByteLimit):
    """What a video may cost. It is refused by what its file says, before a frame is decoded.

    Attributes:
        bytes: of the file.
        seconds: from the first frame to the last.
        frames: that the file holds, wanted or not.
        pixels: of a frame.
        decoded: pixels of all frames together: whoever wants the last one decodes those before it.
    """

    bytes: int = 512 << 20
    seconds: float = 4 * 3600.0
    frames: int = 500_000
    pixels: int = 36_000_000
    decoded: int = 300_000_000_000

    def check_size(self, size: Size) -> None:
        """Refuse frames without pixels, or with too many."""
        width, height = size
        if width < 1 or height < 1:
            raise RequestError(f"frames of {width} x {height} pixels: there is nothing to see", hint="send a video")
        if width * height > self.pixels:
            told = f"frames of {width} x {height} pixels, at most {self.pixels / 1e6:.0f} million"
            raise RequestError(told, hint="make it smaller")

    def check_frames(self, count: int, size: Size) -> None:
        """Refuse more frames than may be read, or decoded."""
        if count > self.frames:
            raise RequestError(f"more than {self.frames} frames", hint="cut it into parts")
        if count * size[0] * size[1] > self.decoded:
            told = f"{count} frames of {size[0]} x {size[1]} are {count * size[0] * size[1] / 1e9:.0f} billion pixels"
            raise RequestError(f"{told}, at most {self.decoded / 1e9:.0f}", hint="cut it, or make it smaller")

    def check_seconds(self, seconds: float) -> None:
        """Refuse a video that is too long."""
        if seconds > self.seconds:
            raise RequestError(f"{seconds:.1f} seconds, at most {self.seconds:.1f}", hint="cut it into parts")


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video are looked at, and what all may take together. Nothing by default: the family's own way.

    Attributes:
        fps: so many of each second.
        frames: at most so many, spread over the video; with `fps`, where that gives more.
        max_video_tokens: of all frames in the prompt: they are looked at less finely until they fit, and then fewer.
        sound: whether its sound is heard beside them, by families that do.

    Raises RequestError, naming the field, for what is no such number.
    """

    fps: float | None = None
    frames: int | None = None
    max_video_tokens: int | None = None
    sound: bool = True

    def __post_init__(self) -> None:
        fps = self.fps
        if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MOST_FPS):
            raise FieldError("fps", f"{fps!r:.80} is out of range", hint=f"give a number up to {MOST_FPS:.0f}")
        for name in ("frames", "max_video_tokens"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST):
                raise FieldError(name, f"{value!r:.80} is out of range", hint=f"give a whole number from 1 to {MOST}")
        if not isinstance(self.sound, bool):
            raise FieldError("sound", f"{self.sound!r:.80} is neither true nor false", hint="give one of them")

    @classmethod
    def read(cls, given: Mapping[str, object], name: str) -> FrameChoice:
        """What stands in an object of this name under our words. None means absent."""
        words = {word.name: given[word.name] for word in fields(cls) if given.get(word.name) is not None}
        try:
            return cls(**words)  # type: ignore[arg-type]  # checked there
        except FieldError as error:
            raise error.below(f"{name}.") from None

    def within(self, outer: FrameChoice) -> FrameChoice:
        """What is asked here, and where nothing is, there; of two numbers of tokens the smaller."""
        tokens = [count for count in (self.max_video_tokens, outer.max_video_tokens) if count is not None]
        asked = outer if self.fps is None and self.frames is None else self
        return replace(asked, max_video_tokens=min(tokens, default=None), sound=self.sound and outer.sound)


@dataclass(frozen=True, eq=False)
class Film:
    """An opened video.

    Attributes:
        size: (width, height) of its frames, upright.
        times: seconds of each frame in the order in which they are shown, from 0 on.
        digest: 16 bytes; equal for equal files.
        decode: a frame by its number, as an RGB image. Safe from many threads.
        choice: which frames are wanted.
        budget: how finely each is to be looked at.
        notes: what a person should know.
        has_sound: whether its file has any.
        sound: gives its sound as the model hears it, where it does.
    """

    size: Size
    times: npt.NDArray[np.float64]
    digest: bytes
    decode: Callable[[int], Image.Image] = field(repr=False)
    choice: FrameChoice = FrameChoice()
    budget: PictureBudget = USUAL
    notes: tuple[str, ...] = ()
    has_sound: bool = False
    sound: Callable[[], Patches] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def owner(self) -> object:
        """What lives as long as a frame may be asked for: it holds the file's bytes."""
        return self.decode.__self__ if isinstance(self.decode, MethodType) else self.decode

    def __repr__(self) -> str:
        return f"<Film: {len(self)} frames of {self.size[0]} x {self.size[1]} in {self.seconds:.1f} seconds>"

    @property
    def rate(self) -> float:
        """Frames a second, on average."""
        span = float(self.times[-1])
        return round((len(self) - 1) / span, 6) if span else 1.0

    @property
    def seconds(self) -> float:
        """How long it lasts, each frame being shown as long as the others."""
        return len(self) / self.rate

    def asked(self, choice: FrameChoice, budget: PictureBudget) -> Film:
        """The same film, of which this is wanted."""
        return replace(self, choice=choice, budget=budget)

    def digest_of(self, number: int) -> bytes:
        """Of one frame."""
        return blake2b(self.digest + number.to_bytes(4, "little"), digest_size=16, person=b"frame").digest()

    @cached_property
    def _blank(self) -> Image.Image:
        from PIL import Image

        return Image.new("1", self.size)

    def unseen(self, number: int) -> Picture:
        """A frame as what it will be laid out as: its size and its digest, and no pixels of its own."""
        return Picture(self._blank, None, self.digest_of(number), budget=self.budget)

    def picture(self, number: int) -> Picture:
        """A frame, decoded now."""
        return Picture(self.decode(number), None, self.digest_of(number), budget=self.budget)


def clock(seconds: float) -> str:
    """A moment of a film as people write it: minutes and seconds."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
