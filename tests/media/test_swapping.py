"""Steps that a person swaps are swapped for what they prepare, and for nothing and nobody else."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest
from drawn import draw
from PIL import Image

from opsin.media import steps
from opsin.media.swapping import StepOverrides

IMAGE = draw((40, 30))


def shrink() -> Image.Image:
    return steps.resize(IMAGE, (9, 7), "bicubic")


def nearest(image: Image.Image, size: tuple[int, int], filter: str) -> Image.Image:
    return steps.resize(image, size, "nearest")


def is_nearest(image: Image.Image) -> bool:
    return np.array_equal(np.asarray(image), np.asarray(IMAGE.resize((9, 7), Image.Resampling.NEAREST)))


def test_a_step_is_swapped_while_its_overrides_are_active_and_no_longer() -> None:
    with StepOverrides({"resize": nearest}).active():
        assert is_nearest(shrink())
    assert not is_nearest(shrink())


def test_another_thread_prepares_meanwhile_as_ever() -> None:
    seen: list[bool] = []
    with StepOverrides({"resize": nearest}).active():
        thread = Thread(target=lambda: seen.append(is_nearest(shrink())))
        thread.start()
        thread.join()
        assert seen == [False] and is_nearest(shrink())


def test_an_override_that_fails_leaves_the_steps_as_they_were() -> None:
    def fail(*_: object) -> None:
        raise KeyError("mine")

    overrides = StepOverrides({"flatten": fail, "resize": nearest})
    with overrides.active():
        with pytest.raises(KeyError, match="mine"):
            steps.flatten(IMAGE)
        assert is_nearest(shrink())
    with pytest.raises(KeyError, match="mine"), overrides.active():
        steps.flatten(IMAGE)
    assert not is_nearest(shrink())
