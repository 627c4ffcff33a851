"""Videos among the parts of a conversation: each becomes texts and patches, counted before a frame is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, cast
from weakref import finalize

import numpy as np
import numpy.typing as npt

from opsin.api.fetching import Fetching
from opsin.errors import FieldError, RequestError
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.fetch import fetch, is_remote
from opsin.media.files import Readable, is_readable, read_open, read_path
from opsin.media.film import Film, FrameChoice, VideoLimits
from opsin.spans import check_context

if TYPE_CHECKING:
    from PIL import Image

    from opsin.api.audio import Audio
    from opsin.api.perceiving import Perceives
    from opsin.api.senses import Senses
    from opsin.api.vision import Vision
    from opsin.nn.films import Parts

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | Readable | npt.NDArray[np.generic] | Sequence[object]
_TYPES: Final = ("video_url", "input_video", "video")
_FIRST_BYTES: Final = b"stills"


@dataclass(frozen=True, eq=False)
class LaidOut:
    """A video prepared: what stands in a prompt for it. Its frames are decoded when the encoder takes them.

    Attributes:
        parts: texts, and patches that each stand where the template has a picture.
        film: what its file says of it.
    """

    parts: Parts
    film: Film

    @property
    def tokens(self) -> int:
        """Places that its frames take in a prompt, without the texts between."""
        from opsin.nn.films import tokens_of

        return tokens_of(self.parts)

    def __repr__(self) -> str:
        return f"<LaidOut: {self.tokens} tokens of {self.film!r}>"


@dataclass(frozen=True, eq=False)
class Video:
    """A video to ask about, as a part of a content: `model.chat(["What happens?", opsin.Video("clip.mp4")])`.

    Args:
        source: a path, a file's bytes, a file open for reading; or frames: a list of pictures, or an array of uint8
            [frames, height, width, 3], which follow each other at `rate` frames a second.
        fps: frames of each second that are looked at.
        frames: at most so many, spread over the video.
        max_video_tokens: of all frames: they are looked at less finely until all fit, and then fewer.
        rate: of frames that are given one by one.
        budget: how finely to look at each frame.
        sound: whether the sound of a file is heard beside its frames, by families that do.
    """

    source: Source = field(repr=False)
    fps: float | None = None
    frames: int | None = None
    max_video_tokens: int | None = None
    rate: float = 1.0
    budget: PictureBudget = USUAL
    sound: bool = True

    @property
    def choice(self) -> FrameChoice:
        """What is looked at, and heard. Raises RequestError, naming the field, for what is no such number."""
        return FrameChoice(self.fps, self.frames, self.max_video_tokens, self.sound)

    def on(self, model: Perceives, name: str = "the video", limits: VideoLimits | None = None) -> LaidOut:
        """What stands in a prompt of a model for it: counted, and nothing decoded. Raises RequestError, naming it."""
        return lay_out(self.source, model.senses, name, self.choice, self.budget, rate=self.rate, limits=limits)


def lay_out(
    source: Source, senses: Senses | None, name: str, choice: FrameChoice, budget: PictureBudget, *,
    rate: float = 1.0, limits: VideoLimits | None = None,
) -> LaidOut:  # fmt: skip
    """A video as its model sees it. Raises FieldError, naming it, for what is no video, or too much of one."""
    from opsin.nn.films import fitted

    if senses is None or (vision := senses.vision) is None:
        raise FieldError(name, "is a video, and this model does not see", hint="load a model that sees, and its mmproj")
    limits = limits or VideoLimits()
    try:
        film = _open(source, limits, vision, rate, senses.audio if choice.sound else None)
        film = film.asked(choice, budget.within(vision.budget))
        parts = fitted(vision.lay_out_film, film)
    except RequestError as error:
        raise FieldError(name, error.message, hint=error.hint) from error.__cause__
    return LaidOut(parts, film)


def _open(source: Source, limits: VideoLimits, vision: Vision, rate: float, audio: Audio | None) -> Film:
    """`audio`: what hears its sound, if anything."""
    from opsin.media.video_file import open_film

    if isinstance(source, str | os.PathLike):
        source = read_path(source, limits, what="a video")
    elif is_readable(source):
        source = read_open(cast(Readable, source), limits)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        with vision.decoding:
            film = open_film(data, limits)
        files = vision.budgets.files
        files.need(len(data))
        finalize(film.owner, files.give_back, len(data))
        if audio is None or not film.has_sound:
            return film
        return replace(film, sound=cache(partial(audio.prepare, data, "its sound")))
    if isinstance(source, np.ndarray) and source.ndim != 4:
        told = f"an array of shape {list(source.shape)}"
        raise RequestError(told, hint="give [frames, height, width, 3] of uint8")
    if isinstance(source, Sequence | np.ndarray) and len(source):
        return _of_stills(cast("Sequence[object]", source), limits, rate)
    raise RequestError(f"a {type(source).__name__} is no video", hint="give a path, bytes, an open file or frames")


def _of_stills(frames: Sequence[object], limits: VideoLimits, rate: float) -> Film:
    """Frames that somebody else holds. Their files are decoded when they are needed, like those of a video."""
    from opsin.media.decode import open_picture

    if not 0 < rate < float("inf"):
        raise RequestError(f"rate is {rate}", hint="give frames a second")
    size = open_picture(cast("bytes", frames[0])).size
    limits.check_size(size)
    limits.check_frames(len(frames), size)
    digest = blake2b(_FIRST_BYTES + repr((rate, size)).encode(), digest_size=16)
    for frame in frames:
        digest.update(open_picture(cast("bytes", frame)).digest)

    def decode(number: int) -> Image.Image:
        image = open_picture(cast("bytes", frames[number])).image
        if image.size != size:
            raise RequestError(f"frames of {size} and {image.size}", hint="give frames of one size")
        return image

    return Film(size, np.arange(len(frames)) / rate, digest.digest(), decode)


def lay_out_videos(
    messages: Sequence[Mapping[str, object]], senses: Senses | None, check: Callable[[], None], context: int | None,
    budget: PictureBudget,
) -> list[Mapping[str, object]]:  # fmt: skip
    """The same messages, in which each video is `LaidOut`.

    Raises FieldError, naming the part, for what is no video, and ContextError for one that the context cannot hold.
    """
    named = [part for n, message in enumerate(messages) for part in _parts(message, f"messages[{n}]")]
    urls = [(name, url) for name, part in named if isinstance(url := _place(part), str) and is_remote(url)]
    if senses is None or senses.vision is None:
        name = next(name for name, part in named if is_video(part))
        raise FieldError(name, "is a video, and this model does not see", hint="load a model that sees, and its mmproj")
    made: list[Mapping[str, object]] = []
    with Fetching(senses.rules, urls, senses.budgets.files, check) as fetching:
        for number, message in enumerate(messages):
            parts: list[object] = []
            for name, part in _parts(message, f"messages[{number}]"):
                check()
                parts.append(_laid(part, name, senses, fetching, budget) if is_video(part) else part)
                if context is not None and isinstance(laid := parts[-1], LaidOut):
                    check_context(laid.tokens, context, at_least=True, picture=f"{name}, a video,", param=name)
            made.append({**message, "content": parts} if any(isinstance(p, LaidOut) for p in parts) else message)
    return made


def _parts(message: Mapping[str, object], name: str) -> Iterator[tuple[str, object]]:
    content = message.get("content")
    if isinstance(content, list | tuple):
        yield from ((f"{name}.content[{number}]", part) for number, part in enumerate(content))


def is_video(part: object) -> bool:
    """Whether a part of a content is one."""
    return isinstance(part, Video) or (isinstance(part, Mapping) and part.get("type") in _TYPES)


def _place(part: object) -> object:
    """Where a part says that its video is; base64 alone becomes a URL. None where it does not say."""
    if not isinstance(part, Mapping) or not is_video(part):
        return None
    source = part.get(cast(str, part["type"]))
    if not isinstance(source, Mapping):
        return source
    data = source.get("data")
    if source.get("url") is None and isinstance(data, str) and not data.startswith("data:"):
        return f"data:;base64,{data}"
    return source.get("url", data)


def _laid(part: object, name: str, senses: Senses, fetching: Fetching, budget: PictureBudget) -> LaidOut:
    if isinstance(part, Video):
        return lay_out(part.source, senses, name, part.choice, part.budget.within(budget), rate=part.rate)
    assert isinstance(part, Mapping)
    kind = cast(str, part["type"])
    source, inner = _place(part), part.get(kind)
    if source is None:
        raise FieldError(name, f"there is no {kind}", hint='give {"type": "video_url", "video_url": {"url": "..."}}')
    choice, look = FrameChoice.read(part, name), PictureBudget.read(part, name)
    if isinstance(inner, Mapping):
        choice = FrameChoice.read(inner, f"{name}.{kind}").within(choice)
        look = PictureBudget.read(inner, f"{name}.{kind}").within(look)
    if isinstance(source, str):  # never a path here: such parts may come from strangers
        source = fetching.take() if is_remote(source) else fetch(source, senses.rules, name=name)
    return lay_out(cast(Source, source), senses, name, choice, look.within(budget))
