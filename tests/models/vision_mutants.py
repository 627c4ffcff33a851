"""Mistakes that any tower can have; `operation` serves decoders, too. Families' comparisons must see each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from opsin.media import steps
from opsin.ops.cpu import Operations

Mutant = Callable[[pytest.MonkeyPatch, Any], Any]  # (patches, encoder) -> a wrong encoder


def operation(name: str, wrong: Callable[..., object]) -> Mutant:
    """Of one operation: wrong(right, ops, *args, **options)."""
    return patched(Operations, name, wrong)


def step(name: str, wrong: Callable[..., object]) -> Mutant:
    """Of one step of preparation: wrong(right, *args, **options)."""

    def apply(patch, encoder):
        right = getattr(steps, name)
        patch.setattr(steps, name, lambda *args, **options: wrong(right, *args, **options))
        return encoder

    return apply


def patched(owner: object, name: str, wrong: Callable[..., object]) -> Mutant:
    def apply(patch, encoder):
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **options: wrong(right, *args, **options))
        return encoder

    return apply


def tower(**changes: Callable[[Any], object]) -> Mutant:
    """Of the tower's attributes, each told by what makes it from the tower."""

    def apply(patch, encoder):
        made = {name: change(encoder.tower) for name, change in changes.items()}
        return replace(encoder, tower=replace(encoder.tower, **made))

    return apply


def shape(**changes: object) -> Mutant:
    return tower(shape=lambda right: replace(right.shape, **changes))


def without(name: str) -> Mutant:
    """Of the tower's tensors: one part is not there."""

    def apply(patch, encoder):
        patch.setattr(encoder.tower.weights, name, None)
        return encoder

    return apply


def one_moment(patch, encoder):
    """The kernel for a second moment is left out."""
    patch.setattr(encoder.tower.weights.patch_embd, "second", None)
    return encoder


def moved(right, rows):
    """The position embeddings of a tower, in another order."""
    return right.ops.constant(right.position_embeddings.numpy()[rows(len(right.position_embeddings.numpy()))])


TOWERS: dict[str, Mutant] = {
    "scores are not scaled": tower(
        shape=lambda right: replace(right.shape, heads=replace(right.shape.heads, scale=1.0))
    ),
    "rows see one row less": operation(
        "attend_dense",
        lambda right, ops, q, k, v, first, last, **options: right(
            ops, q, k, v, first, ops.constant(last.numpy() - 1), **options
        ),
    ),
    "the last layer is left out": tower(shape=lambda right: replace(right.shape, layers=right.shape.layers - 1)),
    "another activation": shape(activation="relu"),
    "eps of 0.01": shape(eps=0.01),
    "channels in the order of blue, green, red": step(
        "normalise", lambda right, image, *numbers: right(image, *numbers)[..., ::-1]
    ),
    "values are not normalised": step("normalise", lambda right, image, mean, std: right(image, [0] * 3, [1] * 3)),
}
PLACES: dict[str, Mutant] = {
    "no positions": tower(position_embeddings=lambda right: None),
    "positions of the patch before": tower(
        position_embeddings=lambda right: moved(right, lambda n: np.roll(np.arange(n), 1))
    ),
}
