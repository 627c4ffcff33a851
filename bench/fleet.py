"""A fleet of replicas, simulated: how often a picture is found, how even the work is, what a million pictures cost.

    python bench/fleet.py                                   # 2 to 1,000 replicas, hashed and at random
    python bench/fleet.py --replicas 1000 --requests 400000
    python bench/fleet.py --against 8080 --replicas 2 --requests 400    # the same trace at real replicas, compared

Requests come as a Poisson stream: conversations of about four questions, each about one picture, whose popularity is
Zipf's. A replica keeps the newest pictures (LRU), encoding one costs so many questions, and works on one thing at a
time. Routing is the server's own (`opsin.serve.affine`). `--against` reads /metrics of each replica.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from opsin.serve.affine import bound_of, ranked

QUESTIONS = 4.0  # of a conversation, on average
THINKING = 200.0  # between two of them, in questions' work
CANDIDATES = 8  # of a key's order that are tried before the least loaded


@dataclass(frozen=True)
class Trace:
    """Requests in their order: when, in units of a question's work a replica, and about which picture."""

    requests: tuple[tuple[float, int], ...]

    @classmethod
    def made(
        cls, requests: int = 30_000, pictures: int = 20_000, exponent: float = 1.0, rate: float = 1.0, seed: int = 1
    ) -> Trace:
        """A Poisson stream of so many requests a unit of time."""
        draw = random.Random(seed)
        weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(pictures)))
        found: list[tuple[float, int]] = []
        at = 0.0
        while len(found) < requests:
            at += draw.expovariate(rate / QUESTIONS)
            (picture,) = draw.choices(range(pictures), cum_weights=weights)
            asked = at
            while True:
                found.append((asked, picture))
                if draw.random() < 1 / QUESTIONS:
                    break
                asked += draw.expovariate(1 / THINKING)
        return cls(tuple(sorted(found)[:requests]))


@dataclass
class Replica:
    """One of a fleet: what it keeps, and what it has to do."""

    name: str
    stored: OrderedDict[int, None] = field(default_factory=OrderedDict)
    load: int = 0
    free_at: float = 0.0
    work: float = 0.0
    gone: bool = False

    def take(self, at: float, picture: int, store: int, cost: float) -> bool:
        """Do a request after all others; whether its picture was known."""
        known = picture in self.stored
        self.stored[picture] = None
        self.stored.move_to_end(picture)
        if len(self.stored) > store:
            self.stored.popitem(last=False)
        took = 1.0 if known else 1.0 + cost
        self.work, self.load = self.work + took, self.load + 1
        self.free_at = max(at, self.free_at) + took
        return known


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        hits: share of requests whose picture was known; hits_after_loss: of the 2,000 after a replica was lost.
        busiest: the most loaded replica's work over the mean.
        work: of a request, in questions.
        late: the 99th percentile of waits, in questions' work.
        most: replicas at the same time.
    """

    hits: float
    hits_after_loss: float
    busiest: float
    work: float
    late: float
    most: int


@dataclass
class Fleet:
    """Replicas, and where requests go."""

    routing: str
    store: int
    cost: float
    replicas: dict[str, Replica] = field(default_factory=dict)
    total: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    _ends: list[tuple[float, int, Replica]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.order = lru_cache(1 << 15)(lambda picture: ranked(str(picture), self.replicas, CANDIDATES))

    def add(self, at: float = 0.0) -> None:
        """One more, which knows nothing."""
        name = f"replica-{next(self._numbers)}"
        self.replicas[name] = Replica(name, free_at=at)
        self.order.cache_clear()

    def lose(self, name: str) -> None:
        """One goes, with all that it knew."""
        gone = self.replicas.pop(name)
        gone.gone = True
        self.total -= gone.load
        self.order.cache_clear()

    def route(self, picture: int) -> Replica:
        """As `opsin.serve.affine.choose` does, with the mean kept up to date."""
        if self.routing == "random":
            return self.replicas[self.draw.choice(list(self.replicas))]
        bound = bound_of(self.total / len(self.replicas))
        for name in self.order(picture):
            if self.replicas[name].load <= bound:
                return self.replicas[name]
        return min(self.replicas.values(), key=lambda replica: replica.load)

    def ask(self, at: float, picture: int) -> tuple[bool, float]:
        """Whether it was known, and how long the answer waited."""
        while self._ends and self._ends[0][0] <= at:
            _, _, ended = heapq.heappop(self._ends)
            ended.load -= 1
            self.total -= not ended.gone
        replica = self.route(picture)
        known = replica.take(at, picture, self.store, self.cost)
        self.total += 1
        heapq.heappush(self._ends, (replica.free_at, id(replica), replica))
        return known, replica.free_at - at


def simulate(
    trace: Trace, replicas: int, routing: str = "hashed", *, store: int = 200, cost: float = 20.0,
    lose_at: float = 2.0, most: int = 0, target: float = 2.0,
) -> Outcome:  # fmt: skip
    """Answer all requests of a trace, whose time is stretched so that every replica would be half busy with all known.

    Args:
        store: pictures that a replica keeps. cost: of encoding one, in questions.
        lose_at: after which share of the requests a replica is lost.
        most: replicas at the most; one is added where more than `target` requests a replica wait, up to so many.
    """
    fleet = Fleet(routing, store, cost)
    for _ in range(replicas):
        fleet.add()
    pace = 2.0 * (1 + cost / QUESTIONS) / replicas
    known: list[bool] = []
    waits, everyone, looked = [], dict(fleet.replicas), 0.0
    lost = int(lose_at * len(trace.requests))
    for number, (at, picture) in enumerate(trace.requests):
        if number == lost:
            fleet.lose(max(fleet.replicas, key=lambda name: fleet.replicas[name].work))
        if len(fleet.replicas) < most and at * pace > looked + 100 and fleet.total > target * len(fleet.replicas):
            looked = at * pace
            fleet.add(looked + 50)
            everyone |= fleet.replicas
        found, wait = fleet.ask(at * pace, picture)
        known.append(found)
        waits.append(wait)
    work = [replica.work for replica in everyone.values()]
    after = known[lost : lost + 2000] or [False]
    alive = [replica.work for replica in fleet.replicas.values()]
    return Outcome(
        hits=sum(known) / len(known), hits_after_loss=sum(after) / len(after),
        busiest=max(alive) / (sum(alive) / len(alive)), work=sum(work) / len(known),
        late=sorted(waits)[int(0.99 * len(waits))], most=len(everyone),
    )  # fmt: skip


def table(args: argparse.Namespace) -> None:
    """Hits, evenness and costs for fleets of several sizes."""
    heads = "replicas, routing, found, after a loss, busiest / mean, work a request, p99 wait, core hours a million"
    print(f"| {heads.replace(', ', ' | ')} |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for count in args.replicas:
        trace = Trace.made(max(args.requests, 200 * count), exponent=args.exponent, pictures=max(20_000, 20 * count))
        for routing in ("hashed", "random"):
            made = simulate(trace, count, routing, store=args.store, cost=args.cost, lose_at=0.5)
            hours = made.work * args.question_seconds * 1e6 / 3600
            print(
                f"| {count} | {routing} | {made.hits:.1%} | {made.hits_after_loss:.1%} | {made.busiest:.2f} "
                f"| {made.work:.2f} | {made.late:.0f} | {hours:.0f} |", flush=True,
            )  # fmt: skip
    grown = simulate(Trace.made(args.requests), 2, most=16, store=args.store, cost=args.cost)
    print(
        f"\nfrom 2 replicas, up to 16 where more than 2 requests a replica wait: {grown.most}, found {grown.hits:.1%}"
    )


def against(args: argparse.Namespace) -> None:
    """Ask real replicas what the trace says, three at a time, and compare the pictures that they encoded."""
    import fleet_client

    count = args.replicas[0]
    trace = Trace.made(args.requests, pictures=args.requests, exponent=args.exponent)
    pictures = [picture for _, picture in trace.requests]
    for routing in ("hashed", "random"):
        expected = simulate(trace, count, routing, store=10_000, cost=args.cost)
        encoded, shares = fleet_client.play(args.against, pictures, routing == "hashed", replicas=count)
        print(
            f"{routing}: {len(pictures)} requests about {len(set(pictures))} pictures; encoded {encoded}, "
            f"simulated {round((1 - expected.hits) * len(pictures))}; replicas took {sorted(shares.values())}"
        )


def main() -> None:
    """Tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 8, 32, 128, 1000])
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--exponent", type=float, default=1.0, help="Zipf's")
    parser.add_argument("--store", type=int, default=200, help="pictures that a replica keeps")
    parser.add_argument("--cost", type=float, default=20.0, help="of encoding a picture, in questions about it")
    parser.add_argument("--question-seconds", type=float, default=0.25, help="processor time of a question")
    parser.add_argument("--against", type=int, metavar="PORT", help="of a server with replicas on this machine")
    args = parser.parse_args()
    against(args) if args.against else table(args)


if __name__ == "__main__":
    main()
