"""Which replica a request goes to: the same from every front, few move when one goes, and none is overrun."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from opsin.serve.affine import Homes, bounded, choose, ranked

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import fleet

REPLICAS = [f"replica-{number}" for number in range(8)]
IDLE = dict.fromkeys(REPLICAS, 0.0)
KEYS = [f"key {number}" for number in range(4000)]


def test_every_front_has_the_same_order_whatever_order_it_heard_of_the_replicas_in() -> None:
    for key in KEYS[:100]:
        order = choose(key, IDLE)
        assert sorted(order) == REPLICAS
        assert order == choose(key, dict(reversed(IDLE.items()))) == ranked(key, reversed(REPLICAS))
        assert order[:3] == ranked(key, REPLICAS, 3)
    assert choose("x", {}) == choose("", {}) == []
    assert choose("\ud800", {"é": 1.0}) == ["é"]


def test_the_order_does_not_change_from_one_version_to_the_next() -> None:
    assert choose("a picture", IDLE) == [f"replica-{number}" for number in (1, 2, 6, 3, 5, 7, 0, 4)]


def test_keys_spread_evenly_and_so_do_the_second_choices() -> None:
    orders = [choose(key, IDLE) for key in KEYS]
    for place in (0, 1, 7):
        shares = Counter(order[place] for order in orders)
        assert all(400 < shares[replica] < 600 for replica in REPLICAS), shares
    heirs = Counter(order[1] for order in orders if order[0] == "replica-0")
    assert len(heirs) == 7 and max(heirs.values()) < 2 * min(heirs.values())


def test_where_a_replica_goes_only_its_own_keys_move() -> None:
    left = {replica: 0.0 for replica in REPLICAS if replica != "replica-3"}
    for key in KEYS[:500]:
        before = choose(key, IDLE)
        assert choose(key, left) == [replica for replica in before if replica != "replica-3"]


def test_who_has_too_much_to_do_comes_last() -> None:
    first, second, *_ = ranked("x", REPLICAS)
    mean = 4.0
    loads = dict.fromkeys(REPLICAS, mean)
    assert choose("x", {**loads, first: 7.0})[0] == first  # bound: 1.25 x 4.375 + 2 = 7.47
    order = choose("x", {**loads, first: 9.0})  # 1.25 x 4.625 + 2 = 7.78
    assert order[0] == second and order[-1] == first
    assert choose("x", {**loads, first: 9.0}, slack=8.0)[0] == first
    full = {**loads, first: 50.0, second: 60.0}
    assert bounded(ranked("x", REPLICAS), full)[-2:] == [first, second]


def test_a_request_without_a_key_goes_to_the_least_loaded_and_ties_are_drawn() -> None:
    loads = {**IDLE, "replica-1": 3.0, "replica-2": 1.0}
    orders = [choose("", loads) for _ in range(200)]
    assert all(order[-2:] == ["replica-2", "replica-1"] for order in orders)
    assert len({order[0] for order in orders}) == 6


@pytest.mark.parametrize(
    ("models", "places", "count", "most"), [(4, 2, 4, 2), (10, 2, 1, 2), (3, 8, 8, 3), (1, 1, 8, 1), (40, 4, 1, 5)]
)
def test_models_have_as_many_homes_as_there_are_places_and_evenly(
    models: int, places: int, count: int, most: int
) -> None:
    names = [f"model {number}" for number in range(models)]
    homes = Homes.of(names, REPLICAS, places)
    assert homes == Homes.of(reversed(names), reversed(REPLICAS), places) and homes.count == count
    kept = Counter(replica for order in homes.orders.values() for replica in order[:count])
    assert max(kept.values()) == most
    assert all(sorted(order) == REPLICAS for order in homes.orders.values())


def test_pictures_of_a_model_spread_over_its_homes_and_beyond_them_one_after_another() -> None:
    homes = Homes.of(["ant", "bee", "cow", "dog"], REPLICAS, 1)
    order = homes.orders["bee"]
    asked = Counter(homes.choose("bee", key, IDLE)[0] for key in KEYS[:400])
    assert set(asked) == set(order[:2]) and min(asked.values()) > 150
    overrun = {**IDLE, order[0]: 9.0, order[1]: 9.0}
    assert {homes.choose("bee", key, overrun)[0] for key in KEYS[:400]} == {order[2]}
    assert homes.choose("bee", "", {**IDLE, order[0]: 1.0})[0] == order[1]
    assert {homes.choose("gnu", key, IDLE)[0] for key in KEYS[:400]} == {*REPLICAS}
    assert Homes.of(["ant"], [], 1).choose("ant", "x", {}) == []


@pytest.fixture(scope="module")
def hashed() -> fleet.Outcome:
    return fleet.simulate(fleet.Trace.made(requests=12_000, exponent=1.0), replicas=8, lose_at=0.5)


def test_eight_replicas_find_most_pictures_and_none_is_overrun(hashed: fleet.Outcome) -> None:
    assert hashed.hits >= 0.85, hashed
    assert hashed.busiest <= 1.35, hashed


def test_after_a_loss_most_are_still_found(hashed: fleet.Outcome) -> None:
    assert hashed.hits_after_loss >= 0.80, hashed


def test_at_random_they_would_not_be_found() -> None:
    drawn = fleet.simulate(fleet.Trace.made(requests=12_000, exponent=1.0), replicas=8, routing="random")
    assert drawn.hits <= 0.60, drawn
