"""What families share in laying films out: frames as pictures that are decoded when their features are made.

A film becomes parts of a message: texts, and patches that each stand where the template has a picture. Their sizes come
from a frame without pixels, so nothing is decoded before the encoder asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.media import sizes
from opsin.media.film import Film, clock
from opsin.media.frames import by_rate, in_steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.nn.pictures import Preparation
from opsin.nn.vit import Vit
from opsin.spans import Features, MediaSpan, Patches

Parts = tuple[str | Patches, ...]
Layout = Callable[[Picture], Patches]
STEP = 2  # frames that a tower with two kernels takes at once, which are a moment
FPS, FEWEST, MOST = 2.0, 4, 768  # frames of a film, of families with moments
# Tokens of a moment, and of all that a film of such a family may take: those of transformers.
LEAST_EACH, MOST_EACH, ALL_MOMENTS, ALL_TIMED = 128, 768, 128_000, 24_576
LEAST_TIMED = 4
ROUNDING = 1e-6  # of a product that shall be a whole number


class Sees(Protocol):
    """A tower of pictures."""

    def layout(self, picture: Picture) -> Patches:
        """See `VisionEncoder.layout`."""
        ...


def as_pictures(tower: Sees, film: Film) -> Parts:
    """Frames as pictures, each behind its time in minutes and seconds: for families that know no films."""
    parts: list[str | Patches] = []
    numbers = by_rate(film, film.choice)
    for number in numbers:
        parts += [f"[{clock(film.times[number])}]", frame(tower.layout, film, number)]
    return told(parts, film, len(numbers))


def in_one_run(tower: Sees, film: Film, numbers: Sequence[int]) -> Parts:
    """Frames where the template has one picture, each behind its time in minutes and seconds."""
    parts: list[str | MediaSpan] = []
    for number in numbers:
        parts += [f"{' ' if parts else ''}{clock(film.times[number])} ", *frame(tower.layout, film, number).parts]
    return told([Patches(tuple(parts), original=film.size)], film, len(numbers))


def told(parts: list[str | Patches], film: Film, count: int) -> Parts:
    """The same, whose first patches say how much of the film is looked at."""
    note = f"{count} of {len(film)} frames of a video of {film.seconds:.1f} seconds"
    first = next(place for place, part in enumerate(parts) if isinstance(part, Patches))
    patches = parts[first]
    assert isinstance(patches, Patches)
    return (*parts[:first], replace(patches, notes=(*film.notes, note, *patches.notes)), *parts[first + 1 :])


def frame(layout: Layout, film: Film, number: int) -> Patches:
    """One frame as a picture: decoded, and laid out again, when its features are made."""
    patches = layout(film.unseen(number))

    def make(digest: bytes) -> Floats:
        seen = layout(film.picture(number))
        features = next(span.features for span in seen.spans if span.digest == digest)
        assert features is not None
        return features.make()

    def part(given: str | MediaSpan) -> str | MediaSpan:
        if isinstance(given, str) or given.features is None:
            return given
        return replace(given, features=Features(given.features.shape, partial(make, given.digest)))

    return replace(patches, parts=tuple(part(given) for given in patches.parts))


class SeesMoments(Sees, Protocol):
    """A tower with two kernels."""

    @property
    def tower(self) -> Vit: ...
    @property
    def preparation(self) -> Preparation: ...
    @property
    def pace(self) -> float:
        """Positions that a second takes on the axis of time; 0 for one each moment."""
        ...

    def shown(self, picture: Picture, size: Size) -> MediaSpan:
        """The rows of a picture that is processed at this size."""
        ...


def on_time_axis(tower: SeesMoments, film: Film) -> Parts:
    """A film as one run of rows, whose positions are moment, row and column. What follows stands behind all of them.

    Frames, sizes and positions within are those of transformers' processor with `cap_pixels_per_frame`.
    Positions behind it go on after the largest of all axes (Wang et al. 2024, arXiv 2409.12191, section 2.1), where
    transformers counts rows and columns alone.
    """
    numbers = in_steps(film, film.choice, fps=FPS, most=MOST, least=FEWEST, step=STEP)
    token = (tower.preparation.patch * tower.preparation.block) ** 2
    least, share = LEAST_EACH * token, int(ALL_MOMENTS * token * 0.9) * STEP // len(numbers)
    most = max(min(MOST_EACH * token, share), int(least * 1.05))
    bounds = film.budget.pixels(token, least, most, ceiling=tower.tower.shape.most_pixels)
    size = sizes.fit_pixels(film.size, tower.preparation.patch * tower.preparation.block, *bounds)
    spans = moments(tower, film, numbers, size)
    interval = tower.pace * STEP * len(film) / (len(numbers) * film.rate) if tower.pace else 1.0
    times = [int(number * interval + ROUNDING) for number in range(len(spans))]
    behind = [0] * (len(spans) - 1) + [max(times[-1] + 1, spans[-1].positions)]
    placed = (replace(s, time=t, positions=p) for s, t, p in zip(spans, times, behind, strict=True))
    return told([Patches(tuple(placed), original=film.size)], film, len(numbers))


def with_times(tower: SeesMoments, film: Film) -> Parts:
    """A film as moments that stand like pictures, each behind its seconds.

    Frames and sizes are those of transformers' processor with `cap_pixels_per_frame`.
    """
    numbers = by_rate(film, film.choice, fps=FPS, most=MOST, least=FEWEST)
    side, count = tower.preparation.patch * tower.preparation.block, max(STEP, len(numbers))
    least = LEAST_TIMED * side**2
    each = max(min(MOST_EACH * side**2, ALL_TIMED * side**2 // count), int(least * 1.05))
    low, high = film.budget.pixels(side**2, -(-least // count), each, ceiling=tower.tower.shape.most_pixels)
    begun = sizes.both_at_least(film.size, side)
    size = sizes.fit_pixels(begun, side, low * count, high * count, frames=count)
    parts: list[str | Patches] = []
    for at, span in enumerate(moments(tower, film, numbers, size)):
        pair = numbers[at * STEP], numbers[min(at * STEP + 1, len(numbers) - 1)]
        seconds = sum(float(film.times[number]) for number in pair) / STEP
        parts += [f"<{seconds:.1f} seconds>", Patches((span,), original=film.size)]
    return told(parts, film, len(numbers))


def moments(tower: SeesMoments, film: Film, numbers: Sequence[int], size: Size) -> list[MediaSpan]:
    """For each two frames a span of their rows at this size; an odd last frame is taken twice.

    Features are [patches high, patches wide, values of the first frame's patch and then of the second's].
    """

    def make(pair: Sequence[int]) -> Floats:
        made: dict[int, Floats] = {}
        for number in dict.fromkeys(pair):
            features = tower.shown(film.picture(number), size).features
            assert features is not None
            made[number] = features.make()
        return np.concatenate([made[number] for number in pair], axis=-1)

    found: list[MediaSpan] = []
    for at in range(0, len(numbers), STEP):
        pair = (numbers[at], numbers[min(at + 1, len(numbers) - 1)])
        span = tower.shown(film.unseen(pair[0]), size)
        assert span.features is not None
        high, wide, values = span.features.shape
        digest = tower.preparation.digest(film.unseen(pair[0]), span.digest, film.digest_of(pair[1]))
        found.append(replace(span, digest=digest, features=Features((high, wide, STEP * values), partial(make, pair))))
    return found


def fitted(lay_out: Callable[[Film], Parts], film: Film) -> Parts:
    """A film laid out within its `max_video_tokens`: frames are looked at less finely until all fit, then fewer.

    Raises RequestError where not even one frame fits.
    """
    parts, most = lay_out(film), film.choice.max_video_tokens
    if most is None:
        return parts
    while (tokens := tokens_of(parts)) > most:
        spans = [span for patches in parts if isinstance(patches, Patches) for span in patches.spans]
        each = max(span.rows for span in spans)
        coarser = film.asked(film.choice, replace(film.budget, max_image_tokens=max(1, each * most // tokens)))
        less = lay_out(coarser)
        if tokens_of(less) < tokens:
            film, parts = coarser, less
            continue
        frames = min(len(spans) * most // tokens, (film.choice.frames or len(spans)) - 1)
        if not frames:
            hint = "allow more" if film.sound is None else "allow more, or leave its sound out"
            raise RequestError(f"one frame takes {tokens} tokens, max_video_tokens is {most}", hint=hint)
        film = film.asked(replace(film.choice, fps=None, frames=frames), film.budget)
        parts = lay_out(film)
    return parts


def tokens_of(parts: Parts) -> int:
    """Places in a prompt that a film's frames take, without texts and markers."""
    return sum(part.rows for part in parts if isinstance(part, Patches))
