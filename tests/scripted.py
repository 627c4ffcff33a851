"""A model that writes what a test says: its logits favour the next token of a script, whatever it computed.

What steers an answer (masks, biases, sampling) works on these logits as on any. A token that was forced upon it is no
reason to leave the script.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from opsin.api import Model
from opsin.engine.candidates import CANDIDATES, Candidates


@contextmanager
def scripted(model: Model, text: str) -> Iterator[None]:
    """Meanwhile every answer of the model is this text, special tokens included, and its end."""
    script = [*model.tokenizer.encode(text, special=True), min(model.tokenizer.end_ids)]
    runner, real = model.runner, model.runner.step
    width = runner.decoder.vocabulary

    def step(plan):
        real(plan)
        wanted = [
            [*part.sequence.ids[part.sequence.prompt_rows :], *part.guesses[:right]]
            for part in plan
            if part.wanted
            for right in range(len(part.guesses) + 1)
        ]
        logits = np.tile(np.linspace(0, -1, width, dtype=np.float32), (len(wanted), 1))
        for row, written in zip(logits, wanted, strict=True):
            row[_next(script, written)] = 50.0
        order = np.argsort(-logits, axis=1, kind="stable")[:, :CANDIDATES]
        sums = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1) if len(wanted) else np.zeros(0)
        return Candidates(order.astype(np.int32), np.take_along_axis(logits, order, 1), sums, lambda: logits)

    runner.step = step
    try:
        yield
    finally:
        del runner.step


def _next(script: list[int], written: list[int]) -> int:
    place = 0
    for id in written:
        place += place < len(script) - 1 and id == script[place]
    return script[place]
