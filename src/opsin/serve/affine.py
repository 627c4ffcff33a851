"""Which replica a request goes to: the one that knows its picture, unless that has much more to do than the others.

Rendezvous hashing: each key has an order of replicas that is the same at every front, without anything being said
between them, and where a replica goes only its own keys move (Thaler and Ravishankar 1998). With bounded loads: nobody
takes more than a share above the mean (Mirrokni, Thorup and Zadimoghaddam 2018).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Generic, TypeVar

R = TypeVar("R", bound=Hashable)
SHARE: Final = 1.25  # of the mean load, and
SLACK: Final = 2.0  # requests more, may be at a replica before the next one is asked
_MASK: Final = (1 << 64) - 1


def choose(key: str, loads: Mapping[R, float], *, spread: float = SHARE, slack: float = SLACK) -> list[R]:
    """All replicas, the best for a request first.

    Args:
        key: of its picture (`route_key`); "" where any will do: the least loaded come first.
        loads: what each replica has to do, in requests. Its name, `str(replica)`, must be one at every front.
    """
    if not key:
        return sorted(loads, key=lambda replica: (loads[replica], random.random()))
    return bounded(ranked(key, loads), loads, spread=spread, slack=slack)


def ranked(key: str, replicas: Iterable[R], most: int | None = None) -> list[R]:
    """A key's order of replicas, whatever they have to do; of many, only the first `most`."""
    mark = _number(key)
    scores = {replica: _mixed(mark ^ _number(str(replica))) for replica in replicas}
    if most is not None:
        return heapq.nlargest(most, scores, key=scores.__getitem__)
    return sorted(scores, key=scores.__getitem__, reverse=True)


def bounded(order: list[R], loads: Mapping[R, float], *, spread: float = SHARE, slack: float = SLACK) -> list[R]:
    """The same order, but those last, the least loaded first, that have more to do than the bound."""
    if not order:
        return order
    bound = bound_of(sum(loads.values()) / len(loads), spread=spread, slack=slack)
    free = [replica for replica in order if loads[replica] <= bound]
    return free + sorted((replica for replica in order if loads[replica] > bound), key=loads.__getitem__)


@dataclass(frozen=True)
class Homes(Generic[R]):
    """Where several models are kept in memory, the same at every front: each at some replicas, evenly.

    Attributes:
        count: of a model's homes.
        orders: of each model: all replicas, its homes first; where it goes beyond these, one after another.
    """

    count: int
    orders: Mapping[str, Sequence[R]]

    @classmethod
    def of(cls, models: Iterable[str], replicas: Iterable[R], places: int) -> Homes[R]:
        """Homes of models where each replica has places for so many. `str(replica)` is its name at every front."""
        names, taken, orders = sorted(set(models)), Counter[R](), dict[str, list[R]]()
        there = list(replicas)
        count = min(len(there), max(1, len(there) * places // max(1, len(names))))
        most = -(-len(names) * count // max(1, len(there)))
        for name in names:
            order = sorted(ranked(name, there), key=lambda replica: taken[replica] >= most)
            taken.update(order[:count])
            orders[name] = order
        return cls(count, orders)

    def choose(self, model: str, key: str, loads: Mapping[R, float]) -> list[R]:
        """All replicas, the best for a request about a model first: see `choose`. Without one any is as good."""
        order = self.orders.get(model)
        if order is None:
            return choose(key, loads)
        homes, others = order[: self.count], order[self.count :]
        return bounded([*(ranked(key, homes) if key else sorted(homes, key=loads.__getitem__)), *others], loads)


def bound_of(mean: float, *, spread: float = SHARE, slack: float = SLACK) -> float:
    """What a replica may have to do and still be the first for its keys, where they have so much on average."""
    return spread * mean + slack


@lru_cache(1 << 16)
def _number(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mixed(number: int) -> int:
    """All bits of a 64-bit number stirred: the end of SplitMix64 (Steele, Lea and Flood 2014)."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)
