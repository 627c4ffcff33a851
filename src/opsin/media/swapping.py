"""Steps of preparation that a person swaps for their own, held to what the steps of that name promise.

What a person's function raises goes through as it is. What it gives is checked, and so is that somebody called it: a
family does not take all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.media.steps import CALLER, STEPS

Step = Callable[..., object]


class StepOverrides:
    """Steps that take the place of the standard ones; remembers which steps were called. For one picture, one thread.

    Args:
        overrides: functions by the names of the steps whose place they take.

    Raises RequestError for names that are no steps.
    """

    def __init__(self, overrides: Mapping[str, Step]) -> None:
        wrong = next((name for name in overrides if name not in STEPS), None)
        if wrong is not None:
            raise RequestError(f"{wrong!a:.80} is no step of preparation", hint=f"swap {', '.join(STEPS)}")
        self._overrides, self._called = dict(overrides), set[str]()

    @contextmanager
    def active(self) -> Iterator[None]:
        """What this thread prepares meanwhile is prepared with them."""
        before = CALLER.set(self._call)
        try:
            yield
        finally:
            CALLER.reset(before)

    def check_called(self) -> None:
        """Raises RequestError where a step was swapped that the family does not take."""
        idle = [name for name in self._overrides if name not in self._called]
        if idle:
            used = ", ".join(name for name in STEPS if name in self._called)
            raise RequestError(f"this model's preparation has no step {idle[0]!r}", hint=f"it has {used}")

    def _call(self, name: str, standard: Step, args: tuple[Any, ...], options: dict[str, Any]) -> object:
        self._called.add(name)
        if name not in self._overrides:
            return standard(*args, **options)
        before = CALLER.set(None)  # an override may call the standard steps
        try:
            made = self._overrides[name](*args, **options)
        finally:
            CALLER.reset(before)
        return _patches(name, made, args, options) if name == "patchify" else _checked(name, made, args)


def _checked(name: str, made: object, args: tuple[Any, ...]) -> object:
    """An image of the promised size, or values of an image's."""
    size = _promised(name, args)
    if name == "normalise":
        return _values(name, made, (size[1], size[0], 3))
    if not isinstance(made, Image.Image) or made.mode != "RGB" or made.size != size:
        given = f"{made.mode} {made.size}" if isinstance(made, Image.Image) else type(made).__name__
        raise RequestError(f"the step {name!r} gave {given}", hint=f"give a Pillow image, RGB {size}")
    return made


def _promised(name: str, args: tuple[Any, ...]) -> Size:
    given: Picture | Image.Image = args[0]
    if name == "pad_to_square":
        return max(given.size), max(given.size)
    if name in ("resize", "centre_crop"):
        size: Size = args[1]
        return size
    return given.size


def _patches(name: str, made: object, args: tuple[Any, ...], options: Mapping[str, Any]) -> Floats:
    return _values(name, made, STEPS["patchify"](*args, **options).shape)


def _values(name: str, made: object, shape: tuple[int, ...]) -> Floats:
    values = np.asarray(made)
    if values.shape != shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        hint = f"give finite numbers of shape {list(shape)}"
        raise RequestError(f"the step {name!r} gave {values.dtype} of shape {list(values.shape)}", hint=hint)
    return np.ascontiguousarray(values, np.float32)
