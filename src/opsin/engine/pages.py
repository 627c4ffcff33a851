"""Which pages of the KV cache are taken, and by how many. Numbers only: the memory is the device's.

A full page may be kept under the key of its rows: when its last user is gone, it waits for somebody with the same
rows, until the page is needed otherwise. So may the last page of a sequence that ended, with the rows that it has:
whoever begins with some of them takes it over and goes on writing behind these.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from opsin.ops import PAGE

TAILS = 16  # partly filled pages that are kept for one beginning


class PagePool:
    """`count` pages with reference counts. Lowest unused page first, so that a fresh pool is compact.

    It lives on the engine's thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._unused = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._tails: dict[bytes, dict[int, tuple[Hashable, ...]]] = {}  # rows of pages, by the key of the page before
        self._before: dict[int, bytes] = {}
        self._idle: dict[int, None] = {}  # kept pages without users, those that go first in front

    @property
    def free(self) -> int:
        """Pages that can be taken: unused ones, and kept ones that nobody uses."""
        return len(self._unused) + len(self._idle)

    @property
    def unused(self) -> int:
        """Pages in which nothing is kept."""
        return len(self._unused)

    @property
    def kept(self) -> int:
        """Full pages that can be found by a key."""
        return len(self._key_of)

    def take(self, number: int) -> list[int] | None:
        """`number` pages, or None where there are not so many. Kept pages go last, the longest idle first."""
        if number > self.free:
            return None
        pages = [self._unused.pop() if self._unused else self._evict() for _ in range(number)]
        for page in pages:
            self._users[page] = 1
        return pages

    def share(self, page: int) -> None:
        """One user more."""
        assert self._users[page] > 0 or page in self._idle, "a free page cannot be shared"
        self._idle.pop(page, None)
        self._users[page] += 1

    def give_back(self, pages: list[int]) -> None:
        """One user less each. Of a sequence's kept pages the last goes first: it is of no use without those before."""
        for page in reversed(pages):
            assert self._users[page] > 0, f"page {page} was given back twice"
            self._users[page] -= 1
            if self._users[page] == 0:
                if page in self._key_of or page in self._before:
                    self._idle[page] = None
                else:
                    self._unused.append(page)

    def keep(self, page: int, key: bytes) -> None:
        """The page is full, and can be found by `key` from now on. The first page of a key stays."""
        assert self._users[page] > 0, "a free page cannot be kept"
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def keep_tail(self, page: int, before: bytes, rows: tuple[Hashable, ...]) -> None:
        """The page begins with these rows, after a page with the key `before`; its one user is about to leave."""
        assert self._users[page] == 1 and page not in self._key_of, "only the last page of one sequence is a tail"
        tails = self._tails.setdefault(before, {})
        if len(tails) == TAILS:
            oldest = next(iter(tails))
            self._forget(oldest)
            del self._idle[oldest]
            self._unused.append(oldest)
        tails[page] = rows
        self._before[page] = before

    def find_tail(
        self, before: bytes, rows: tuple[Hashable, ...], fits: Callable[[int, int], bool] = lambda page, count: True
    ) -> tuple[int, int]:
        """The page that begins with the most of these rows, and how many; 0 rows where there is none.

        `fits` says of a page, and how many of its rows, whether somebody could go on after these.
        """
        best = (-1, 0)
        for page, there in self._tails.get(before, {}).items():
            same = next((i for i, (a, b) in enumerate(zip(there, rows, strict=False)) if a != b), None)
            count = min(len(there), len(rows)) if same is None else same
            if count > best[1] and fits(page, count):
                best = (page, count)
        return best

    def adopt(self, page: int) -> None:
        """Take over a kept page, which nobody else finds any more."""
        assert page in self._idle, "only a kept page without users is adopted"
        self._forget(page)
        del self._idle[page]
        self._users[page] = 1

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of these keys, up to the first that is not there. They are not taken yet: `share` does."""
        pages: list[int] = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            pages.append(page)
        return pages

    def count_idle(self, pages: list[int]) -> int:
        """How many of these pages count as free."""
        return sum(page in self._idle for page in pages)

    def forget(self, pages: Iterable[int]) -> None:
        """Nobody finds these pages any more; those without users are unused."""
        for page in pages:
            if page in self._key_of or page in self._before:
                self._forget(page)
            if page in self._idle:
                del self._idle[page]
                self._unused.append(page)

    def _evict(self) -> int:
        page = next(iter(self._idle))
        del self._idle[page]
        self._forget(page)
        return page

    def _forget(self, page: int) -> None:
        """Nobody finds the page any more."""
        if page in self._key_of:
            del self._page_of[self._key_of.pop(page)]
            return
        before = self._before.pop(page)
        del self._tails[before][page]
        if not self._tails[before]:
            del self._tails[before]

    def check(self) -> None:
        """All pages are unused, idle or used, none two of these, and keys and pages belong together."""
        unused = set(self._unused)
        assert len(unused) == len(self._unused)
        assert not unused & set(self._idle)
        assert all((self._users[p] == 0) == (p in unused or p in self._idle) for p in range(self.count))
        assert not unused & {*self._key_of, *self._before}
        assert not set(self._key_of) & set(self._before)
        assert set(self._before) <= set(self._idle) <= {*self._key_of, *self._before}
        assert {page: key for key, tails in self._tails.items() for page in tails} == self._before
        assert {page: key for key, page in self._page_of.items()} == self._key_of


def pages_for(rows: int) -> int:
    return -(-rows // PAGE)
