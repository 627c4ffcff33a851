"""Who is in memory: the queue, the least recently used, those with somebody inside, what does not fit, what fails."""

from __future__ import annotations

import asyncio

import pytest

from opsin.errors import FileError, OutOfMemoryError
from opsin.serve.places import Places


class Model:
    """Counts how often it is loaded; `gate` holds its loading."""

    def __init__(self, name: str, log: list[str], need: int = 1) -> None:
        self.name, self.log, self._need = name, log, need
        self.loaded, self.idle, self.error = False, True, None
        self.gate = asyncio.Event()
        self.gate.set()

    async def need(self) -> int:
        return self._need

    async def load(self) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.log.append(f"+{self.name}")
        self.loaded = True

    async def unload(self) -> None:
        self.loaded = False
        await asyncio.sleep(0)
        self.log.append(f"-{self.name}")


class Stage:
    """Some models and places for them."""

    def __init__(self, most: int, **how: object) -> None:
        self.log: list[str] = []
        self.a, self.b, self.c, self.d = (Model(name, self.log) for name in "abcd")
        self.places = Places(most, **how)

    async def visit(self, *models: Model) -> None:
        for model in models:
            assert await self.places.enter(model)
            self.places.leave(model)

    @property
    def story(self) -> str:
        return " ".join(self.log)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(play, *args: object, **how: object) -> None:
    async def whole() -> None:
        stage = Stage(*args, **how)
        await play(stage)
        await stage.places.close()

    asyncio.run(whole())


def test_the_least_recently_used_goes():
    async def play(s: Stage) -> None:
        await s.visit(s.a, s.b, s.a, s.c, s.a)
        assert s.story == "+a +b -b +c"

    run(play, 2)


def test_many_who_want_one_share_its_loading_and_one_place():
    async def play(s: Stage) -> None:
        await s.visit(s.a, s.b)
        s.c.gate.clear()
        waiting = [asyncio.ensure_future(s.places.enter(s.c)) for _ in range(5)]
        await turns()
        s.c.gate.set()
        assert await asyncio.gather(*waiting) == [True] * 5
        assert s.story == "+a +b -a +c"

    run(play, 2)


def test_a_model_with_somebody_inside_stays_and_the_next_one_waits():
    async def play(s: Stage) -> None:
        await s.places.enter(s.a)
        waiting = asyncio.ensure_future(s.places.enter(s.b))
        await turns()
        assert s.a.loaded and not waiting.done()
        s.places.leave(s.a)
        assert await waiting
        assert s.story == "+a -a +b"

    run(play, 1)


def test_work_that_nobody_waits_for_keeps_its_model_too():
    async def play(s: Stage) -> None:
        await s.visit(s.a)
        s.a.idle = False
        waiting = asyncio.ensure_future(s.places.enter(s.b))
        await turns()
        assert s.a.loaded
        s.a.idle = True
        s.places.notice(s.a)
        assert await waiting

    run(play, 1)


def test_while_somebody_waits_for_its_place_a_busy_model_takes_nobody_new():
    async def play(s: Stage) -> None:
        await s.places.enter(s.a)
        first = asyncio.ensure_future(s.places.enter(s.b))
        await turns()
        late = asyncio.ensure_future(s.places.enter(s.a))
        await turns()
        assert not late.done()
        s.places.leave(s.a)
        assert await first
        s.places.leave(s.b)
        assert await late
        assert s.story == "+a -a +b -b +a"

    run(play, 1)


def test_who_leaves_the_queue_costs_nobody_a_place():
    async def play(s: Stage) -> None:
        await s.places.enter(s.a)
        gone = asyncio.get_running_loop().create_future()
        leaving = asyncio.ensure_future(s.places.enter(s.b, gone))
        cancelled = asyncio.ensure_future(s.places.enter(s.b))
        await turns()
        gone.set_result(None)
        cancelled.cancel()
        assert await leaving is False
        await turns()
        assert await s.places.enter(s.a)  # it is open again
        assert s.story == "+a"

    run(play, 1)


def test_the_queue_is_served_in_the_order_of_arrival():
    async def play(s: Stage) -> None:
        await s.places.enter(s.a)
        order = []

        async def want(model: Model) -> None:
            await s.places.enter(model)
            order.append(model.name)
            s.places.leave(model)

        waiting = [asyncio.ensure_future(want(model)) for model in (s.c, s.b, s.d)]
        await turns()
        s.places.leave(s.a)
        await asyncio.gather(*waiting)
        assert order == ["c", "b", "d"]

    run(play, 1)


def test_whoever_leaves_while_it_is_loaded_does_not_keep_it_from_being_used():
    async def play(s: Stage) -> None:
        s.a.gate.clear()
        waiting = asyncio.ensure_future(s.places.enter(s.a))
        await turns()
        waiting.cancel()
        s.a.gate.set()
        await turns()
        await s.visit(s.a, s.b)
        assert s.story == "+a -a +b"

    run(play, 1)


def test_whoever_leaves_at_the_moment_in_which_it_comes_is_not_held_to_be_inside():
    async def play(s: Stage) -> None:
        waiting = asyncio.ensure_future(s.places.enter(s.a))
        while not s.a.loaded:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(s.visit(s.b), 30)

    run(play, 1)


@pytest.mark.parametrize("limit", [3, 4])
def test_memory_is_measured_before_it_is_taken(limit):
    async def play(s: Stage) -> None:
        s.c._need = 3
        await s.visit(s.a, s.b, s.c)
        assert s.story == ("+a +b -a -b +c" if limit == 3 else "+a +b -a +c")

    run(play, 9, free=lambda taken: limit - taken)


def test_what_fits_nowhere_is_an_error_and_takes_nobodys_place_for_long():
    async def play(s: Stage) -> None:
        s.b._need = 2_000_000
        await s.visit(s.a)
        with pytest.raises(OutOfMemoryError, match="b needs 2 MB, and there are 1 MB"):
            await s.places.enter(s.b)
        await s.visit(s.a)

    run(play, 2, free=lambda taken: 1_000_000 - taken)


def test_a_failure_is_told_to_all_who_wait_and_for_a_while_nobody_tries_again():
    now = [0.0]

    async def play(s: Stage) -> None:
        s.a.error = FileError("it is damaged")
        s.a.gate.clear()
        waiting = [asyncio.ensure_future(s.places.enter(s.a)) for _ in range(3)]
        await turns()
        s.a.gate.set()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [FileError] * 3 and len({id(error) for error in errors}) == 3
        s.a.error = None
        with pytest.raises(FileError):
            await s.places.enter(s.a)
        now[0] = 31.0
        await s.visit(s.a)
        assert s.story == "+a" and s.places.failure(s.a) is None

    run(play, 1, clock=lambda: now[0])


def test_one_that_is_dropped_goes_when_it_is_empty_and_comes_back_when_it_is_wanted():
    async def play(s: Stage) -> None:
        await s.places.enter(s.a)
        dropping = asyncio.ensure_future(s.places.drop(s.a))
        await turns()
        late = asyncio.ensure_future(s.places.enter(s.a))
        await turns()
        assert s.a.loaded and not late.done()
        s.places.leave(s.a)
        await dropping
        assert await late
        assert s.story == "+a -a +a"

    run(play, 1)


def test_one_that_is_dropped_while_it_is_loaded_goes_after_those_who_waited_for_it():
    async def play(s: Stage) -> None:
        s.a.gate.clear()
        waiting = asyncio.ensure_future(s.places.enter(s.a))
        await turns()
        dropping = asyncio.ensure_future(s.places.drop(s.a))
        await turns()
        s.a.gate.set()
        assert await waiting and not dropping.done()
        s.places.leave(s.a)
        await dropping
        assert s.story == "+a -a"

    run(play, 1)


def test_one_that_cannot_be_closed_leaves_its_place_all_the_same():
    async def play(s: Stage) -> None:
        await s.visit(s.a)

        async def unload() -> None:
            s.a.loaded = False
            raise ZeroDivisionError

        s.a.unload = unload
        with pytest.raises(ZeroDivisionError):
            await s.places.enter(s.b)
        await s.visit(s.c)

    run(play, 1)


def test_one_that_is_not_used_goes_after_a_while():
    async def play(s: Stage) -> None:
        await s.visit(s.a)
        await s.places.enter(s.b)
        while s.a.loaded:
            await asyncio.sleep(0.001)
        assert s.b.loaded

    run(play, 2, idle_seconds=0.01)
