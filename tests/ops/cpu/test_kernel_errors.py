"""A kernel cannot raise: it gives a code, which reaches Python as a DeviceError. The team works on afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from samples import normal, raw

from opsin.errors import DeviceError
from opsin.ops import PAGE


def works(ops) -> bool:
    x = normal(3, 40)
    return bool(((ops.constant(x) + ops.constant(x)).numpy() == 2 * x).all())


@pytest.mark.parametrize("name", ["F32", "Q4_0"])
@pytest.mark.parametrize("id", [-1, 50, 2**31 - 1, -(2**31)])
def test_an_id_outside_the_vocabulary(ops, name, id):
    weight = ops.pack(raw(name, 50, 64))
    with pytest.raises(DeviceError, match=r"rows\(.*outside the vocabulary"):
        ops.embed(ops.constant(np.array([3, id, 4], np.int32)), weight)
    assert works(ops)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there(ops, row):
    with pytest.raises(DeviceError, match="rows"):
        ops.take(ops.constant(normal(3, 8)), ops.constant(np.array([0, row], np.int32)))
    assert works(ops)


def test_a_row_that_cannot_be_put_anywhere(ops):
    x = ops.constant(normal(3, 8))
    with pytest.raises(DeviceError, match="rows"):
        ops.put(x, ops.constant(normal(2, 8)), ops.constant(np.array([0, -1, 2], np.int32)))
    assert works(ops)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_a_slot_outside_the_pages(ops, kind):
    pages = ops.pages(layers=1, heads=1, width=32, count=2, kind=kind)
    x = ops.constant(normal(2, 1, 32))
    for slot in (2 * PAGE, 2**31 - 1):
        with pytest.raises(DeviceError, match="has no page"):
            ops.store(pages, 0, x, x, ops.constant(np.array([0, slot], np.int32)))
    ops.store(pages, 0, x, x, ops.constant(np.array([0, 2 * PAGE - 1], np.int32)))
    assert works(ops)


class TestRecorded:
    def record(self, cpu):
        ops, tape = cpu.record()
        rows = tape.count("rows", 8)
        ids, taken = tape.input(ops, "ids", (rows,), "i32"), tape.input(ops, "taken", (rows,), "i32")
        x = ops.take(ops.embed(ids, ops.pack(raw("Q4_0", 50, 64))), taken)
        for _ in range(5):
            x = x + x
        return tape.finish({"x": x})

    def test_the_error_names_the_operation_and_the_next_run_is_sound(self, cpu):
        program = self.record(cpu)
        program.inputs["ids"][:3] = [1, 2, 3]
        program.inputs["taken"][:3] = [0, 1, 2]
        program.run(rows=3)
        sound = program.output("x")[:3].copy()
        for _ in range(3):
            program.inputs["ids"][1] = 50
            with pytest.raises(DeviceError, match="embed.*vocabulary"):
                program.run(rows=3)
            program.inputs["ids"][1] = 2
            program.run(rows=3)
            np.testing.assert_array_equal(program.output("x")[:3], sound)

    def test_rows_that_do_not_run_may_hold_anything(self, cpu):
        program = self.record(cpu)
        program.inputs["ids"][:] = 99
        program.inputs["ids"][:2] = 7
        program.run(rows=2)
        with pytest.raises(DeviceError):
            program.run(rows=3)

    def test_a_row_past_this_run_but_within_the_buffer_is_an_error(self, cpu):
        program = self.record(cpu)
        program.run(rows=8)
        program.inputs["taken"][0] = 2
        with pytest.raises(DeviceError, match="take"):
            program.run(rows=2)

    def test_operations_after_the_error_do_not_run(self, cpu):
        program = self.record(cpu)
        program.inputs["ids"][0], program.inputs["taken"][0] = 1, 0
        program.run(rows=1)
        before = program.output("x").copy()
        program.inputs["ids"][0] = -1
        with pytest.raises(DeviceError):
            program.run(rows=1)
        np.testing.assert_array_equal(program.output("x"), before)
