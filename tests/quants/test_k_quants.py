"""The search of the k-quants: errors no larger than llama.cpp's, and sound on weights that are not like a model's."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hard_blocks import make_weights

from opsin.arrays import Bytes, Floats
from opsin.errors import ModelError
from opsin.quants import BY_NAME, QuantType
from opsin.quants.q4_k_q5_k import join_pairs, split_pairs

K_QUANTS = [BY_NAME[name] for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")]
# Relative errors on normal and on uneven weights, one part in a thousand above what the search reaches today.
WORST = {
    "Q2_K": (0.26056, 0.26184),
    "Q3_K": (0.14349, 0.14109),
    "Q4_K": (0.07003, 0.07881),
    "Q5_K": (0.03466, 0.03960),
    "Q6_K": (0.01685, 0.01654),
}


def draw(shape: str, count: int = 300) -> Floats:
    random = np.random.default_rng(7)
    match shape:
        case "normal":
            values = random.normal(size=(count, 256)) * 0.02
        case "laplace":
            values = random.laplace(size=(count, 256)) * 0.02
        case "heavy":
            values = random.standard_t(4, size=(count, 256)) * 0.02
        case "uniform":
            values = random.uniform(-1, 1, size=(count, 256))
        case "shifted":
            values = random.normal(size=(count, 256)) + 2 * random.normal(size=(count, 1))
        case "uneven":
            values = random.normal(size=(count, 256)) * np.exp(random.normal(size=(count, 16)).repeat(16, axis=1))
        case _:
            raise AssertionError(shape)
    return values.astype(np.float32)


def round_trip(kind: QuantType, values: Floats) -> Floats:
    assert kind.encode is not None
    return kind.decode(kind.encode(values))


def relative_error(values: Floats, kept: Floats) -> float:
    return float(np.sqrt(np.square(kept - values, dtype=np.float64).sum() / np.square(values, dtype=np.float64).sum()))


@pytest.fixture(scope="module")
def llama_encode() -> Callable[[QuantType, Floats], Bytes]:
    """llama.cpp's own quantiser, out of the shared library in the package xllamacpp."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        pytest.skip("xllamacpp is not installed")
    libraries = [file for file in Path(spec.origin).parent.iterdir() if file.suffix in (".so", ".pyd", ".dylib")]
    library = ctypes.CDLL(str(libraries[0]))
    if not hasattr(library, "ggml_quantize_chunk"):
        pytest.skip("this xllamacpp does not export ggml_quantize_chunk")
    quantize = library.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    int64, pointer = ctypes.c_int64, ctypes.c_void_p
    quantize.argtypes = [ctypes.c_int, pointer, pointer, int64, int64, int64, pointer]

    def encode(kind: QuantType, values: Floats) -> Bytes:
        blocks = np.empty((len(values), kind.bytes), dtype=np.uint8)
        size = quantize(kind.id, values.ctypes.data, blocks.ctypes.data, 0, len(values), values.shape[1], None)
        assert size == blocks.size
        return blocks

    return encode


@pytest.mark.parametrize("shape", ["normal", "laplace", "heavy", "uniform", "shifted", "uneven"])
@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_error_is_below_that_of_llama_cpp(
    kind: QuantType, shape: str, llama_encode: Callable[[QuantType, Floats], Bytes]
) -> None:
    values = draw(shape)
    theirs = relative_error(values, kind.decode(llama_encode(kind, values)))
    assert relative_error(values, round_trip(kind, values)) < theirs


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_error_stays_where_it_is(kind: QuantType) -> None:
    errors = [relative_error(values, round_trip(kind, values)) for values in (draw("normal"), draw("uneven"))]
    assert all(error < worst for error, worst in zip(errors, WORST[kind.name], strict=True))


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_a_block_does_not_depend_on_its_neighbours(kind: QuantType) -> None:
    assert kind.encode is not None
    values = draw("uneven", count=260)  # more than are searched at once
    blocks = kind.encode(values)
    for i in (0, 3, 255, 256, 259):
        assert np.array_equal(kind.encode(values[i : i + 1])[0], blocks[i])


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [1.0, -1.0, 0.1, -3e4])
def test_a_constant_block_stays_constant(kind: QuantType, value: float) -> None:
    values = np.full((2, 256), value, dtype=np.float32)
    assert np.allclose(round_trip(kind, values), values, rtol=2e-3)


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_weights_that_lie_on_steps_are_kept(kind: QuantType) -> None:
    """Steps that the format has, with scales and minima of whole numbers, come back as they were."""
    assert kind.planes is not None
    random = np.random.default_rng(1)
    q = random.integers(0, 1 << kind.planes.bits, (50, 256 // kind.planes.group, kind.planes.group))
    q[:, :, 0], q[:, :, 1] = 0, (1 << kind.planes.bits) - 1
    zero = kind.planes.zero or q.max() // 2
    values = ((q - zero) * 0.5).reshape(50, 256).astype(np.float32)
    assert relative_error(values, round_trip(kind, values)) < 5e-3


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_no_block_is_worse_than_zeros(kind: QuantType) -> None:
    values = make_weights(256)
    kept = round_trip(kind, values)
    assert np.isfinite(kept).all()
    lost = np.square(kept - values, dtype=np.float64).sum(axis=1)
    assert (lost <= 1.0001 * np.square(values, dtype=np.float64).sum(axis=1)).all()


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_weights_beyond_f16_scales_are_refused(kind: QuantType) -> None:
    assert kind.encode is not None
    with pytest.raises(ModelError, match="f16 scales"):
        kind.encode(np.full((1, 256), 1e10, dtype=np.float32) * np.linspace(-1, 1, 256, dtype=np.float32))


def test_pairs_of_six_bits_come_back_from_twelve_bytes() -> None:
    random = np.random.default_rng(2)
    scales, minima = random.integers(0, 64, (2, 100, 8), dtype=np.uint8)
    packed = join_pairs(scales, minima)
    assert packed.shape == (100, 12)
    assert all(np.array_equal(a, b) for a, b in zip(split_pairs(packed), (scales, minima), strict=True))
