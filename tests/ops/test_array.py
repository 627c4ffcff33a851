"""`ops.Array`: NumPy cannot take it, views are checked, nothing but operations touches it."""

from __future__ import annotations

import numpy as np
import pytest
from samples import normal

from opsin.errors import DeviceError, ModelError
from opsin.ops import Count
from opsin.ops.reference import Reference

ON_NUMPY = {
    "np.add": lambda x, y: np.add(x, y),
    "np.sqrt": lambda x, y: np.sqrt(x),
    "np.asarray": lambda x, y: np.asarray(x),
    "np.array of a list": lambda x, y: np.array([x, x], np.float32),
    "np.concatenate": lambda x, y: np.concatenate([x, x]),
    "np.sum": lambda x, y: np.sum(x),
    "np.matmul": lambda x, y: np.matmul(x, y),
    "Array + ndarray": lambda x, y: x + y,
    "ndarray + Array": lambda x, y: y + x,
    "ndarray * Array": lambda x, y: y * x,
    "Array * ndarray": lambda x, y: x * y,
    "ndarray @ Array": lambda x, y: y @ x,
    "Array - Array": lambda x, y: x - x,
    "Array / number": lambda x, y: x / 2,
    "Array + number": lambda x, y: x + 1,
    "into an ndarray": lambda x, y: y.__setitem__(slice(None), x),
    "float": lambda x, y: float(x),
    "iteration": lambda x, y: list(x),
}


@pytest.mark.parametrize("what", ON_NUMPY)
@pytest.mark.parametrize("device", ["cpu", "recording", "reference"])
def test_numpy_on_an_array_raises(cpu, device, what):
    ops = {"cpu": cpu.eager, "recording": lambda: cpu.record()[0], "reference": Reference}[device]()
    y = normal(4, 4)
    with pytest.raises((TypeError, ModelError)) as caught:
        ON_NUMPY[what](ops.constant(y), y)
    if what.startswith("np."):
        assert caught.type is TypeError


@pytest.mark.parametrize("factor", [2, 2.0, np.float32(2), np.float64(2), np.int64(2)], ids=lambda f: type(f).__name__)
def test_numbers_of_numpy_scale_an_array_from_either_side(ops, factor):
    x = normal(3, 8)
    np.testing.assert_array_equal((ops.constant(x) * factor).numpy(), 2 * x)
    np.testing.assert_array_equal((factor * ops.constant(x)).numpy(), 2 * x)


def test_reshape_keeps_the_first_size_and_the_number_of_values(ops):
    x = ops.constant(normal(3, 40))
    assert x.reshape(5, 8).shape == (3, 5, 8)
    np.testing.assert_array_equal(x.reshape(5, 8).numpy(), x.numpy().reshape(3, 5, 8))
    with pytest.raises(ModelError, match="reshape"):
        x.reshape(5, 9)


def test_only_the_last_dimension_is_cut(ops):
    x = ops.constant(normal(3, 40))
    np.testing.assert_array_equal(x[:, 4:].numpy(), x.numpy()[:, 4:])
    np.testing.assert_array_equal(x[:, -4:].numpy(), x.numpy()[:, -4:])
    for cut in (lambda: x[0:2, :], lambda: x[1], lambda: x[:, ::2], lambda: x.reshape(5, 8)[:, :, 2:3]):
        with pytest.raises(ModelError, match="cut"):
            cut()


def test_values_of_a_recording_cannot_be_read(cpu):
    ops, tape = cpu.record()
    x = tape.input(ops, "x", (tape.count("rows", 4), 8), "f32")
    y = x + x
    with pytest.raises(DeviceError, match="recording"):
        y.numpy()
    tape.finish({"y": y})
    with pytest.raises(DeviceError, match="recording"):
        y.numpy()


def test_a_count_of_another_device_is_refused(ops):
    with pytest.raises(AssertionError, match="another device"):
        ops.tape.cell(Count("rows", 4))


def test_an_array_of_another_device_is_refused(ops):
    with pytest.raises(AssertionError, match="another device"):
        ops.add(ops.constant(normal(2, 2)), Reference().constant(normal(2, 2)))
