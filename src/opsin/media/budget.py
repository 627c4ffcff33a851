"""How finely a picture is to be looked at: a word, pixels or tokens. Who asks says it, and a family obeys as it can.

It travels with its picture (`Picture.budget`). A family that has no choice need not look at it: what became of the
picture is compared with what was asked, and a difference is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar, get_args

from opsin.errors import FieldError
from opsin.media.limits import Size

Detail = Literal["low", "high", "auto"]
Way = TypeVar("Way")
DETAILS: tuple[Detail, ...] = get_args(Detail)
LOW_TOKENS = 256  # at low detail, of families that may make any number of a picture
MOST = 1 << 31  # pixels or tokens that may be asked for


@dataclass(frozen=True)
class PictureBudget:
    """What is asked of a picture. Nothing by default: it is looked at as the model's file says.

    Attributes:
        detail: "low" for as little as the family can do well with, "high" for all that it can show, "auto" for its own
            way.
        min_pixels, max_pixels: of the picture as it is processed.
        min_image_tokens, max_image_tokens: of its embeddings, in a prompt or beside it; markers do not count.

    Raises RequestError, naming the field, for what is no such word or number, and for a least above a most.
    """

    detail: Detail = "auto"
    min_pixels: int | None = None
    max_pixels: int | None = None
    min_image_tokens: int | None = None
    max_image_tokens: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.detail, str) or self.detail not in DETAILS:
            raise FieldError("detail", f"{self.detail!r:.80} is not known", hint=f"give {', '.join(DETAILS)}")
        for name in WORDS[1:]:
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST:
                raise FieldError(name, f"{value!r:.80} is out of range", hint=f"give a whole number from 1 to {MOST}")
        for what in ("pixels", "image_tokens"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise FieldError(f"min_{what}", f"{least} is more than max_{what}, {most}", hint="give a smaller one")

    @classmethod
    def read(cls, given: Mapping[str, object], name: str) -> PictureBudget:
        """What stands in an object of this name under our words. None means absent."""
        words = {word: given[word] for word in WORDS if given.get(word) is not None}
        try:
            return cls(**words)  # type: ignore[arg-type]  # checked there
        except FieldError as error:
            raise error.below(f"{name}.") from None

    def within(self, outer: PictureBudget) -> PictureBudget:
        """Both: what is asked here, and where nothing is, there. Of two mosts the smaller holds, and a least yields."""
        bounds: dict[str, int | None] = {}
        for what in ("pixels", "image_tokens"):
            ours, theirs = (getattr(budget, f"max_{what}") for budget in (self, outer))
            most = min((value for value in (ours, theirs) if value is not None), default=None)
            least = getattr(self, f"min_{what}") or getattr(outer, f"min_{what}")
            bounds[f"max_{what}"] = most
            bounds[f"min_{what}"] = least if least is None or most is None else min(least, most)
        return PictureBudget(self.detail if self.detail != "auto" else outer.detail, **bounds)

    def fits(self, size: Size, tokens: int) -> bool:
        """Whether it is not more than asked for."""
        width, height = size
        most_pixels = self.max_pixels is None or width * height <= self.max_pixels
        return most_pixels and (self.max_image_tokens is None or tokens <= self.max_image_tokens)

    def choose(self, ways: Iterable[Way], cost: Callable[[Way], tuple[Size, int]]) -> Way:
        """The first way that fits, of some from the finest to the coarsest; the last where none does, or at low detail.

        `cost` says a way's size in pixels and its tokens.
        """
        chosen: Way | None = None
        for way in ways:
            chosen = way
            if self.detail != "low" and self.fits(*cost(way)):
                break
        assert chosen is not None
        return chosen

    def in_tokens(self) -> PictureBudget:
        """With low detail as a number of tokens, for families that may make any of a picture."""
        if self.detail != "low":
            return self
        return replace(self, detail="auto").within(PictureBudget(max_image_tokens=LOW_TOKENS))

    def pixels(self, token: int, least: int, most: int, *, ceiling: int) -> tuple[int, int]:
        """The least and the most pixels of a picture, of which `token` become one.

        `least` and `most` hold where nothing else is asked for; nobody gets more than `ceiling`.
        """
        asked = self.in_tokens()
        lows, highs = (
            [value for value in (pixels, tokens and tokens * token) if value is not None]
            for pixels, tokens in (
                (asked.min_pixels, asked.min_image_tokens), (asked.max_pixels, asked.max_image_tokens)
            )
        )  # fmt: skip
        low = max(lows, default=least)
        high = min(min(highs, default=max(most, low)), ceiling, *([most] if self.detail == "low" else []))
        return (low if low <= high else high if lows else 1), high

    def unmet(self, size: Size | None, tokens: int) -> Iterator[str]:
        """What is said where a picture takes more or fewer pixels or tokens than were asked for."""
        asked = {"pixels": (size and size[0] * size[1], size and f"{size[0]} x {size[1]} pixels"),
                 "image_tokens": (tokens, f"{tokens} tokens")}  # fmt: skip
        for what, (count, told) in asked.items():
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if count is not None and most is not None and count > most:
                yield f"max_{what} is {most}: it takes {told}"
            if count is not None and least is not None and count < least:
                yield f"min_{what} is {least}: it takes {told}"


WORDS = tuple(field.name for field in fields(PictureBudget))
USUAL = PictureBudget()  # nothing is asked for
