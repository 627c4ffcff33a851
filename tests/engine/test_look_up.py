"""What is read off a text that repeats itself, and when it pays."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.engine.look_up import LookUp
from opsin.engine.step_costs import StepCosts


def guessed(ids, most=4):
    return [guess.id for guess in LookUp(ids).guesses(most)]


def test_what_followed_the_same_ids_before_comes_next():
    assert guessed([1, 2, 3, 4, 5, 6, 9, 2, 3]) == [4, 5, 6, 9]
    assert guessed([1, 2, 3]) == guessed([5]) == guessed([]) == []


def test_the_longest_repetition_counts_and_of_equals_the_last():
    assert guessed([1, 2, 3, 7, 0, 9, 2, 3, 8, 1, 2, 3], most=1) == [7]
    assert guessed([2, 3, 7, 0, 2, 3, 8, 5, 2, 3], most=1) == [8]


def test_what_goes_round_is_guessed_round_and_round():
    assert guessed([9, 1, 2, 1, 2], most=5) == [1, 2, 1, 2, 1]
    assert guessed([7, 7, 7], most=3) == [7, 7, 7]


def test_a_copy_goes_on_behind_a_change():
    """Of one id by two that were never there, though the next one stands elsewhere, too, and later."""
    text = [*range(10, 30), 99, *range(30, 40), 5, 30, 7]
    look_up = LookUp([*text, *range(10, 30), 98])
    copied = LookUp(text)
    for id in (*range(10, 30), 97, 98):
        copied.append(id)
    assert copied.guesses(4) == []
    copied.append(30)
    assert [guess.id for guess in copied.guesses(4)] == [31, 32, 33, 34]
    look_up.append(30)
    assert look_up.guesses(1)[0].id == 7  # nobody followed that copy


@pytest.mark.parametrize("seed", range(5))
def test_followed_id_by_id_it_is_what_all_at_once_gives(seed):
    """By the definition: of all places, the one after the longest common part, at least after a settled repetition."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 4, 60).tolist()
    look_up = LookUp(ids[:1])
    for end in range(2, 61):
        look_up.append(ids[end - 1])
        known = ids[:end]

        def common(place, known=known):
            length = 0
            while length < min(place, 16) and known[place - 1 - length] == known[-1 - length]:
                length += 1
            return length

        places = [place for place in range(1, end) if common(place)]
        best = max((common(place) for place in places), default=0)
        found = look_up.guesses(1)
        assert bool(found) == bool(best)
        if 0 < best < 4:
            assert found[0].id == known[max(place for place in places if common(place) == best)]
        elif best:
            assert found[0].id in {known[place] for place in places if common(place) >= 4}


def test_chances_fall_from_place_to_place_and_follow_what_was_right():
    def chances(ids):
        return [guess.chance for guess in LookUp(ids).guesses(8)]

    falling = chances([1, 2, 3, 4, 1, 2])
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < falling[0] < 1
    right, wrong = LookUp([1, 2, 3]), LookUp([1, 2, 3])
    for id in [1, 2, 3] * 20:
        right.append(id)
    other = 10
    for _ in range(30):  # 1 is never followed by what followed it before
        for id in (1, other := other + 1):
            wrong.append(id)
    wrong.append(1)
    assert right.guesses(1)[0].chance > 0.95
    assert all(guess.chance < 0.05 for guess in wrong.guesses(1))


def test_guesses_pay_where_rows_are_cheap_and_right_and_not_elsewhere():
    costs = StepCosts()
    for rows, seconds in ((1, 0.010), (2, 0.011), (4, 0.012), (8, 0.016), (16, 0.030)):
        costs.saw(rows, seconds)
    assert costs.best(1, 1, [0.9**i for i in range(1, 16)]) in range(5, 12)
    assert costs.best(1, 1, [0.3]) == 1
    assert costs.best(1, 1, [0.05, 0.01]) == 0
    assert costs.best(8, 8, [0.2] * 8) == 0
    assert costs.best(1, 1, []) == 0


def test_costs_between_and_beyond_what_was_seen_are_supposed_and_what_is_old_is_forgotten():
    costs = StepCosts()
    assert costs.of(4) > costs.of(1)
    costs.saw(2, 0.010)
    costs.saw(6, 0.020)
    assert costs.of(1) == costs.of(2) == 0.010
    assert costs.of(4) == pytest.approx(0.011)  # so little that it is tried
    assert costs.of(5) <= costs.of(6) == 0.020 < costs.of(8) < 0.030
    costs.saw(6, 9.0)  # somebody else had the machine
    assert costs.of(6) < 0.035
    for _ in range(600):
        costs.saw(1, 0.010)
    assert costs.of(6) == pytest.approx(0.010 * 1.25)
