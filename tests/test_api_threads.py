"""One model asked through all its doors by many threads: everybody gets what they get alone, also while it closes."""

from __future__ import annotations

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_sight import tiny_pair, tiny_tower
from waiting import PATIENCE

import opsin
from opsin.errors import DeviceError, OpsinError

THREADS, ROUNDS = 8, 25
GREEDY = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}
PICTURES = [np.random.default_rng(i).integers(0, 256, (32 + i, 40, 3), np.uint8) for i in range(3)]
TEXTS = ["Hi", "a the in er", "zebra ✓ " * 9]


def ask(*parts):
    return [{"role": "user", "content": list(parts)}]


def listed(answer):
    return answer.text, answer.ids, answer.reason


# What each door gives, in a form that can be compared; each takes a number.
DOORS = {
    "chat": lambda m, i: listed(m.chat(ask(TEXTS[i]), **GREEDY)),
    "drawn": lambda m, i: listed(m.chat(ask(TEXTS[i]), seed=i, max_tokens=6, temperature=5.0, ignore_eos=True)),
    "picture": lambda m, i: listed(m.chat(ask(PICTURES[i], TEXTS[i]), **GREEDY)),
    "complete": lambda m, i: listed(m.complete(TEXTS[i], **GREEDY)),
    "logits": lambda m, i: m.logits([i + 1] * (20 + 50 * i)).tobytes(),
    "logits of a picture": lambda m, i: m.logits(m.question(ask(PICTURES[i])).prompt).tobytes(),
    "trace": lambda m, i: m.trace([i + 1, 2, 3], ["logits"])["logits"].tobytes(),
    "encode": lambda m, i: m.encode(PICTURES[i]).values.tobytes(),
    "embeddings": lambda m, i: listed(m.chat(ask(m.encode(PICTURES[i]), "?"), **GREEDY)),
    "prepare": lambda m, i: (m.prepare(PICTURES[i]).parts, m.prepare(PICTURES[i]).rows),
    "count": lambda m, i: m.count(ask(TEXTS[i], PICTURES[i])),
    "tokenize": lambda m, i: m.tokenize(TEXTS[i] * (i + 1)),
    "detokenize": lambda m, i: m.detokenize(m.tokenize(TEXTS[i])),
    "write": lambda m, i: m.write(ask(TEXTS[i])),
    "stopped": lambda m, i: next(iter(m.chat(ask(TEXTS[i]), **GREEDY)), ""),  # and forgotten
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))[0]


@pytest.mark.parametrize("begin", ["fresh", "used"])
def test_everybody_gets_what_they_get_alone(pair, begin):
    """Also on a model that nobody used before: what is made when it is first needed is made once."""
    with opsin.load(pair, threads=2, context=512, sequences=8) as alone:
        expected = {(name, i): door(alone, i) for name, door in DOORS.items() for i in range(3)}
    with opsin.load(pair, threads=2, context=512, sequences=8) as model:
        if begin == "used":
            assert {(name, i): door(model, i) for name, door in DOORS.items() for i in range(3)} == expected
        gate = threading.Barrier(THREADS)

        def work(thread):
            order, wrong = random.Random(thread), []
            gate.wait(PATIENCE)
            for _ in range(ROUNDS):
                name, i = order.choice(list(expected))
                if DOORS[name](model, i) != expected[name, i]:
                    wrong.append((name, i))
            return wrong

        with ThreadPoolExecutor(THREADS) as pool:
            assert [wrong for found in pool.map(work, range(THREADS)) for wrong in found] == []
        gc.collect()
        assert model.logits([1] * 511).shape[0] == 511  # all pages came back


def test_everybody_encodes_on_one_tower(tmp_path):
    with opsin.load(tiny_tower(tmp_path / "mmproj.gguf"), threads=2) as model, ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda i: model.encode(PICTURES[i % 3]).values, range(24)))
        for i, values in enumerate(together):
            assert np.array_equal(values, model.encode(PICTURES[i % 3]).values)


def test_models_are_loaded_by_many_threads_at_once(pair):
    def load(_):
        with opsin.load(pair, threads=1, context=256) as model:
            return listed(model.chat(ask(TEXTS[0], PICTURES[0]), **GREEDY))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(load, range(8)))
    assert answers == answers[:1] * 8


@pytest.mark.parametrize("moment", range(4))
def test_while_it_closes_everybody_is_answered_or_told(pair, moment):
    model = opsin.load(pair, threads=2, context=512, sequences=8)
    done, told = threading.Semaphore(0), []

    def work(thread):
        order = random.Random(thread + 100 * moment)
        while True:
            name = order.choice(list(DOORS))
            try:
                DOORS[name](model, order.randrange(3))
            except OpsinError as error:
                told.append((name, error))
                return
            finally:
                done.release()

    with ThreadPoolExecutor(THREADS + 2) as pool:
        works = [pool.submit(work, thread) for thread in range(THREADS)]
        for _ in range(5 * moment):
            assert done.acquire(timeout=PATIENCE)
        for closing in [pool.submit(model.close) for _ in range(2)]:
            closing.result(PATIENCE)
        for running in works:
            running.result(PATIENCE)
    assert len(told) == THREADS
    assert {type(error) for _, error in told} == {DeviceError}
    assert {error.message for _, error in told} == {"the model was closed"}
