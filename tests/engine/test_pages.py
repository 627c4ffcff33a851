"""Pages are taken, shared and given back, and never twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opsin.engine.pages import TAILS, PagePool, pages_for

COUNT = 12
KEYS = [b"a", b"b", b"c", b"d"]


class Pool(RuleBasedStateMachine):
    """Owners take pages, share one another's, and keep some under keys, which say what was written into them."""

    def __init__(self):
        super().__init__()
        self.pool, self.owners, self.written = PagePool(COUNT), [], {}

    def draw_owned(self, data):
        owners = [owner for owner in self.owners if owner]
        return data.draw(st.sampled_from(data.draw(st.sampled_from(owners)))) if owners else None

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
        self.written |= dict.fromkeys(pages)  # whoever takes a page writes into it

    @rule(data=st.data())
    def share(self, data):
        page = self.draw_owned(data)
        if page is not None:
            self.pool.share(page)
            self.owners.append([page])

    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def keep(self, data, key):
        page = self.draw_owned(data)
        if page is not None and self.written[page] in (None, key):
            self.written[page] = key
            self.pool.keep(page, key)
            assert self.pool.find([key])

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def find(self, keys):
        free, pages = self.pool.free, self.pool.find(keys)
        assert [self.written[page] for page in pages] == keys[: len(pages)]
        idle = self.pool.count_idle(list(set(pages)))
        for page in pages:
            self.pool.share(page)
        self.owners.append(pages)
        assert self.pool.free == free - idle

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


def test_a_kept_page_is_found_after_its_owner_left():
    pool = PagePool(4)
    pages = pool.take(2)
    pool.keep(pages[0], b"a")
    pool.give_back(pages)
    assert pool.find([b"a", b"b"]) == pages[:1]
    assert pool.free == 4


def test_kept_pages_are_taken_last_and_the_end_of_a_sequence_first():
    pool = PagePool(5)
    old, young = pool.take(2), pool.take(2)
    for page, key in zip([*old, *young], KEYS, strict=True):
        pool.keep(page, key)
    pool.give_back(old)
    pool.give_back(young)
    assert pool.take(1) == [4]
    assert pool.take(3) == [old[1], old[0], young[1]]
    assert pool.find([b"c", b"d"]) == [young[0]]
    assert pool.find([b"a"]) == []


def test_the_first_page_of_a_key_stays():
    pool = PagePool(4)
    first, second = pool.take(2)
    pool.keep(first, b"a")
    pool.keep(second, b"a")
    pool.give_back([second])
    assert pool.find([b"a"]) == [first]
    assert pool.take(3) is not None


def test_a_partly_filled_page_is_adopted_by_who_begins_alike():
    pool = PagePool(4)
    for rows in ((1, 2, 3), (1, 2, 4, 5)):
        page = pool.take(1)
        pool.keep_tail(page[0], b"a", rows)
        pool.give_back(page)
        pool.check()
    assert pool.free == 4
    assert pool.find_tail(b"b", (1, 2)) == (-1, 0)
    assert pool.find_tail(b"a", (1, 2, 4, 6, 7)) == (1, 3)
    pool.adopt(1)
    pool.check()
    assert pool.free == 3
    assert pool.find_tail(b"a", (1, 2, 4, 6, 7)) == (0, 2)
    assert sorted(pool.take(3)) == [0, 2, 3]
    assert pool.find_tail(b"a", (1, 2)) == (-1, 0)
    pool.check()


def test_so_many_partly_filled_pages_are_kept_for_one_beginning():
    pool = PagePool(TAILS + 2)
    for i in range(TAILS + 1):
        page = pool.take(1)
        pool.keep_tail(page[0], b"", (i,))
        pool.give_back(page)
        pool.check()
    assert [pool.find_tail(b"", (i,))[1] for i in range(TAILS + 1)] == [0] + [1] * TAILS
    assert pool.free == TAILS + 2


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
