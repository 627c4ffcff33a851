"""Attention to a memory is a second page list in the same batch: any length, also none, filled once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import memory_decoder as toy
import numpy as np
import pytest

from opsin.nn.batch import Batch, Group, Memory
from opsin.ops import PAGE, Reads
from opsin.ops.reference import Reference

MEMORIES = [0, 1, 70, 600]  # rows of memory of each sequence: none, one, more than a page, more than a run of keys
ROWS = [5, 9, 66, 3]
PAGES = 20


@dataclass(frozen=True)
class Case:
    """Sequences with their memories, and where the pages of both lie."""

    ids: list[list[int]]
    memories: list[np.ndarray]
    own: list[list[int]]
    kept: list[list[int]]


def case(seed=0):
    random = np.random.default_rng(seed)
    free, kept = random.permutation(PAGES).tolist(), random.permutation(PAGES).tolist()
    take = lambda pool, rows: [pool.pop() for _ in range(-(-rows // PAGE))]  # noqa: E731
    return Case(
        ids=[random.integers(0, toy.VOCABULARY, rows).tolist() for rows in ROWS],
        memories=[random.standard_normal((rows, toy.WIDTH)).astype(np.float32) for rows in MEMORIES],
        own=[take(free, rows) for rows in ROWS],
        kept=[take(kept, rows) for rows in MEMORIES],
    )


@pytest.fixture(scope="module")
def expected():
    sequences, tensors = case(), toy.tensors()
    pairs = zip(sequences.ids, sequences.memories, strict=True)
    return [toy.formula(tensors, ids, memory) for ids, memory in pairs]


def slots_of(pages, first, last):
    places = np.arange(first, last)
    return (np.array(pages, int)[places // PAGE] * PAGE + places % PAGE).astype(np.int32)


def table_of(lists):
    table = np.full((len(lists), 10), 19, np.int32)  # what is not a sequence's own must not matter
    for row, pages in zip(table, lists, strict=True):
        row[: len(pages)] = pages
    return table


def step(sequences, parts, memories=MEMORIES):
    """The arrays of one step: parts are (sequence, first row, last row). Those of the memory are of rows with one."""
    ids, positions, sequence, slots, memory_last = [], [], [], [], []
    for number, first, last in parts:
        ids += sequences.ids[number][first:last]
        positions += range(first, last)
        sequence += [number] * (last - first)
        slots += slots_of(sequences.own[number], first, last).tolist()
        memory_last += [memories[number]] * (last - first)
    rows = np.flatnonzero(memory_last)
    places = np.full(len(ids), -1)
    places[rows] = np.arange(len(rows))
    return {
        "ids": ids, "positions": positions, "sequence": sequence, "slots": slots, "last": np.array(positions) + 1,
        "first": [0] * len(ids), "outputs": range(len(ids)), "tables": table_of(sequences.own), "places": places,
        "memory_last": np.array(memory_last)[rows], "memory_first": [0] * len(rows), "rows": rows,
        "memory_sequence": np.array(sequence)[rows], "memory_tables": table_of(sequences.kept),
    }  # fmt: skip


def batch_of(inputs, own, kept):
    """A batch over Arrays of these names. The memory has no slots: it is only read."""
    reads = Reads(inputs["tables"], inputs["sequence"], inputs["first"], inputs["last"])
    memory = Memory(
        pages=kept, reads=Reads(*(inputs[f"memory_{name}"] for name in ("tables", "sequence", "first", "last"))),
        rows=inputs["rows"], places=inputs["places"],
    )  # fmt: skip
    groups = {"self": Group(own, reads, inputs["slots"])}
    return Batch(inputs["ids"], inputs["positions"], groups, inputs["outputs"], memory=memory)


def constants(ops, arrays):
    return {name: ops.constant(np.asarray(values, np.int32)) for name, values in arrays.items()}


def pages_of(ops, kind="f32"):
    return [ops.pages(layers=toy.LAYERS, heads=toy.KV, width=toy.HEAD, count=PAGES, kind=kind) for _ in range(2)]


def fill(ops, decoder, sequences, kept):
    """Every memory once, eagerly."""
    for memory, pages in zip(sequences.memories, sequences.kept, strict=True):
        if len(memory):
            slots = ops.constant(slots_of(pages, 0, len(memory)))
            decoder.fill(ops.constant(memory), Group(kept, None, slots))


def check(logits, parts, expected, tolerance):
    start = 0
    for number, first, last in parts:
        want = expected[number][first:last]
        got = logits[start : start + last - first]
        assert np.abs(got - want).max() <= tolerance * np.abs(expected[number]).max(), (number, first)
        start += last - first
    assert start == len(logits)


WHOLE = [(0, 0, 5), (1, 0, 9), (2, 0, 66), (3, 0, 3)]
STEPS = [
    [(2, 0, 30), (0, 0, 5)],
    [(3, 0, 1), (2, 30, 64), (1, 0, 4)],
    [(1, 4, 5), (2, 64, 65), (3, 1, 2)],
    [(1, 5, 9), (3, 2, 3), (2, 65, 66)],
]


@pytest.mark.parametrize("steps", [[WHOLE], STEPS], ids=["whole", "in chunks"])
@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-9), (False, 1e-4)])
def test_the_definition_equals_the_formula(expected, steps, wide, tolerance):
    ops, sequences = Reference(wide=wide), case()
    decoder = toy.MemoryDecoder.load(toy.Made(ops, toy.tensors()))
    own, kept = pages_of(ops)
    fill(ops, decoder, sequences, kept)
    for parts in steps:
        logits = decoder.forward(batch_of(constants(ops, step(sequences, parts)), own, kept))
        check(logits.numpy(), parts, expected, tolerance)


@pytest.mark.parametrize("steps", [[WHOLE], STEPS], ids=["whole", "in chunks"])
def test_eager_equals_the_formula(device, expected, steps):
    ops, sequences = device.eager(), case()
    decoder = toy.MemoryDecoder.load(toy.Made(ops, toy.tensors()))
    own, kept = pages_of(ops)
    fill(ops, decoder, sequences, kept)
    for parts in steps:
        logits = decoder.forward(batch_of(constants(ops, step(sequences, parts)), own, kept))
        check(logits.numpy(), parts, expected, 1e-4)


class Recorded:
    """One program for all steps; memories are filled eagerly, beside it."""

    def __init__(self, device, kind="f32"):
        self.eager = device.eager()
        ops, tape = device.record()
        self.decoder = toy.MemoryDecoder.load(toy.Made(self.eager, toy.tensors()))
        self.own, self.kept = pages_of(ops, kind)
        rows, outputs, remembering = (tape.count(name, 100) for name in ("rows", "outputs", "remembering"))
        shapes = {"tables": (4, 10), "memory_tables": (4, 10), "outputs": (outputs,)}
        shapes |= dict.fromkeys(("rows", "memory_sequence", "memory_first", "memory_last"), (remembering,))
        names = step(case(), WHOLE)
        inputs = {name: tape.input(ops, name, shapes.get(name, (rows,)), "i32") for name in names}
        self.program = tape.finish({"logits": self.decoder.forward(batch_of(inputs, self.own, self.kept))})

    def run(self, arrays):
        for name, values in arrays.items():
            self.program.inputs[name][: len(values)] = values
        rows = len(arrays["ids"])
        self.program.run(rows=rows, outputs=rows, remembering=len(arrays["rows"]))
        return self.program.output("logits")[:rows].copy()


@pytest.fixture(scope="module")
def recorded(device):
    made = Recorded(device)
    fill(made.eager, made.decoder, case(), made.kept)
    return made


@pytest.mark.parametrize("steps", [[WHOLE], STEPS], ids=["whole", "in chunks"])
def test_the_recorded_program_equals_the_formula(recorded, expected, steps):
    for parts in steps:
        check(recorded.run(step(case(), parts)), parts, expected, 1e-4)


def test_company_and_chunks_change_no_bit(recorded):
    whole = recorded.run(step(case(), WHOLE))
    alone = np.concatenate([recorded.run(step(case(), [part])) for part in WHOLE])
    assert np.array_equal(alone, whole)
    chunks, found = {}, []
    for parts in STEPS:
        logits, start = recorded.run(step(case(), parts)), 0
        for number, first, last in parts:
            chunks[number, first] = logits[start : start + last - first]
            start += last - first
    found = np.concatenate([chunks[key] for key in sorted(chunks)])
    assert np.array_equal(found, whole)


def test_rows_without_memory_are_not_computed(device):
    ops, sequences = device.eager(), case()
    decoder = toy.MemoryDecoder.load(toy.Made(ops, toy.tensors()))
    own, kept = pages_of(ops)
    fill(ops, decoder, sequences, kept)
    seen = {}
    batch = batch_of(constants(ops, step(sequences, WHOLE)), own, kept)
    tap = lambda name, value: seen.setdefault(name, value) and value  # noqa: E731
    decoder.forward(replace(batch, tap=tap))
    for layer in range(toy.LAYERS):
        values = seen[f"blk.{layer}.seen"].numpy()
        assert len(values) == sum(ROWS) - ROWS[0]
        assert (np.abs(values).max((1, 2)) > 0.01).all()


def test_a_batch_without_any_memory_gives_the_bits_of_one_in_which_nobody_remembers(recorded, device):
    ops, sequences, parts = device.eager(), case(), WHOLE[:1]
    decoder = toy.MemoryDecoder.load(toy.Made(ops, toy.tensors()))
    own, kept = pages_of(ops)
    arrays = step(sequences, parts)
    assert not len(arrays["rows"])
    some = {name: values if len(values) else [0] for name, values in arrays.items()}  # eagerly there is no empty array
    batch = replace(batch_of(constants(ops, some), own, kept), memory=None)
    assert np.array_equal(decoder.forward(batch).numpy(), recorded.run(arrays))


def test_another_memory_gives_other_logits_only_to_its_sequence(device, recorded):
    whole = recorded.run(step(case(), WHOLE))
    other = Recorded(device)
    changed = case()
    changed.memories[2][:] = np.roll(changed.memories[2], 1, axis=1)
    fill(other.eager, other.decoder, changed, other.kept)
    logits = other.run(step(case(), WHOLE))
    assert np.array_equal(logits[:14], whole[:14])
    assert np.array_equal(logits[80:], whole[80:])
    assert np.abs(logits[14:80] - whole[14:80]).max() > 0.1


def test_two_sequences_share_one_memory(device):
    """The same pages under two tables: a picture that two people ask about."""
    shared = Recorded(device)
    sequences = case()
    fill(shared.eager, shared.decoder, sequences, shared.kept)
    together = Case(
        [sequences.ids[2], sequences.ids[2]], [], [sequences.own[2], sequences.own[3] + sequences.own[0]],
        [sequences.kept[2]] * 2,
    )  # fmt: skip
    logits = shared.run(step(together, [(0, 0, 40), (1, 0, 40)], memories=[70, 70]))
    assert np.array_equal(logits[:40], logits[40:])


@pytest.mark.parametrize("kind", ["f16"])
def test_pages_of_half_width_are_near(device, expected, kind):
    half = Recorded(device, kind)
    fill(half.eager, half.decoder, case(), half.kept)
    check(half.run(step(case(), WHOLE)), WHOLE, expected, 0.02)
