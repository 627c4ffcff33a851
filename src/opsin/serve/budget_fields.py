"""How finely pictures are looked at, as fields: of a request, of a part of a content, and of the place of a picture."""

from __future__ import annotations

from typing import Annotated, cast

from msgspec import Meta

from opsin.errors import FieldError
from opsin.media.budget import DETAILS, MOST, WORDS, Detail, PictureBudget
from opsin.serve.fields import Fields, one_of

_Detail = Annotated[
    str,
    one_of(*DETAILS, description="How finely to look at pictures: low, high, or auto for the model's own way."),
]


class BudgetFields(Fields, kw_only=True):
    """Of one picture, or of all in a request. Of two mosts the smaller holds."""

    detail: _Detail | None = None
    min_pixels: Annotated[int, Meta(ge=1, le=MOST, description="Of a picture as it is processed.")] | None = None
    max_pixels: Annotated[int, Meta(ge=1, le=MOST, description="Of a picture as it is processed.")] | None = None
    min_image_tokens: Annotated[int, Meta(ge=1, le=MOST, description="Of a picture.")] | None = None
    max_image_tokens: Annotated[int, Meta(ge=1, le=MOST, description="Of a picture.")] | None = None


def budget_of(fields: BudgetFields, path: str = "") -> PictureBudget:
    """What they say. Raises FieldError for numbers that contradict each other, naming one; `path` stands before it."""
    detail = cast(Detail, fields.detail or "auto")
    numbers = {word: getattr(fields, word) for word in WORDS[1:]}
    try:
        return PictureBudget(detail, **numbers)
    except FieldError as error:
        raise error.below(path) from None
