"""Calls from other threads: all of them, in order, for few wake-ups of the loop."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

from opsin.serve.loop_calls import LoopCalls


def test_all_calls_of_a_thread_are_made_in_order():
    made = []

    async def wait():
        calls, over = LoopCalls(asyncio.get_running_loop()), asyncio.Event()

        def send():
            for number in range(20_000):
                calls.soon(lambda number=number: made.append(number))
            calls.soon(lambda: calls.soon(over.set))  # one that comes while others are made

        thread = threading.Thread(target=send)
        thread.start()
        await asyncio.wait_for(over.wait(), 60)
        thread.join()

    asyncio.run(wait())
    assert made == list(range(20_000))


def test_calls_of_one_moment_wake_the_loop_once():
    woken = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args, **kwargs):
            woken.append(args)
            return super().call_soon_threadsafe(*args, **kwargs)

    async def wait():
        calls, left = LoopCalls(asyncio.get_running_loop()), []
        for number in range(16):
            calls.soon(lambda number=number: left.append(number))
        await asyncio.sleep(0)
        calls.soon(lambda: left.append(16))
        await asyncio.sleep(0)
        return left

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(wait()) == list(range(17))
    assert len(woken) == 2


def test_a_call_that_raises_leaves_the_others_and_the_loop_hears_of_it():
    async def wait():
        heard, made = [], []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: heard.append(type(context["exception"])))
        calls = LoopCalls(loop)
        for call in (partial(made.append, 1), {}.__getitem__, partial(made.append, 2)):
            calls.soon(call)
        for _ in range(3):
            await asyncio.sleep(0)
        return made, heard

    assert asyncio.run(wait()) == ([1, 2], [TypeError])


def test_a_loop_that_has_ended_is_left_alone():
    async def make():
        return LoopCalls(asyncio.get_running_loop())

    calls = asyncio.run(make())
    calls.soon(lambda: None)
