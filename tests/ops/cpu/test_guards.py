"""OPSIN_CHECK=1: buffers stand between fences, dropped memory is poisoned, results are the same."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import subprocess
import sys
from pathlib import Path

import bad_kernel
import numpy as np
import pytest
from samples import Cache, normal, raw

from opsin.config import from_environment
from opsin.errors import DeviceError
from opsin.ops.cpu import Cpu
from opsin.ops.cpu.arena import Arena, Block
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.tape import place


@pytest.fixture(scope="module")
def checked():
    device = Cpu(dataclasses.replace(from_environment(), check=True), threads=2)
    yield device
    device.close()


@pytest.fixture
def unchecked():
    device = Cpu(dataclasses.replace(from_environment(), check=False), threads=2)
    yield device
    device.close()


@pytest.fixture
def stray(monkeypatch):
    """Lets ops emit the kernel of `bad_kernel.py`."""
    monkeypatch.setitem(sys.modules, "opsin.ops.cpu.kernels.bad_kernel", bad_kernel)

    def emit(ops, x, offset):
        ops.tape.emit(Kernel.of("bad_kernel"), (place(x).address, offset), items=1, reads=(), writes=(x,))

    return emit


def read_floats(address: int, count: int) -> np.ndarray:
    return np.frombuffer(ctypes.string_at(address, 4 * count), np.float32)


class TestFences:
    SIZE = 3 * 40 * 4

    @pytest.mark.parametrize("offset", [-1, -8, -64, SIZE, SIZE + 7, SIZE + 40, SIZE + 100])
    def test_a_write_outside_a_buffer_is_found_at_once(self, checked, stray, offset):
        ops = checked.eager()
        x = ops.new((3, 40))
        with pytest.raises(DeviceError, match="outside a buffer"):
            stray(ops, x, offset)

    @pytest.mark.parametrize("offset", [0, 100, SIZE - 1])
    def test_a_write_inside_is_none_of_their_business(self, checked, stray, offset):
        ops = checked.eager()
        stray(ops, ops.new((3, 40)), offset)

    @pytest.mark.parametrize("offset", [-1, -64, 448, 511])
    def test_in_a_recorded_program(self, checked, stray, offset):
        ops, tape = checked.record()
        x = ops.new((3, 32))
        assert place(x).block.bytes == 448
        stray(ops, x, offset)
        with pytest.raises(DeviceError, match="outside a buffer"):
            tape.finish({"x": x}).run()

    @pytest.mark.parametrize("offset", [-1, SIZE + 64])
    def test_around_an_input(self, checked, stray, offset):
        ops, tape = checked.record()
        x = tape.input(ops, "x", (3, 40), "f32")
        stray(ops, x, offset)
        with pytest.raises(DeviceError, match="outside a buffer"):
            tape.finish({"x": x}).run()

    def test_a_block_finds_each_fence_damaged(self):
        for place_ in (-1, -64, 128, 191):
            block = Block(128, guarded=True)
            block.check()
            ctypes.memset(block.address + place_, 0, 1)
            with pytest.raises(DeviceError, match="128 bytes"):
                block.check()

    def test_arena_gives_lines_of_its_own(self):
        for guarded in (False, True):
            arena = Arena(guarded=guarded)
            blocks = [arena.take(size) for size in (1, 64, 65, 4000)]
            assert [block.bytes for block in blocks] == [64, 64, 128, 4032]
            assert all(block.address % 64 == 0 for block in blocks)


class TestDropped:
    """What a kept address reads after its Array was dropped."""

    def test_memory_is_poisoned_when_eager(self, checked):
        ops = checked.eager()
        x = ops.scale(ops.constant(normal(3, 40)), 2.0)
        address = place(x).address
        assert np.isfinite(read_floats(address, 120)).all()
        del x
        assert np.isnan(read_floats(address, 120)).all()

    def test_memory_is_poisoned_in_a_program(self, checked):
        ops, tape = checked.record()
        x = tape.input(ops, "x", (3, 40), "f32")
        y = ops.scale(x, 2.0)
        address, block = place(y).address, place(y).block
        z = ops.scale(y, 2.0)
        del y
        gc.collect()
        program = tape.finish({"z": z})
        program.inputs["x"][:] = 1
        block.data[:] = 0
        program.run()
        assert (program.output("z") == 4).all()
        assert np.isnan(read_floats(address, 120)).all()

    def test_an_address_kept_by_mistake_gives_nan(self, checked):
        """Where an operation forgot to say what it reads, its input is gone when it runs."""
        ops, tape = checked.record()
        x = tape.input(ops, "x", (3, 40), "f32")
        y = ops.scale(x, 2.0)
        forgotten = place(y).address
        del y
        z = ops.new((3, 40))
        args = (forgotten, 160, 0, 0, place(z).address, 160, 40, 0, 0, 1)
        ops.tape.emit(Kernel.of("pointwise", name="copy"), args, items=3, reads=(), writes=(z,))
        program = tape.finish({"z": z})
        program.inputs["x"][:] = 1
        program.run()
        assert np.isnan(program.output("z")).all()

    def test_a_view_keeps_memory_alive(self, checked):
        ops = checked.eager()
        part = ops.scale(ops.constant(normal(3, 40)), 2.0)[:, 5:9]
        gc.collect()
        assert np.isfinite(part.numpy()).all()

    def test_outputs_of_a_program_are_not_poisoned(self, checked):
        ops, tape = checked.record()
        x = tape.input(ops, "x", (3, 40), "f32")
        program = tape.finish({"y": ops.scale(x, 2.0)})
        program.inputs["x"][:] = 1
        gc.collect()
        for _ in range(2):
            program.run()
            assert (program.output("y") == 2).all()


def test_results_with_and_without_guards_are_the_same(checked, unchecked):
    def results(device):
        ops = device.eager()
        weight, cache = ops.pack(raw("Q4_0", 77, 64)), Cache(1, 32, (700,), "f16")
        x = ops.constant(normal(5, 64))
        y = ops.glu(ops.linear(x, weight), ops.linear(x + x, weight), "silu")
        q = ops.constant(normal(2, 3, 32))
        seen = ops.attend(q, cache.fill(ops), 1, cache.reads(ops, [(0, 0, 700), (0, 3, 650)]), scale=0.3)
        return y.numpy(), seen.numpy()

    for a, b in zip(results(checked), results(unchecked), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_environment_turns_guards_on():
    program = (
        "from opsin.config import from_environment; from opsin.ops.cpu import Cpu\n"
        "cpu = Cpu(from_environment(), threads=1)\n"
        "print(cpu.eager().tape.guarded, cpu.record()[1].guarded)\n"
        "cpu.close()"
    )
    for value, wanted in (("1", "True True"), ("0", "False False"), ("", "False False")):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True,
            env={**_environment(), "OPSIN_CHECK": value},
        )  # fmt: skip
        assert done.stdout.strip() == wanted


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
