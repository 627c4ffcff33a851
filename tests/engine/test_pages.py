"""Pages are taken, shared and given back, and never twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opsin.engine.pages import PagePool, pages_for

COUNT = 12


class Pool(RuleBasedStateMachine):
    """Owners take pages and share one another's."""

    def __init__(self):
        super().__init__()
        self.pool, self.owners = PagePool(COUNT), []

    @rule(number=st.integers(0, COUNT + 2))
    def take(self, number):
        free = self.pool.free
        pages = self.pool.take(number)
        if number > free:
            assert pages is None
            assert self.pool.free == free
            return
        taken = {page for owner in self.owners for page in owner}
        assert len(set(pages)) == number
        assert not taken & set(pages)
        self.owners.append(pages)

    @rule(data=st.data())
    def share(self, data):
        owners = [owner for owner in self.owners if owner]
        if owners:
            page = data.draw(st.sampled_from(data.draw(st.sampled_from(owners))))
            self.pool.share(page)
            self.owners.append([page])

    @rule(data=st.data())
    def give_back(self, data):
        if self.owners:
            self.pool.give_back(self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1))))

    @invariant()
    def adds_up(self):
        self.pool.check()
        assert self.pool.free == COUNT - len({page for owner in self.owners for page in owner})


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_pool = Pool.TestCase


def test_a_fresh_pool_is_used_from_its_beginning():
    assert PagePool(9).take(3) == [0, 1, 2]


def test_giving_back_twice_is_our_mistake():
    pool = PagePool(4)
    pages = pool.take(2)
    pool.give_back(pages)
    with pytest.raises(AssertionError, match="given back twice"):
        pool.give_back(pages)


def test_a_free_page_is_not_shared():
    with pytest.raises(AssertionError, match="free page"):
        PagePool(4).share(1)


@pytest.mark.parametrize(("rows", "pages"), [(0, 0), (1, 1), (64, 1), (65, 2), (128, 2)])
def test_pages_for_rows(rows, pages):
    assert pages_for(rows) == pages
