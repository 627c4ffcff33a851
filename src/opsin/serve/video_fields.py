"""Videos as fields: where one is, and which of its frames are looked at."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from opsin.media.budget import MOST
from opsin.media.film import MOST_FPS
from opsin.serve.budget_fields import BudgetFields


class FilmFields(BudgetFields, kw_only=True):
    """Of a video: which frames are looked at. The other fields say how finely."""

    fps: Annotated[float, Meta(gt=0, le=MOST_FPS, description="Of a video: frames of each second.")] | None = None
    frames: Annotated[int, Meta(ge=1, le=MOST, description="Of a video: at most so many, spread over it.")] | None = (
        None
    )
    max_video_tokens: (
        Annotated[int, Meta(ge=1, le=MOST, description="Of a video: of all its frames together.")] | None
    ) = None
    sound: (
        Annotated[bool, Meta(description="Of a video: whether its sound is heard beside it, by models that do.")] | None
    ) = None


class VideoUrl(FilmFields, kw_only=True):
    """Where a video is."""

    url: Annotated[str | None, Meta(description="http, https, or data with base64.")] = None


class InputVideo(VideoUrl, kw_only=True):
    """A video that is sent along, or its URL."""

    data: Annotated[str | None, Meta(description="Base64 of a file: MP4, WebM, Matroska, AVI or GIF.")] = None


FRAME_WORDS = ("fps", "frames", "max_video_tokens", "sound")
