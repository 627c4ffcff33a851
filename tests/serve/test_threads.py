"""Threads come with work and go when there is none."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import CancelledError, wait

import pytest
from running_server import running
from test_chat import MESSAGES
from waiting import wait_for

from opsin.serve.threads import Threads


def test_work_is_done_and_errors_are_told():
    pool = Threads(4, "t")
    done = [pool.submit(pow, number, 2) for number in range(500)]
    assert [future.result() for future in done] == [number**2 for number in range(500)]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result()
    assert pool.count <= 4
    pool.shutdown()


def test_there_are_as_many_as_work_waits_and_no_more_than_allowed():
    pool, free = Threads(3, "many"), threading.Event()
    started = threading.Semaphore(0)

    def work() -> str:
        started.release()
        free.wait()
        return threading.current_thread().name

    done = [pool.submit(work) for _ in range(5)]
    for _ in range(3):
        started.acquire()
    assert pool.count == 3 and not started.acquire(blocking=False)
    free.set()
    assert {future.result() for future in done} <= {"many-1", "many-2", "many-3"}
    pool.shutdown()


def test_one_that_is_idle_takes_the_next():
    pool = Threads(8, "one")
    for _ in range(20):
        pool.submit(int).result()
        wait_for(lambda: pool._waiting == 1)
    assert pool._made == 1
    pool.shutdown()


def test_idle_ones_end_and_others_come_again():
    pool = Threads(4, "idle", idle_seconds=0.01)
    wait([pool.submit(threading.Event().wait, 0.01) for _ in range(8)])
    wait_for(lambda: pool.count == 0)
    assert pool.submit(int).result() == 0
    pool.shutdown()


def test_nothing_is_lost_while_threads_come_and_go():
    pool = Threads(4, "race", idle_seconds=0.0)
    assert sum(future.result() for future in [pool.submit(lambda: 1) for _ in range(3000)]) == 3000
    pool.shutdown()


def test_what_waits_is_cancelled_at_the_end_and_nothing_more_is_taken():
    pool, free = Threads(1, "end"), threading.Event()
    running_now, waiting = pool.submit(free.wait), pool.submit(int)
    wait_for(running_now.running)
    pool.shutdown(cancel_futures=True)
    free.set()
    assert running_now.result() is True
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(RuntimeError):
        pool.submit(int)
    wait_for(lambda: pool.count == 0)


def test_a_server_that_is_idle_has_no_threads_for_requests(text_model):
    with running(lambda: text_model) as made:
        for pool in (made.service._parsers, made.service.makers):
            pool._idle_seconds = 0.05
        made.chat(messages=MESSAGES, max_tokens=2)
        wait_for(lambda: made.service.makers.count == made.service._parsers.count == 0)
        assert made.chat(messages=MESSAGES, max_tokens=2).status == 200


def test_an_error_that_was_heard_leaves_nothing_of_the_work():
    class Large:
        pass

    def fail(given):
        raise ValueError("too large")

    pool, large = Threads(1, "test"), Large()
    left = weakref.ref(large)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="too large"):
            pool.submit(fail, large).result()
        del large
        wait_for(lambda: left() is None)
    finally:
        gc.enable()
        pool.shutdown()
