"""Linear layers and embeddings in every number format: packed weights against the format's own decoding.

The linear layer takes activations as int8 in groups of 32, so the definition is given the rounded ones: what is
left between the two is the rounding of float32 sums.
"""

from __future__ import annotations

import numpy as np
import pytest
from samples import DECODED, FEW, FLOATS, QUANTISED, agree, close, held, normal, quantised, raw

from opsin.errors import ModelError
from opsin.ops.reference import DenseWeight, Reference
from opsin.quants import BY_NAME

ROWS = (1, 2, 3, 4, 6, 13)
FORMATS = (*FLOATS, *QUANTISED, *DECODED)
# Their scales are products, which are kept as f16: each weight is within a relative 2**-11 of the file's.
ROUNDED = {"Q2_K": 2e-3, "Q3_K": 1e-3, "Q4_K": 2e-3, "Q5_K": 2e-3, "Q6_K": 1e-3}


def inputs_of(name: str) -> int:
    return {256: 512, 64: 192}.get(BY_NAME[name].elements, 96)


def table(ops, weight) -> np.ndarray:
    """A packed weight's values, as `embed` reads them."""
    return ops.embed(ops.constant(np.arange(weight.shape[0], dtype=np.int32)), weight).numpy()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("outputs", [1, 32, 77])
def test_embed_gives_the_rows_of_the_file(ops, name, outputs):
    tensor = raw(name, outputs, inputs_of(name))
    ids = np.array([0, outputs - 1, outputs // 2, 0], np.int32)
    agree(ops, lambda o: o.embed(o.constant(ids), o.pack(tensor)), ROUNDED.get(name, 0))


@pytest.mark.parametrize("name", FORMATS)
def test_linear(ops, name):
    outputs, inputs = 77, inputs_of(name)
    weight = ops.pack(raw(name, outputs, inputs))
    values = table(ops, weight).astype(np.float64)
    bias = normal(outputs)
    for rows in ROWS:
        x, residual = normal(rows, inputs), normal(rows, outputs, seed=1)
        x[:, :32] *= 100  # groups have scales of their own
        y = ops.linear(ops.constant(x), weight, ops.constant(bias), ops.constant(residual)).numpy()
        seen = quantised(x) if name in QUANTISED else x
        close(y, seen @ values.T + bias + residual, 2e-6)


@pytest.mark.parametrize("name", ["F16", "Q8_0"])
@pytest.mark.parametrize("kind", ["gelu_erf"] if FEW else ["silu", "gelu", "gelu_erf", "gelu_quick", "relu"])
def test_linear_with_an_activation_is_the_two_after_each_other(ops, name, kind):
    """To the bit; and the residual comes after it."""
    weight, bias = ops.pack(raw(name, 77, 64)), ops.constant(normal(77))
    for rows in (*ROWS, 30):
        x, residual = ops.constant(3 * normal(rows, 64)), ops.constant(normal(rows, 77, seed=1))
        for more in (None, bias):
            apart = ops.activate(ops.linear(x, weight, more), kind)
            np.testing.assert_array_equal(ops.linear(x, weight, more, activation=kind).numpy(), apart.numpy())
            whole = ops.linear(x, weight, more, residual, kind).numpy()
            np.testing.assert_array_equal(whole, (apart + residual).numpy())


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q8_0"])
@pytest.mark.parametrize("outputs", [1, 31, 32, 33, 64, 95])
def test_linear_of_any_number_of_outputs(ops, name, outputs):
    tensor, reference = raw(name, outputs, 64), Reference(wide=True)
    weight = ops.pack(tensor)
    for rows in (1, 7):
        x = normal(rows, 64)
        seen = quantised(x) if name in QUANTISED else x
        wanted = reference.linear(reference.constant(seen), reference.pack(tensor)).numpy()
        close(ops.linear(ops.constant(x), weight).numpy(), wanted, 2e-6)


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
def test_long_rows_and_many_outputs(ops, name):
    """Some rows pass 8-bit weights in stretches, more pass a few strips at once: bits are those of one row alone."""
    tensor, reference, x = raw(name, 330, 1280), Reference(wide=True), normal(70, 1280)
    weight, bias = ops.pack(tensor), normal(330)
    wanted = reference.linear(reference.constant(quantised(x)), reference.pack(tensor)).numpy() + bias
    alone = np.concatenate([ops.linear(ops.constant(row[None]), weight, ops.constant(bias)).numpy() for row in x])
    close(alone, wanted, 2e-6)
    for rows in (5, 7, 16, 64, 65, 70):
        y = ops.linear(ops.constant(x[:rows]), weight, ops.constant(bias))
        np.testing.assert_array_equal(y.numpy(), alone[:rows])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("inputs", [1, 7, 40, 129])
def test_float_weights_of_any_number_of_inputs(ops, name, inputs):
    tensor, x = raw(name, 33, inputs), normal(5, inputs)
    agree(ops, lambda o: o.linear(o.constant(x), o.pack(tensor)))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(24, 7, 33), (25, 1601, 64), (37, 400, 97), (230, 70, 31)])
def test_float_weights_of_many_rows(ops, name, rows, inputs, outputs):
    """They go another way: rows in panels, weights widened once for many of them."""
    tensor, x = raw(name, outputs, inputs), normal(rows, inputs)
    bias, residual = normal(outputs), normal(rows, outputs, seed=1)

    def run(o, *extra):
        return o.linear(o.constant(x), o.pack(tensor), *(None if a is None else o.constant(a) for a in extra))

    for extra in ((), (bias,), (None, residual), (bias, residual)):
        agree(ops, lambda o: run(o, *extra))  # noqa: B023
    weight = ops.pack(tensor)
    whole = ops.linear(ops.constant(x), weight, ops.constant(bias), ops.constant(residual)).numpy()
    for start in range(0, rows, 20):  # few rows go the ordinary way
        part = slice(start, start + 20)
        few = ops.linear(ops.constant(x[part]), weight, ops.constant(bias), ops.constant(residual[part])).numpy()
        np.testing.assert_array_equal(few, whole[part])


@pytest.mark.parametrize("name", FLOATS)
def test_parts_of_many_rows_and_what_is_known_of_them(ops, name):
    """Two layers read one x; another part of the same memory is not taken for it."""
    x, more = normal(40, 200), normal(40, 100)
    whole, weights = ops.constant(x), [ops.pack(raw(name, 40, 64, seed=i)) for i in range(2)]
    for start in (0, 32, 101):
        for weight in weights:
            part = ops.linear(whole[:, start : start + 64], weight, None, ops.constant(more)[:, 30:70]).numpy()
            apart = ops.constant(x[:, start : start + 64].copy()), ops.constant(more[:, 30:70].copy())
            np.testing.assert_array_equal(part, ops.linear(apart[0], weight, None, apart[1]).numpy())


def test_linear_of_part_of_each_row(ops):
    """Read by weights of several biases and groups, which need sums of their own of it."""
    weights, x = [ops.pack(raw(name, 33, 256)) for name in ("Q8_0", "Q4_0", "NVFP4")], normal(5, 400)
    whole = ops.constant(x)
    for start in (0, 32, 101):
        for weight in weights:
            part = ops.linear(whole[:, start : start + 256], weight).numpy()
            alone = ops.linear(ops.constant(x[:, start : start + 256]), weight).numpy()
            np.testing.assert_array_equal(part, alone)


def test_residual_may_be_part_of_each_row(ops):
    tensor, x, more = raw("Q4_0", 40, 64), normal(5, 64), normal(5, 100)
    weight = ops.pack(tensor)
    part = ops.linear(ops.constant(x), weight, None, ops.constant(more)[:, 30:70]).numpy()
    alone = ops.linear(ops.constant(x), weight, None, ops.constant(more[:, 30:70])).numpy()
    np.testing.assert_array_equal(part, alone)


def test_a_row_of_zeros_gives_the_bias(ops):
    weight, bias = ops.pack(raw("Q4_0", 33, 64)), normal(33)
    y = ops.linear(ops.constant(np.zeros((2, 64), np.float32)), weight, ops.constant(bias)).numpy()
    np.testing.assert_array_equal(y, [bias, bias])


@pytest.mark.parametrize("name", [*FLOATS, *QUANTISED[:4]])
@pytest.mark.parametrize("at", [0, 5, 17, 31, 63, 200])
@pytest.mark.parametrize("rows", [1, 3, 30])
def test_nan_comes_out_of_its_own_row_only(ops, name, at, rows):
    weight, x = ops.pack(raw(name, 33, 256)), normal(rows, 256)
    x[0, at] = np.nan
    y = ops.linear(ops.constant(x), weight).numpy()
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1:]).all()


@pytest.mark.parametrize("rows", [3, 12])
@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_largest_codes_do_not_overflow(ops, name, rows):
    """All weights and activations at an end of their range: where 16-bit sums of products would saturate."""
    kind, reference = BY_NAME[name], Reference(wide=True)
    for sign in (-1, 1):
        values = np.full((33 * 8, 32), sign, np.float32)
        values[:, 0] = -1.0  # the magnitude that sets the scale
        stored = kind.encode(values).reshape(33, -1)
        tensor = held(name, stored, 256)
        for x in (np.ones((rows, 256), np.float32), -np.ones((rows, 256), np.float32)):
            wanted = reference.linear(reference.constant(x), reference.pack(tensor)).numpy()
            close(ops.linear(ops.constant(x), ops.pack(tensor)).numpy(), wanted, 1e-6)


def test_every_f16_is_read_as_it_is(ops):
    stored = np.arange(65536, dtype=np.uint16).reshape(64, 1024)
    got = table(ops, ops.pack(held("F16", stored.view(np.uint8), 1024)))
    np.testing.assert_array_equal(got, stored.view(np.float16).astype(np.float32))


def test_a_large_tensor_is_packed_piece_by_piece(ops, monkeypatch):
    monkeypatch.setattr("opsin.ops.cpu.pack._PIECE_BYTES", 40 * 96 * 4)
    tensor = raw("F32", 201, 96)
    pieces: list[tuple[int, int]] = []

    def read(first, last, into):
        pieces.append((first, last))
        tensor.read(first, last, into)

    weight = ops.pack(type(tensor)(tensor.name, tensor.type, tensor.shape, read))
    assert len(pieces) > 3
    reference = Reference().pack(tensor)
    assert isinstance(reference, DenseWeight)
    np.testing.assert_array_equal(table(ops, weight), reference.values)


@pytest.mark.skipif("Q6_K" not in QUANTISED, reason="a run of few formats")
def test_scales_beyond_f16_are_not_made_infinite(ops):
    """A k-quant's scale is a product of an f16 and an integer: it may be more than an f16 holds."""
    values = (normal(33, 256) * 3e6).reshape(-1, 256)
    tensor = held("Q6_K", BY_NAME["Q6_K"].encode(values).reshape(33, -1), 256)
    agree(ops, lambda o: o.embed(o.constant(np.arange(33, dtype=np.int32)), o.pack(tensor)), 1e-3)


def test_wrong_widths_are_refused(ops):
    weight = ops.pack(raw("F32", 33, 64))
    with pytest.raises(ModelError, match="takes 64 inputs"):
        ops.linear(ops.constant(normal(3, 65)), weight)
    with pytest.raises(ModelError, match="residual"):
        ops.linear(ops.constant(normal(3, 64)), weight, None, ops.constant(normal(3, 34)))
    with pytest.raises(ModelError, match="bias"):
        ops.linear(ops.constant(normal(3, 64)), weight, ops.constant(normal(32)))


@pytest.mark.parametrize("rows", [3, 40])
def test_a_few_loud_channels_do_not_drown_the_others_of_an_8_bit_layer(ops, rows):
    """As in vision towers: one channel in 200 is 50 times as large. Activations are int8 in groups of 32."""
    random = np.random.default_rng(5)
    x, tensor = normal(rows, 768), raw("Q8_0", 256, 768)
    x[:, random.choice(768, 4, replace=False)] *= 50
    got = ops.linear(ops.constant(x), ops.pack(tensor)).numpy().astype(np.float64)
    reference = Reference(wide=True)
    wanted = reference.linear(reference.constant(x), reference.pack(tensor)).numpy()
    cosines = (got * wanted).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert cosines.min() >= 0.999
