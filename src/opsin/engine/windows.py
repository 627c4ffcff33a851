"""Where layers with a window keep their rows: places of their own, fewer than there are pages.

Such a layer reads the last rows of a sequence and none before. So a page has a place in it only while somebody's
window needs the page, and afterwards for as long as nobody else wants the place: who begins with rows that the cache
holds goes on where the window before them is still there. All windows of a decoder share one table, for the widest.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from opsin.engine.pages import pages_for
from opsin.engine.states import StateSlots
from opsin.errors import RequestError
from opsin.nn.batch import GroupShape
from opsin.ops import PAGE


@dataclass
class Held:
    """What one sequence holds: the pages from its block `first` on, and the place of each."""

    first: int = 0
    pages: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class WindowPlaces:
    """`count` places for the pages that some rows see through a window of `window` rows; 0 where nothing has one.

    It lives on the engine's thread.
    """

    def __init__(self, window: int, count: int) -> None:
        self.window, self.count = window, count
        self._unused = list(range(count - 1, -1, -1))
        self._place_of: dict[int, int] = {}
        self._users: dict[int, int] = {}  # of pages
        self._idle: dict[int, None] = {}  # pages that have a place and no users, those that lose it first in front

    @property
    def used(self) -> int:
        """Places that somebody holds."""
        return len(self._users)

    def hold(self, held: Held, pages: Sequence[int], start: int, end: int) -> bool:
        """Let `held` have what rows from `start` to before `end` of a sequence see and write, and nothing before.

        `pages` are all of the sequence's. False where no place is free: then it has a part.
        """
        if not self.window:
            return True
        first = self.first(start)
        self._let_go(held, first - held.first)
        if not held.places:
            held.first = first
        for page in pages[held.first + len(held.places) : pages_for(end)]:
            place = self._take(page)
            if place is None:
                return False
            held.pages.append(page)
            held.places.append(place)
        return True

    def release(self, held: Held) -> None:
        """It holds nothing any more. What it had stays where nobody else needs the place."""
        self._let_go(held, len(held.pages))
        held.first = 0

    def has(self, pages: Sequence[int], rows: int) -> bool:
        """Whether somebody can go on after the first `rows` rows of these pages."""
        needed = pages[self.first(rows) : pages_for(rows)] if self.window else ()
        return all(page in self._place_of for page in needed)

    def find(self, pages: Sequence[int], rows: int) -> list[int]:
        """The places of what row `rows` sees of these pages, all of which must have one."""
        return [self._place_of[page] for page in pages[self.first(rows) : pages_for(rows)]] if self.window else []

    def forget(self, pages: Iterable[int]) -> None:
        """What these pages' places hold is no longer theirs. Nobody may hold them."""
        for page in pages:
            if page in self._idle:
                del self._idle[page]
                self._unused.append(self._place_of.pop(page))

    def check(self) -> None:
        """Every place is unused, idle or held, and none two of these."""
        assert sorted([*self._unused, *self._place_of.values()]) == list(range(self.count))
        assert self._place_of.keys() == self._users.keys() | self._idle.keys()
        assert not self._users.keys() & self._idle.keys()

    def first(self, row: int) -> int:
        """The block of the first row that a row sees."""
        return max(0, row - self.window + 1) // PAGE

    def _take(self, page: int) -> int | None:
        if page not in self._place_of:
            if self._unused:
                self._place_of[page] = self._unused.pop()
            elif self._idle:
                oldest = next(iter(self._idle))
                del self._idle[oldest]
                self._place_of[page] = self._place_of.pop(oldest)
            else:
                return None
        self._idle.pop(page, None)
        self._users[page] = self._users.get(page, 0) + 1
        return self._place_of[page]

    def _let_go(self, held: Held, number: int) -> None:
        """The first `number` of what it holds."""
        if number <= 0:
            return
        for page in held.pages[:number]:
            self._users[page] -= 1
            if not self._users[page]:
                del self._users[page]
                self._idle[page] = None
        del held.pages[:number], held.places[:number]
        held.first += number


def deepest(windows: WindowPlaces, states: StateSlots | None, pages: Sequence[int], keys: Sequence[bytes]) -> int:
    """The number of these pages, which have these keys, after which a sequence may begin."""
    number = len(pages)
    while number and not windows.has(pages, number * PAGE):
        number -= 1
    if states is None or not number:
        return number
    kept = states.deepest(keys[:number])
    return kept if windows.has(pages, kept * PAGE) else deepest(windows, states, pages[:kept], keys)


Reach = Callable[[int, int], Held]  # what is held of rows from start to before end of a sequence


def reaching(windows: WindowPlaces, held: Held, pages: Sequence[int]) -> Reach:
    """For a job that is no scheduler's. The function raises RequestError where no place is free now."""

    def reach(start: int, end: int) -> Held:
        if not windows.hold(held, pages, start, end):
            raise RequestError(f"{end} tokens do not fit in the cache now", hint="load with a larger context")
        return held

    return reach


def is_near(shape: GroupShape) -> bool:
    """Whether layers of this group see the last rows alone, and so need not keep the others."""
    return shape.window > 0 and not shape.bidirectional


def widest(shapes: Iterable[GroupShape]) -> int:
    """The widest window of a decoder's groups; 0 where none is near."""
    return max((shape.window for shape in shapes if is_near(shape)), default=0)


def count_places(window: int, *, sequences: int, rows: int, pages: int) -> int:
    """Places for windows of so many sequences at once, and of half as many that ended or begin alike, at least one.

    `rows`: of a step. There are never more than `pages`.
    """
    each = pages_for(window - 1) + 1  # a window may begin within a page
    return min(pages, (sequences + max(1, sequences // 2)) * each + pages_for(rows)) if window else 0
