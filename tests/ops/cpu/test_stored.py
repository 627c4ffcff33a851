"""Tables that stay where they are stored: rows as strips hold them, to the bit, and read only when somebody asks."""

from __future__ import annotations

import numpy as np
import pytest
from samples import DECODED, FLOATS, QUANTISED, raw

from opsin.errors import DeviceError, FileError, ModelError
from opsin.ops import Raw

IDS = np.array([5, 0, 36, 5, 17], np.int32)


def counted(table: Raw) -> tuple[Raw, list[int]]:
    """The same table, and the ids whose rows were read."""
    asked: list[int] = []

    def read(first, last, into):
        asked.extend(range(first, last))
        table.read(first, last, into)

    return Raw(table.name, table.type, table.shape, read), asked


@pytest.mark.parametrize("kind", [*FLOATS, *DECODED, *QUANTISED])
def test_rows_are_those_of_the_packed_table_to_the_bit(ops, kind):
    table = raw(kind, 37, 512)
    stored, packed = (ops.embed(ops.constant(IDS), make(table)).numpy() for make in (ops.stored, ops.pack))
    assert np.abs(packed).max() > 0
    np.testing.assert_array_equal(stored, packed)


def test_nothing_is_read_before_somebody_asks_and_each_row_once_then(ops):
    table, asked = counted(raw("Q4_K", 37, 512))
    stored = ops.stored(table)
    assert (stored.bytes, stored.shape, asked) == (0, (37, 512), [])
    ops.embed(ops.constant(IDS), stored)
    assert asked == [0, 5, 17, 36]


def test_a_program_reads_the_rows_of_each_run(cpu, ops):
    table, asked = counted(raw("Q6_K", 37, 512))
    recording, tape = cpu.record()
    rows = tape.count("rows", 6)
    ids = tape.input(recording, "ids", (rows,), "i32")
    program = tape.finish({"rows": recording.embed(ids, recording.stored(table)) * 2.0})
    assert asked == []
    for given in (IDS, IDS[:1], np.zeros(0, np.int32), IDS[::-1]):
        asked.clear()
        program.inputs["ids"][: len(given)] = given
        program.run(rows=len(given))
        assert asked == sorted(set(given.tolist()))
        wanted = 2 * ops.embed(ops.constant(given), ops.pack(table)).numpy()
        np.testing.assert_array_equal(program.output("rows")[: len(given)], wanted)


def test_a_program_counts_what_it_fetches(cpu):
    def size(rows):
        recording, tape = cpu.record()
        ids = tape.input(recording, "ids", (tape.count("rows", rows),), "i32")
        return tape.finish({"rows": recording.embed(ids, recording.stored(raw("Q8_0", 37, 512)))}).bytes

    a_row = 4 + 4 * 512 + 16 * 34  # an id, what comes out, and what is fetched
    assert size(1000) - size(500) == pytest.approx(500 * a_row, rel=0.01)


@pytest.mark.parametrize("id", [-1, 37])
def test_ids_outside_the_table_are_refused(ops, id):
    with pytest.raises(DeviceError, match="outside the vocabulary"):
        ops.embed(ops.constant(np.array([3, id], np.int32)), ops.stored(raw("Q8_0", 37, 64)))


def test_ids_that_a_program_computes_are_refused(cpu):
    recording, tape = cpu.record()
    ids = tape.input(recording, "ids", (tape.count("rows", 6),), "i32")
    taken = recording.take(ids, recording.constant(np.array([0], np.int32)))
    with pytest.raises(ModelError, match="an input"):
        recording.embed(taken, recording.stored(raw("Q8_0", 37, 64)))


def test_what_a_read_raises_comes_out_of_the_run_and_the_next_is_sound(cpu):
    whole, cut = raw("Q8_0", 37, 64), [True]

    def read(first, last, into):
        if cut[0]:
            raise FileError("the file ends too early")
        whole.read(first, last, into)

    recording, tape = cpu.record()
    ids = tape.input(recording, "ids", (tape.count("rows", 6),), "i32")
    table = recording.stored(Raw("cut", whole.type, whole.shape, read))
    program = tape.finish({"rows": recording.embed(ids, table)})
    with pytest.raises(FileError, match="too early"):
        program.run(rows=1)
    cut[0] = False
    program.run(rows=1)
    assert np.abs(program.output("rows")[:1]).max() > 0


def test_rows_of_numbers_are_taken_as_they_are(ops):
    numbers = np.array([7, -3, 2**31 - 1, 12], np.int32)
    got = ops.take(ops.constant(numbers), ops.constant(np.array([2, 1], np.int32)))
    assert got.dtype == "i32"
    assert got.numpy().tolist() == [2**31 - 1, -3]
