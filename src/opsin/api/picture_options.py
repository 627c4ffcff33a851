"""Options of pictures as keywords, so that a wrong one is a type error."""

from __future__ import annotations

from typing import TypedDict

from opsin.media.budget import Detail


class PictureOptions(TypedDict, total=False):
    """Those of `PictureBudget`, which says what they mean; a test compares the two."""

    detail: Detail
    min_pixels: int | None
    max_pixels: int | None
    min_image_tokens: int | None
    max_image_tokens: int | None
