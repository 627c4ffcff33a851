"""An invented modality: melodies, whose notes are embedded as the ids of the same numbers.

So a prompt with a melody must be answered, bit for bit, as the prompt that spells its notes as text.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from opsin.spans import Features, MediaSpan


def melody(notes, *, atomic=False, make=None, name=b""):
    """A span of as many rows as notes."""
    values = np.array(notes, np.float32)
    digest = blake2b(values.tobytes() + name, digest_size=16).digest()
    features = Features(values.shape, make or (lambda: values))
    return MediaSpan(digest, len(notes), len(notes), atomic=atomic, features=features)


@dataclass
class Ear:
    """The encoder. It remembers what it was given, and computes idly until a gate opens."""

    weight: object
    ops: object = None
    batches: list = field(default_factory=list)
    wrong: float | None = None  # a note that it cannot hear
    loads: int = 0
    started: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def load(self, device):
        def loaded(turn):
            self.ops, self.loads = device.eager(turn), self.loads + 1
            return self

        return loaded

    def encode(self, features):
        self.batches.append(features.copy())
        self.started.set()
        while not self.gate.is_set():
            self.ops.scale(self.ops.constant(np.ones((2, 2), np.float32)), 2.0)
        if self.wrong is not None and (features == self.wrong).any():
            raise ValueError("a note out of range")
        return self.ops.embed(self.ops.constant(features.reshape(-1).astype(np.int32)), self.weight)

    @property
    def heard(self):
        """How many melodies were encoded."""
        return sum(len(batch) for batch in self.batches)
