"""A constraint by hand: which ids may stand at each place of an answer."""

from __future__ import annotations

import itertools

import numpy as np
from tiny import Shape


class Places:
    """At each place one of the ids of its set; after the last place nothing may follow."""

    def __init__(self, *places):
        self.places, self.taken, self.asked = places, [], 0

    @property
    def ended(self):
        return len(self.taken) == len(self.places)

    def mask(self):
        self.asked += 1
        bits = np.zeros(Shape().vocabulary, bool)
        bits[list(self.places[len(self.taken)])] = True
        return np.packbits(bits, bitorder="little")

    def forced(self):
        ahead = [[*place] for place in self.places[len(self.taken) :]]
        return [place[0] for place in itertools.takewhile(lambda place: len(place) == 1, ahead)]

    def accept(self, id):
        assert id in self.places[len(self.taken)]
        self.taken.append(id)


class Anything:
    """Lets all ids follow."""

    ended = False

    def mask(self):
        return None

    def forced(self):
        return ()

    def accept(self, id):
        pass


def some_places(count, seed=0):
    """Sets of ids from 8 on, of which some are large and some have one id only."""
    random = np.random.default_rng(seed)
    sizes = random.choice([1, 2, 7, 120], count)
    return [set(random.choice(np.arange(8, Shape().vocabulary), size, replace=False).tolist()) for size in sizes]
