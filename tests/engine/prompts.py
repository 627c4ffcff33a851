"""Prompts of ids by chance, and the limits of the runner that reads them."""

from __future__ import annotations

import numpy as np
from tiny import Shape

from opsin.engine.runner import Limits
from opsin.spans import Prompt

LIMITS = Limits(rows=64, outputs=16, sequences=16, context=512, pages=60)


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, Shape().vocabulary, count).tolist()


def prompt_of(count, seed=0):
    return Prompt.of([ids_of(count, seed)])
