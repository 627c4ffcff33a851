"""Blocks given back at any moment, in any thread: nobody gets one that somebody has, or that is too small."""

from __future__ import annotations

import gc
import random
import sys
import threading

from opsin.ops.cpu.arena import Arena


def test_blocks_are_given_back_while_others_are_taken():
    arena, wrong = Arena(), []
    taken: set[int] = set()
    guard = threading.Lock()

    def work(seed: int) -> None:
        chance, mine = random.Random(seed), []
        for _ in range(4000):
            if mine and chance.random() < 0.5:
                block = mine.pop(chance.randrange(len(mine)))
                with guard:
                    taken.discard(block.address)
                arena.give_back(block)
                continue
            size = chance.choice((64, 100, 1000, 5000))
            block = arena.take(size)
            with guard:
                if block.bytes < size or block.address in taken:
                    wrong.append((size, block.bytes))
                taken.add(block.address)
            mine.append(block)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    often, usual = 1e-6, sys.getswitchinterval()
    sys.setswitchinterval(often)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert wrong == []


def test_the_garbage_collector_may_give_back_in_the_middle_of_a_take():
    arena = Arena()

    class Ring:
        """Holds a block and itself: only the collector ends it."""

        def __init__(self) -> None:
            self.block, self.ring = arena.take(64), self

        def __del__(self) -> None:
            arena.give_back(self.block)

    old = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            Ring()
            assert arena.take(500).bytes >= 500
    finally:
        gc.set_threshold(*old)
    gc.collect()
    assert len({block.address for block in arena.blocks}) == len(arena.blocks)
