"""What is ready: done at once where its task waits, else the task's, in the order in which it came."""

from __future__ import annotations

import asyncio

import pytest

from opsin.serve.ready import Ready


async def turns():
    """Everybody who can go on has gone on."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_can_be_done_at_once_wakes_nobody():
    async def work():
        done, left = [], []
        ready = Ready()
        ready.put(0)  # nobody waits yet
        first = await ready.get(done.append)
        waiting = asyncio.ensure_future(ready.get(lambda thing: done.append(thing) or thing < 3))
        await turns()
        for thing in (1, 2, 3):
            left.append(waiting.done())
            ready.put(thing)
        for thing in (4, 3, 4):  # the task has been woken, and has yet to look
            ready.put(thing)
        return first, left, done, await waiting

    assert asyncio.run(work()) == ([0], [False] * 3, [1, 2, 3], [3, 4])


def test_what_is_put_meanwhile_is_the_tasks():
    async def work():
        def begin(thing):
            ready.put(thing + 1)
            return True

        ready = Ready()
        waiting = asyncio.ensure_future(ready.get(begin))
        await turns()
        ready.put(5)
        return await waiting

    assert asyncio.run(work()) == [6]


def test_an_error_is_the_tasks_and_not_that_of_who_puts():
    async def work():
        def fail(thing):
            raise KeyError(thing)

        ready = Ready()
        waiting = asyncio.ensure_future(ready.get(fail))
        await turns()
        ready.put(5)
        with pytest.raises(KeyError):
            await waiting

    asyncio.run(work())


def test_a_task_that_is_cancelled_does_nothing_more():
    async def work():
        done = []
        ready = Ready()
        waiting = asyncio.ensure_future(ready.get(done.append))
        await turns()
        waiting.cancel()
        ready.put(1)
        await turns()
        ready.put(2)
        return done, await ready.get(done.append)

    assert asyncio.run(work()) == ([], [1, 2])
