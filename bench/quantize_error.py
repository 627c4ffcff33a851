"""How much each number format loses, written by opsin and by llama.cpp, to docs/quantize-error.md.

Run: python bench/quantize_error.py (needs the package xllamacpp, whose shared library holds llama.cpp's quantiser).
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.arrays import Bytes, Floats
from opsin.quants import BY_NAME, QuantType

BLOCKS = 4096
FORMATS = ("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0")
PAGE = Path(__file__).parent.parent / "docs" / "quantize-error.md"
HEAD = """# What quantising loses

Relative RMS error in percent: the root of the summed squared differences over the summed squares, on {count} random
weights of each kind. Each cell is opsin, then llama.cpp ({version}, without an importance matrix); lower is better.
Written by `bench/quantize_error.py`.

Both searches end in the same formats, so files of either are read by both. llama.cpp's search for the k-quants gives
larger weights more say than smaller ones; opsin's counts every weight alike, which is what this table measures.
"""
KINDS = {
    "normal": "Gaussian",
    "laplace": "Laplace, with more small and more large weights",
    "heavy": "Student's t with 4 degrees of freedom: outliers",
    "uniform": "uniform around zero",
    "shifted": "Gaussian around a mean of its own for every 256 weights",
    "uneven": "Gaussian with a spread of its own for every 16 weights",
}


def draw() -> dict[str, Floats]:
    random = np.random.default_rng(20)
    shape = (BLOCKS, 256)
    values: dict[str, npt.NDArray[np.float64]] = {
        "normal": random.normal(size=shape),
        "laplace": random.laplace(size=shape),
        "heavy": random.standard_t(4, size=shape),
        "uniform": random.uniform(-1, 1, size=shape),
        "shifted": random.normal(size=shape) + 2 * random.normal(size=(BLOCKS, 1)),
        "uneven": random.normal(size=shape) * np.exp(random.normal(size=(BLOCKS, 16)).repeat(16, axis=1)),
    }
    return {kind: drawn.astype(np.float32) for kind, drawn in values.items()}


def load_llama() -> Callable[[QuantType, Floats], Bytes]:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise SystemExit("This compares with llama.cpp: pip install xllamacpp")
    library = next(file for file in Path(spec.origin).parent.iterdir() if file.suffix in (".so", ".pyd", ".dylib"))
    quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
    int64, pointer = ctypes.c_int64, ctypes.c_void_p
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, pointer, pointer, int64, int64, int64, pointer]

    def encode(kind: QuantType, values: Floats) -> Bytes:
        blocks = np.empty((values.size // kind.elements, kind.bytes), dtype=np.uint8)
        size = quantize(kind.id, values.ctypes.data, blocks.ctypes.data, 0, len(values), values.shape[1], None)
        assert size == blocks.size
        return blocks

    return encode


def encode_ours(kind: QuantType, values: Floats) -> Bytes:
    assert kind.encode is not None
    return kind.encode(values.reshape(-1, kind.elements))


def measure(kind: QuantType, blocks: Bytes, values: Floats) -> float:
    lost = np.square(kind.decode(blocks).reshape(values.shape) - values, dtype=np.float64).sum()
    return 100 * float(np.sqrt(lost / np.square(values, dtype=np.float64).sum()))


def main() -> None:
    encode_theirs = load_llama()
    weights = draw()
    version = f"xllamacpp {importlib.metadata.version('xllamacpp')}"
    lines = [HEAD.format(count=f"{BLOCKS * 256:,}", version=version)]
    lines.append(f"| format | bits | {' | '.join(weights)} |")
    lines.append("|---" * (len(weights) + 2) + "|")
    for name in FORMATS:
        kind = BY_NAME[name]
        cells = []
        for values in weights.values():
            ours, theirs = (measure(kind, encode(kind, values), values) for encode in (encode_ours, encode_theirs))
            cells.append(f"{ours:.2f} / {theirs:.2f}")
        lines.append(f"| {name} | {8 * kind.bytes / kind.elements:.4g} | {' | '.join(cells)} |")
    lines.append("")
    lines.extend(f"- {kind}: {meaning}" for kind, meaning in KINDS.items())
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
