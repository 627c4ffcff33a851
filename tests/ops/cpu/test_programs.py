"""Recorded programs: replayed with other inputs, counts and lengths they give the bits of eager operations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import normal, raw

from opsin.ops import CHUNK, PAGE, Reads
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.program import Entry, stages

MOST, PAGES = 12, 24
FREQUENCIES = (10000.0 ** (-np.arange(0, 16) / 16)).astype(np.float32)


def layer(ops, x, at, reads, pages, weights):
    """A small decoder layer over every kind of operation; the same code records and runs."""
    normed = ops.rms_norm(x, weights["norm"], 1e-5)
    qkv = ops.linear(normed, weights["qkv"])
    table = ops.rope_table(at["positions"], weights["frequencies"])
    q = ops.rope(qkv[:, :64].reshape(2, 32), table, "neighbours")
    k = ops.rope(qkv[:, 64:96].reshape(1, 32), table, "neighbours")
    ops.store(pages, 0, k, qkv[:, 96:].reshape(1, 32), at["slots"])
    seen = ops.attend(q, pages, 0, reads, scale=0.3)
    x = ops.linear(seen.reshape(64), weights["out"], None, x)
    return x + ops.activate(ops.scale(x, 0.5), "gelu")


def without_reuse(cpu):
    """Eager operations each of whose results has memory of its own for good."""
    ops = cpu.eager()
    ops.tape.give_back = lambda block: None
    return ops


class Step:
    """The layer over an embedding, with logits of chosen rows, recorded once for up to MOST rows."""

    def __init__(self, cpu):
        self.cpu, ops = cpu, cpu.eager()
        self.weights = {
            "embed": ops.pack(raw("Q8_0", 50, 64)),
            "norm": ops.constant(normal(64)),
            "qkv": ops.pack(raw("Q4_0", 128, 64)),
            "out": ops.pack(raw("F16", 64, 64), rounded=True),
            "frequencies": ops.constant(FREQUENCIES),
        }

    def forward(self, ops, at, reads, pages):
        x = layer(ops, ops.embed(at["ids"], self.weights["embed"]), at, reads, pages, self.weights)
        x = layer(ops, x, at, reads, pages, self.weights)
        logits = ops.linear(ops.take(x, at["outputs"]), self.weights["embed"])
        return {"logits": logits, "best": ops.candidates(logits, 1)[0]}

    def record(self):
        ops, tape = self.cpu.record()
        rows, outputs = tape.count("rows", MOST), tape.count("outputs", 4)
        names = ("ids", "positions", "slots", "sequence", "first", "last")
        at = {name: tape.input(ops, name, (rows,), "i32") for name in names}
        at["outputs"] = tape.input(ops, "outputs", (outputs,), "i32")
        tables = tape.input(ops, "tables", (3, PAGES), "i32")
        pages = ops.pages(layers=1, heads=1, width=32, count=PAGES, kind="f16")
        reads = Reads(tables, at["sequence"], at["first"], at["last"])
        return tape.finish(self.forward(ops, at, reads, pages)), pages

    def eager(self, given, pages):
        ops = without_reuse(self.cpu)
        at = {name: ops.constant(values) for name, values in given.items()}
        reads = Reads(at.pop("tables"), at["sequence"], at["first"], at["last"])
        return {name: x.numpy() for name, x in self.forward(ops, at, reads, pages).items()}


def inputs(rows: int, outputs: int, *, start: int, seed: int):
    """One sequence of `rows` rows from `start` on, on scattered pages; the last one has rows of another, too."""
    random = np.random.default_rng(seed)
    places = np.arange(start, start + rows, dtype=np.int32)
    tables = np.stack([random.permutation(PAGES) for _ in range(3)]).astype(np.int32)
    sequence = np.full(rows, seed % 3, np.int32)
    table = tables[seed % 3]
    return {
        "ids": random.integers(0, 50, rows).astype(np.int32),
        "positions": places,
        "slots": (table[places // PAGE] * PAGE + places % PAGE).astype(np.int32),
        "sequence": sequence,
        "first": np.maximum(places - 700, 0).astype(np.int32) if seed % 2 else np.zeros(rows, np.int32),
        "last": places + 1,
        "outputs": random.integers(0, rows, outputs).astype(np.int32) if rows else np.zeros(0, np.int32),
        "tables": tables,
    }


def fill(program, given):
    for name, values in given.items():
        program.inputs[name][: len(values)] = values


@pytest.fixture(scope="module")
def step(cpu):
    return Step(cpu)


@pytest.fixture(scope="module")
def recorded(step):
    return step.record()


class TestReplay:
    def compare(self, step, recorded, given):
        program, pages = recorded
        blocks = (*pages.keys, *pages.values)
        stored = normal(blocks[0].bytes // 2, seed=5).astype(np.float16).view(np.uint8)  # what is there already
        for block in blocks:
            block.data[: len(stored)] = stored
        fill(program, given)
        rows, outputs = len(given["ids"]), len(given["outputs"])
        program.run(rows=rows, outputs=outputs)
        got = {name: program.output(name)[:outputs].copy() for name in ("logits", "best")}
        after = [block.data.copy() for block in blocks]
        for block in blocks:
            block.data[: len(stored)] = stored
        wanted = step.eager(given, pages)
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name], name)
        for block, content in zip(blocks, after, strict=True):
            np.testing.assert_array_equal(block.data, content)

    @pytest.mark.parametrize("rows", range(1, MOST + 1))
    def test_every_number_of_rows(self, step, recorded, rows):
        self.compare(step, recorded, inputs(rows, min(rows, 4), start=0, seed=rows))

    @pytest.mark.parametrize("start", [1, 63, 64, CHUNK - 3, CHUNK, 2 * CHUNK + 100])
    def test_every_length(self, step, recorded, start):
        for rows, seed in ((1, 3), (7, 4)):
            self.compare(step, recorded, inputs(rows, 1, start=start, seed=seed))

    def test_no_rows_at_all(self, recorded):
        program, _ = recorded
        program.run(rows=0, outputs=0)

    def test_no_outputs(self, step, recorded):
        self.compare(step, recorded, inputs(5, 0, start=0, seed=1))

    def test_more_rows_than_recorded_are_refused(self, recorded):
        with pytest.raises(AssertionError, match="at most 12"):
            recorded[0].run(rows=MOST + 1, outputs=1)

    def test_many_rows_do_not_leak_into_fewer(self, step, recorded):
        """What a larger run left behind must not be seen by a smaller one."""
        self.compare(step, recorded, inputs(MOST, 4, start=300, seed=8))
        self.compare(step, recorded, inputs(1, 1, start=0, seed=9))

    def test_recording_again_gives_the_same(self, step, recorded):
        given = inputs(6, 3, start=20, seed=2)
        results = []
        for program, pages in (recorded, step.record()):
            for block in (*pages.keys, *pages.values):
                block.data[:] = 0
            fill(program, given)
            program.run(rows=6, outputs=3)
            results.append(program.output("logits")[:3].copy())
        np.testing.assert_array_equal(*results)

    def test_memory_is_reused(self, step):
        """A program's values take far less than all of them together would."""
        ops, tape = step.cpu.record()
        x = tape.input(ops, "x", (tape.count("rows", 64), 256), "f32")
        for _ in range(50):
            x = ops.scale(x, 1.01)
        program = tape.finish({"x": x})
        assert program.bytes < 5 * 64 * 256 * 4 + 4096


class TestStages:
    """Operations may overlap only if none writes what another touches."""

    def stages_of(self, *operations):
        """Entries from (reads, writes), strings of one-letter names of blocks."""
        blocks = {letter: Block(64) for letter in "abcdefgh"}
        none = np.zeros(1, np.int64)
        return stages(
            [
                Entry("", 0, none, 0, 1, tuple(blocks[c] for c in reads), tuple(blocks[c] for c in writes))
                for reads, writes in operations
            ]
        )

    def test_independent_operations_are_one_stage(self):
        assert self.stages_of(("a", "b"), ("a", "c"), ("a", "d")) == [-1, -1, 0]

    def test_what_reads_a_result_waits_for_it(self):
        assert self.stages_of(("a", "b"), ("b", "c")) == [0, 1]

    def test_what_writes_over_what_is_read_waits(self):
        assert self.stages_of(("a", "b"), ("c", "a")) == [0, 1]

    def test_what_writes_the_same_waits(self):
        assert self.stages_of(("a", "b"), ("c", "b")) == [0, 1]

    def test_stages_begin_anew(self):
        assert self.stages_of(("a", "b"), ("a", "c"), ("bc", "d"), ("a", "e"), ("de", "f")) == [-1, 0, -1, 2, 4]

    def test_one_operation_and_none(self):
        assert self.stages_of(("a", "b")) == [0]
        assert self.stages_of() == []

    letters = st.sets(st.sampled_from("abcd"))

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(letters, letters.filter(bool)), max_size=12))
    def test_stages_are_as_long_as_their_operations_are_independent(self, operations):
        def clash(i: int, j: int) -> bool:
            (reads, writes), (others, written) = operations[i], operations[j]
            return bool(writes & (others | written) or written & reads)

        found = self.stages_of(*operations)
        start = 0
        for end, first in enumerate(found):
            if first < 0:
                continue
            assert first == start
            stage = range(start, end + 1)
            assert not any(clash(i, j) for i in stage for j in stage if i != j)
            start = end + 1
            assert start == len(found) or any(clash(i, start) for i in stage)
        assert start == len(found)


class TestMemory:
    """A block that is free again may serve the next operation: any order of work gives what eager gives."""

    steps = st.lists(
        st.tuples(st.sampled_from(("add", "multiply", "scale", "silu", "glu", "cut", "linear", "take", "drop")),
                  st.integers(0, 7), st.integers(0, 7)),
        min_size=5, max_size=60,
    )  # fmt: skip

    def chain(self, ops, x, weight, order, steps):
        """Follow the steps over up to eight living values."""
        values = [x]
        for name, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            if name == "drop":
                del values[i % len(values)]
                values = values or [x]
                continue
            made = {
                "add": lambda a=a, b=b: a + b,
                "multiply": lambda a=a, b=b: a * b,
                "scale": lambda a=a: a * 0.7,
                "silu": lambda a=a: ops.activate(a, "silu"),
                "glu": lambda a=a, b=b: ops.glu(a, b, "gelu"),
                "cut": lambda a=a, b=b: ops.glu(a[:, :32], b[:, 32:], "relu").reshape(32) * 1.0,
                "linear": lambda a=a, b=b: ops.linear(a, weight, None, b),
                "take": lambda a=a: ops.take(a, order),
            }[name]()
            if name == "cut":
                made = ops.linear(made, self.widen)
            values = [*values[-7:], made]
            del a, b, made
        return values

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(steps=steps, rows=st.integers(1, 6))
    def test_a_recorded_chain_equals_the_eager_one(self, cpu, steps, rows):
        ops, tape = cpu.record()
        weight, self.widen = ops.pack(raw("Q4_0", 64, 64)), ops.pack(raw("F32", 64, 32))
        count = tape.count("rows", 6)
        x, order = tape.input(ops, "x", (count, 64), "f32"), tape.input(ops, "order", (count,), "i32")
        made = self.chain(ops, x, weight, order, steps)
        program = tape.finish({str(i): value for i, value in enumerate(made)})
        del made
        given_order = (np.arange(rows)[::-1]).astype(np.int32)
        program.inputs["order"][:rows] = given_order
        for seed in (0, 1):
            program.inputs["x"][:rows] = normal(rows, 64, seed=seed)
            program.run(rows=rows)
            eager = without_reuse(cpu)
            start = eager.constant(normal(rows, 64, seed=seed))
            wanted = self.chain(eager, start, weight, eager.constant(given_order), steps)
            for i, value in enumerate(wanted):
                np.testing.assert_array_equal(program.output(str(i))[:rows], value.numpy())
