"""Guesses by whoever knows the answer, and lies here and there."""

from __future__ import annotations

import numpy as np

from opsin.engine.look_up import Guess


class Oracle:
    """Guesses what follows in `answer`, but for mistakes, which come with a chance by place."""

    def __init__(self, answer, mistakes, seed=0):
        random = np.random.default_rng(seed)
        self.told = [id ^ 1 if random.random() < mistakes else id for id in answer]
        self.place = 0

    def append(self, id):
        self.place += 1

    def guesses(self, most):
        return [Guess(id, 0.9) for id in self.told[self.place : self.place + most]]


def know(monkeypatch, answers, mistakes=0.0):
    """Sequences whose prompts begin answers find out by an oracle; `answers` are by their prompts, as tuples."""

    def made(ids):
        return Oracle(answers.get(tuple(ids), ()), mistakes, seed=len(ids))

    monkeypatch.setattr("opsin.engine.sequence.LookUp", made)
