"""What encoders are made of, each operation beside its limit, and a whole tower of random weights.

    python bench/vision_ops.py [--only linear attention values tower]

Products are measured against the machine's multiply-add peak (int8: against the same, so more than 1 is possible),
norms and the like against reading and writing memory once. The tower has SmolVLM-256M's shapes: SigLIP base at 512
pixels, 12 layers of 768, 3072 wide inside, 1024 patches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import limits
import numpy as np
from attend import THREADS, best_seconds

from opsin.config import from_environment
from opsin.ops import Array, Raw, Weight
from opsin.ops.cpu import Cpu, Operations
from opsin.quants import BY_NAME

ROWS, WIDTH, INNER, HEADS, LAYERS = 1024, 768, 3072, 12, 12


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


def weight(ops: Operations, name: str, outputs: int, inputs: int) -> Weight:
    """A random matrix in a number format."""
    kind = BY_NAME[name]
    assert kind.encode is not None
    stored = kind.encode(normal(outputs * inputs // kind.elements, kind.elements) / 50).reshape(outputs, -1)

    def read(first: int, last: int, into: np.ndarray) -> None:
        into[:] = stored[first:last].reshape(-1)

    return ops.pack(Raw(name, kind.id, (outputs, inputs), read))


def row(name: str, seconds: float, rate: float, unit: str, limit: float) -> str:
    return f"| {name} | {1e3 * seconds:.2f} | {rate:.0f} {unit} | {limit:.0f} | {rate / limit:.0%} |"


def linear(ops: Operations, peak: float) -> Iterator[str]:
    """Layers of 1024 rows."""
    for name in ("F16", "Q8_0", "F32"):
        for inputs, outputs in ((WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH)):
            w, x, bias = weight(ops, name, outputs, inputs), normal(ROWS, inputs), ops.constant(normal(outputs))
            for kind in (None, "gelu") if (name, outputs) == ("F16", INNER) else (None,):
                # A layer's input is new each time: what is known of it (panels, bytes) is made again.
                array = ops.constant(x)
                seconds = best_seconds(lambda x=array, w=w, b=bias, k=kind: ops.linear(x * 1.0, w, b, activation=k))
                seconds -= best_seconds(lambda x=array: x * 1.0)
                title = f"linear {name} {inputs} to {outputs}" + (f", {kind}" if kind else "")
                yield row(title, seconds, 2e-9 * ROWS * inputs * outputs / seconds, "GFLOP/s", peak)


def spans(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """first and last of rows that see their own window."""
    ends = np.cumsum(lengths)
    return np.repeat(ends - lengths, lengths).astype(np.int32), np.repeat(ends, lengths).astype(np.int32)


def attention(ops: Operations, peak: float) -> Iterator[str]:
    """Whole pictures, and windows of which the last is short."""
    for title, lengths, heads, width in (
        ("1024 rows, 12 heads of 64", [ROWS], HEADS, 64),
        ("windows of 64, 12 heads of 64", [64] * 15 + [40], HEADS, 64),
        ("1024 rows, 16 heads of 72", [ROWS], 16, 72),
        ("1024 rows, 16 heads of 80", [ROWS], 16, 80),
        ("windows of 64, 16 heads of 80", [64] * 16, 16, 80),
    ):
        rows = sum(lengths)
        first, last = spans(lengths)
        x = ops.constant(normal(rows, 3 * heads * width))
        parts = [x[:, i * heads * width : (i + 1) * heads * width].reshape(heads, width) for i in range(3)]
        ends = ops.constant(first), ops.constant(last)
        work = 4e-9 * width * heads * float((last - first).sum())
        for name in ("F16", "Q8_0"):
            like = weight(ops, name, 32, 32)
            seconds = best_seconds(lambda p=parts, e=ends, w=like: ops.attend_dense(*p, *e, scale=0.125, like=w))
            yield row(f"attention, {title}, {name}", seconds, work / seconds, "GFLOP/s", peak)


def values(ops: Operations, read: float) -> Iterator[str]:
    """Norms and the like: bytes read and written once, though a picture's values stand in a cache."""
    x, y, one = (ops.constant(a) for a in (normal(ROWS, WIDTH), normal(ROWS, WIDTH), normal(WIDTH)))
    wide = ops.constant(normal(ROWS, INNER))
    calls: dict[str, tuple[Callable[[], Array], float]] = {
        "layer_norm": (lambda: ops.layer_norm(x, one, one, 1e-6), 2 * ROWS * WIDTH),
        "add": (lambda: ops.add(x, y), 3 * ROWS * WIDTH),
        "gelu alone, 3072 wide": (lambda: ops.activate(wide, "gelu"), 2 * ROWS * INNER),
        "mean of 4 rows": (lambda: ops.mean_rows(x, 4), 1.25 * ROWS * WIDTH),
    }
    for name, (call, numbers) in calls.items():
        seconds = best_seconds(call, 20)
        yield row(name, seconds, 4e-9 * numbers / seconds, "GB/s", read)


class Tower:
    """A vision tower of random weights; every operation eager."""

    def __init__(self, ops: Operations, name: str, rows: int, width: int, inner: int, heads: int, layers: int) -> None:
        self.ops, self.heads = ops, heads
        self.one = ops.constant(np.ones(width, np.float32))
        shapes = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
        shapes |= {"up": (inner, width), "down": (width, inner)}
        self.layers = [{n: weight(ops, name, *shape) for n, shape in shapes.items()} for _ in range(layers)]
        self.bias = {n: ops.constant(np.zeros(shape[0], np.float32)) for n, shape in shapes.items()}
        self.first, self.last = (ops.constant(a) for a in spans([rows]))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Operation by operation."""
        return self.ops.numpy(self.forward(self.ops, self.ops.constant(values)))

    def recorded(self, values: np.ndarray) -> np.ndarray:
        """As a program."""
        return self.ops.numpy(self.ops.recorded(id(self), self.forward, values))

    def forward(self, ops: Operations, x: Array) -> Array:
        bias = self.bias
        head = x.width // self.heads
        for w in self.layers:
            y = ops.layer_norm(x, self.one, self.one, 1e-6)
            q, k, v = (ops.linear(y, w[n], bias[n]).reshape(self.heads, head) for n in "qkv")
            seen = ops.attend_dense(q, k, v, self.first, self.last, scale=head**-0.5, like=w["o"])
            x = ops.linear(seen.reshape(x.width), w["o"], bias["o"], x)
            y = ops.linear(ops.layer_norm(x, self.one, self.one, 1e-6), w["up"], bias["up"], activation="gelu")
            x = ops.linear(y, w["down"], bias["down"], x)
        return x


def towers(ops: Operations, peak: float) -> Iterator[str]:
    """Whole encoders: SmolVLM-256M's tile, and a small one of 144 patches."""
    for title, shape, runs in (
        ("tower of SmolVLM-256M, a tile", (ROWS, WIDTH, INNER, HEADS, LAYERS), 5),
        ("tower of 144 patches, 6 layers of 256", (144, 256, 1024, 4, 6), 30),
    ):
        rows, width, inner, _, layers = shape
        work = 1e-9 * layers * (2 * rows * (4 * width * width + 2 * width * inner) + 4 * rows * rows * width)
        for name in ("F16", "Q8_0"):
            tower, x = Tower(ops, name, *shape), normal(rows, width)
            for way, run in (("eager", tower), ("recorded", tower.recorded)):
                seconds = best_seconds(lambda run=run, x=x: run(x), runs)
                yield row(f"{title}, {name}, {way}", seconds, work / seconds, "GFLOP/s", peak)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["linear", "attention", "values", "tower"])
    args = parser.parse_args()
    known = limits.measure((THREADS,))
    peak, read = known.float32_gflop_per_second[THREADS], known.read_gb_per_second[THREADS]
    device = Cpu(from_environment(), threads=THREADS)
    ops = device.eager()
    print("| operation | ms | rate | limit | share |\n|---|---:|---:|---:|---:|")
    parts = {
        "linear": (linear, peak),
        "attention": (attention, peak),
        "values": (values, read),
        "tower": (towers, peak),
    }
    for name in args.only:
        make, limit = parts[name]
        for line in make(ops, limit):
            print(line, flush=True)
    device.close()


if __name__ == "__main__":
    main()
