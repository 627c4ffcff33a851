"""A row's logits are the same bits in any company, any chunks, any number of threads, on any pages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Shape

from opsin.config import from_environment
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Slice
from opsin.engine.sequence import Sequence
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.ops.cpu import Cpu
from opsin.spans import Prompt

KINDS = ["f32", "f16", "q8_0", "q4_0"]
ROWS = 600  # more than one run of keys (512) that is summed on its own
LIMITS = Limits(rows=640, outputs=640, sequences=16, context=1024, pages=120)


def sequence_of(ids, pages):
    made = Sequence(Prompt.of([ids]), Sampling(), frozenset())
    made.pages = pages
    return made


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, Shape().vocabulary, count).tolist()


@pytest.fixture(scope="module")
def runners(device, quantised_file):
    with File.open(quantised_file) as file:
        decoder = load_decoder(file, FileReader(file, device.eager()))
    return {kind: Runner(device, decoder, LIMITS, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def whole(runners):
    """Logits of every row, computed in one step on fresh pages."""
    return {kind: score(runner, range(10), [ROWS]) for kind, runner in runners.items()}


def score(runner, pages, sizes):
    """Logits of ROWS rows, in chunks of these sizes, all wanted."""
    return runner.score(ids_of(ROWS), list(pages), sizes)


def test_rows_differ_from_one_another(whole):
    assert all(len(np.unique(logits, axis=0)) > 0.9 * ROWS and np.isfinite(logits).all() for logits in whole.values())


@pytest.mark.parametrize("kind", KINDS)
def test_scattered_pages_change_nothing(runners, whole, kind):
    pages = np.random.default_rng(1).permutation(LIMITS.pages)[:10]
    assert np.array_equal(score(runners[kind], pages, [ROWS]), whole[kind])


@settings(max_examples=8, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_any_size_change_nothing(runners, whole, kind, data):
    sizes, left = [], ROWS
    while left:
        sizes.append(min(left, data.draw(st.sampled_from([1, 2, 3, 7, 31, 64, 65, 100, 191, 300, 512, 599]))))
        left -= sizes[-1]
    assert np.array_equal(score(runners[kind], range(20, 30), sizes), whole[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_equals_prefill(runners, whole, kind):
    sizes = [500] + [1] * (ROWS - 500)
    assert np.array_equal(score(runners[kind], range(40, 50), sizes), whole[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 9, 15])
def test_fifteen_others_in_the_step_change_nothing(runners, whole, kind, place):
    """Ours is at `place`, between sequences of which some decode and some are prompts."""
    runner, free = runners[kind], iter(np.random.default_rng(2).permutation(LIMITS.pages).tolist())
    sequences = [sequence_of(ids_of(60 if i % 3 else 2, seed=10 + i), [next(free)]) for i in range(16)]
    sequences[place] = sequence_of(ids_of(ROWS), [next(free) for _ in range(10)])
    done = [0] * 16
    for ours in (500, 37, 1, 1, 13, 48):  # rows of ours in each step
        plan = []
        for i, sequence in enumerate(sequences):
            rows = ours if i == place else 1 if i % 2 else 6
            rows = min(rows, len(sequence.ids) - done[i])
            if rows:
                plan.append(Slice(sequence, done[i], rows, True))
                done[i] += rows
        told = runner.step(plan)
        mine = next(i for i, part in enumerate(plan) if part.sequence is sequences[place])
        wanted = whole[kind][done[place] - 1]
        assert np.array_equal(told.whole()[mine], wanted)
        assert told.ids[mine, 0] == wanted.argmax()
        assert np.array_equal(told.logits[mine], np.sort(wanted)[::-1][: told.logits.shape[1]])
    assert done[place] == ROWS


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(quantised_file, whole, threads):
    other = Cpu(from_environment(), threads=threads)
    try:
        with File.open(quantised_file) as file:
            decoder = load_decoder(file, FileReader(file, other.eager()))
        for kind in KINDS:
            runner = Runner(other, decoder, LIMITS, kind)
            assert np.array_equal(score(runner, range(10), [ROWS]), whole[kind])
            assert np.array_equal(score(runner, range(10), [599, 1]), whole[kind])
    finally:
        other.close()
