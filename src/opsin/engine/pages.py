"""Which pages of a KV group are taken, and by how many. Numbers only: the memory is the device's."""

from __future__ import annotations

from opsin.ops import PAGE


class PagePool:
    """`count` pages with reference counts. Lowest free page first, so that a fresh pool is compact."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, number: int) -> list[int] | None:
        """`number` pages, or None where there are not so many."""
        if number > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(number)]
        for page in pages:
            self._users[page] = 1
        return pages

    def share(self, page: int) -> None:
        assert self._users[page] > 0, "a free page cannot be shared"
        self._users[page] += 1

    def give_back(self, pages: list[int]) -> None:
        for page in reversed(pages):
            assert self._users[page] > 0, f"page {page} was given back twice"
            self._users[page] -= 1
            if self._users[page] == 0:
                self._free.append(page)

    def check(self) -> None:
        """All pages are free or used, none both."""
        free = set(self._free)
        assert len(free) == len(self._free)
        assert all((self._users[p] == 0) == (p in free) for p in range(self.count))


def pages_for(rows: int) -> int:
    return -(-rows // PAGE)
