"""Steps of preparation that a person swaps for their own, held to what the steps of that name promise.

What a person's function raises goes through as it is. What it gives is checked, and so is that somebody called it: a
family does not take all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from PIL import Image

from opsin.errors import RequestError
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.media.steps import STEPS, Floats, Steps

Step = Callable[..., object]


class Swapped:
    """Standard steps but for some; remembers which were called.

    Args:
        own: functions by the names of the steps whose place they take.

    Raises RequestError for names that are no steps.
    """

    def __init__(self, own: Mapping[str, Step]) -> None:
        known = [field.name for field in fields(Steps)]
        wrong = next((name for name in own if name not in known), None)
        if wrong is not None:
            raise RequestError(f"{wrong!a:.80} is no step of preparation", hint=f"swap {', '.join(known)}")
        self._own, self._called = dict(own), set[str]()
        self.steps = replace(STEPS, **{name: self._watched(name) for name in known})

    def check_called(self) -> None:
        """Raises RequestError where a step was swapped that the family does not take."""
        idle = [name for name in self._own if name not in self._called]
        if idle:
            used = ", ".join(field.name for field in fields(Steps) if field.name in self._called)
            raise RequestError(f"this model's preparation has no step {idle[0]!r}", hint=f"it has {used}")

    def _watched(self, name: str) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> object:
            self._called.add(name)
            if name not in self._own:
                return getattr(STEPS, name)(*args, **options)
            made = self._own[name](*args, **options)
            return _patches(name, made, args, options) if name == "patchify" else _checked(name, made, args)

        return step


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
    return _values(name, made, STEPS.patchify(*args, **options).shape)


def _values(name: str, made: object, shape: tuple[int, ...]) -> Floats:
    values = np.asarray(made)
    if values.shape != shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        hint = f"give finite numbers of shape {list(shape)}"
        raise RequestError(f"the step {name!r} gave {values.dtype} of shape {list(values.shape)}", hint=hint)
    return np.ascontiguousarray(values, np.float32)
