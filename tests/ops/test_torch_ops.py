"""The same `nn` code over another device, torch, gives the same logits; and torch agrees with the definition."""

from __future__ import annotations

import numpy as np
import pytest
from recurrences import convolved, ruled
from samples import Cache, agree, normal, raw
from tiny import MIXED, Shape, tiny_llama

from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.batch import Batch, Group
from opsin.nn.module import FileReader
from opsin.ops import PAGE, Reads
from opsin.ops.alibi import Alibi, alibi_slopes
from opsin.ops.routes import Routing

torch = pytest.importorskip("torch")
from torch_ops import TorchOps  # noqa: E402

SHAPES = {
    "plain": {},
    "untied, with biases": {"untied": True, "biases": True},
    "one matrix for q, k and v": {"fused": True},
    "wide heads, one of keys": {"heads": 3, "kv_heads": 1, "head": 40},
}


def logits(ops, file: File, rows: list[tuple[int, int]]) -> np.ndarray:
    """Logits of (sequence, id) rows, two sequences on scattered pages, in two passes: the second sees the first."""
    decoder = load_decoder(file, FileReader(file, ops))
    shape = decoder.groups["self"]
    pages = ops.pages(layers=shape.layers, heads=shape.heads, width=shape.width, count=8, kind="f32")
    tables = np.array([[5, 0, 3], [2, 7, 1]], np.int32)
    known, results = [0, 0], []
    for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        part = sorted(part, key=lambda row: row[0])
        places = []
        for sequence, _ in part:
            places.append(known[sequence])
            known[sequence] += 1
        sequence, place = np.array([s for s, _ in part], np.int32), np.array(places, np.int32)
        slots = (tables[sequence, place // PAGE] * PAGE + place % PAGE).astype(np.int32)
        reads = Reads(*(ops.constant(a) for a in (tables, sequence, np.zeros_like(place), place + 1)))
        batch = Batch(
            ids=ops.constant(np.array([id for _, id in part], np.int32)),
            positions=ops.constant(place),
            groups={"self": Group(pages, reads, ops.constant(slots))},
            outputs=ops.constant(np.arange(len(part), dtype=np.int32)),
        )
        results.append(decoder.forward(batch).numpy())
    return np.concatenate(results)


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_over_torch_gives_the_cpus_logits(ops, tmp_path, shape):
    path = tiny_llama(tmp_path / "tiny.gguf", **SHAPES[shape])
    ids = np.random.default_rng(1).integers(0, Shape().vocabulary, 180)
    rows = [(i % 3 // 2, int(id)) for i, id in enumerate(ids)]
    with File.open(path) as file:
        got, wanted = logits(ops, file, rows), logits(TorchOps(), file, rows)
    assert np.isfinite(wanted).all()
    assert wanted.std() > 0.1
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_quantised_llama_over_torch_is_near(ops, tmp_path):
    """Activations are int8 on the CPU alone, so only near."""
    path = tiny_llama(tmp_path / "tiny.gguf", types=MIXED)
    rows = [(0, int(id)) for id in np.random.default_rng(1).integers(0, Shape().vocabulary, 60)]
    with File.open(path) as file:
        got, wanted = logits(ops, file, rows), logits(TorchOps(), file, rows)
    assert np.corrcoef(got.reshape(-1), wanted.reshape(-1))[0, 1] > 0.99


class TestDefinition:
    """`reference.py` against torch's own functions: the definition is not only ours."""

    def test_values_and_norms(self):
        ops, x, y, w = TorchOps(), normal(5, 40), normal(5, 40, seed=1), normal(40)
        for kind in ("silu", "gelu", "gelu_erf", "gelu_quick", "relu", "sigmoid"):
            agree(ops, lambda o, kind=kind: o.activate(o.constant(x), kind))
            agree(ops, lambda o, kind=kind: o.glu(o.constant(x), o.constant(y), kind))
        for part in (0, 1, 2):
            agree(ops, lambda o, part=part: o.candidates(o.constant(x), 3)[part])
        agree(ops, lambda o: o.decay(o.constant(5 * x), o.constant(w)))
        agree(ops, lambda o: o.rms_norm(o.constant(x), o.constant(w), 1e-2))
        agree(ops, lambda o: o.layer_norm(o.constant(x), o.constant(w), o.constant(w), 1e-2))
        agree(ops, lambda o: o.linear(o.constant(x), o.pack(raw("F16", 33, 40)), o.constant(normal(33))))
        more = normal(5, 33)
        agree(ops, lambda o: o.linear(o.constant(x), o.pack(raw("F16", 33, 40)), None, o.constant(more), "gelu"))

    def test_recurrent_state(self):
        turns = [[(5, -1, 2), (0, 3, 3), (2, -1, 0)], [(3, 2, 2), (2, 0, 1)]]
        for kind, grouped in (("silu", False), (None, True)):
            agree(TorchOps(), lambda o, kind=kind: convolved(o, turns, 24, 4, kind)[1])
            agree(TorchOps(), lambda o, grouped=grouped: ruled(o, turns, (2, 6, 8, 12), grouped)[1], 1e-5)

    def test_rows(self):
        x, other = normal(6, 40), normal(3, 40, seed=1)

        def overlaid(o):
            rows = o.rows(6)
            rows.set(1, o.constant(other), 0, 3)
            rows.clear(2, 1)
            return o.overlay(o.constant(x), rows)

        def put(o):
            return o.put(o.constant(x), o.constant(other), o.constant(np.arange(len(x), dtype=np.int32) % 4 - 1))

        def added(o):
            rows = o.rows(6)
            rows.set(1, o.constant(np.hstack([other, x[: len(other)], other])), 0, 3)
            return o.add_rows(o.constant(x), rows, x.shape[1])

        others = (lambda o: o.fold(o.constant(x), 3), lambda o: o.mean_rows(o.constant(x), 3))
        for run in (overlaid, put, added, *others):
            agree(TorchOps(), run, 2e-7)

    @pytest.mark.parametrize(
        "how", [Routing(3), Routing(2, normalised=False), Routing(3, "sigmoid", scale=2.0, groups=4, used_groups=2)]
    )
    def test_experts(self, how):
        x, logits, bias, more = normal(7, 40), normal(7, 12), normal(12), normal(7, 33)

        def run(o):
            stack = o.pack_experts(raw("F16", 12 * 33, 40), 12)
            routes = o.route(o.constant(logits), how, o.constant(bias), o.constant(bias))
            y = o.experts(o.spread(o.constant(x), routes), stack, routes, o.constant(normal(12, 33)))
            return o.join(y, routes, o.gated(o.constant(more), o.constant(x), o.constant(normal(40))))

        agree(TorchOps(), run)

    def test_clamped_glu(self):
        gate, up = 6 * normal(5, 40), 6 * normal(5, 40, seed=1)
        agree(TorchOps(), lambda o: o.glu(o.constant(gate), o.constant(up), "swiglu_oai"))

    def test_positions_on_axes(self):
        positions, axis = np.array([[3, 500], [7, 2]], np.int32), np.array([0, 1, 1, 0, 1], np.int32)
        turns = (100.0 ** (-np.arange(5) / 5)).astype(np.float32)
        agree(TorchOps(), lambda o: o.rope_table(o.constant(positions), o.constant(turns), 0.5, o.constant(axis)), 2e-7)

    def test_dense_attention(self):
        q, k, v = normal(7, 6, 24), normal(9, 2, 24), normal(9, 2, 24, seed=1)
        first, last = np.array([0, 0, 3, 3, 9, 4, 0], np.int32), np.array([9, 1, 9, 4, 9, 2, 9], np.int32)
        agree(TorchOps(), lambda o: o.attend_dense(*(o.constant(a) for a in (q, k, v, first, last)), scale=0.3), 1e-5)

    def test_dense_attention_in_parts(self):
        q, k, v = normal(6, 2, 24), normal(10, 2, 24), normal(10, 2, 24, seed=1)
        given = (q, k, v, np.int32([0, 1, 0, 2, 4, 0]), np.int32([5, 5, 1, 5, 5, 4]))
        agree(TorchOps(), lambda o: o.attend_dense(*(o.constant(a) for a in given), scale=0.3, parts=2), 1e-5)

    @pytest.mark.parametrize(("rows", "heads"), [(3, 1), (6, 2)])
    def test_dense_attention_with_a_bias(self, rows, heads):
        q, k, v = normal(6, 2, 24), normal(10, 2, 24), normal(10, 2, 24, seed=1)
        given, bias = (q, k, v, np.int32([0, 1, 0, 2, 4, 0]), np.int32([5, 5, 1, 5, 5, 4])), normal(rows, heads, 5)
        bias[1, :, 1:] = -np.inf
        agree(
            TorchOps(),
            lambda o: o.attend_dense(*map(o.constant, given), scale=0.3, parts=2, bias=o.constant(bias)),
            1e-5,
        )

    @pytest.mark.parametrize("pairing", ["neighbours", "halves"])
    def test_rope(self, pairing):
        x, table = normal(5, 2, 24), normal(5, 2, 8)
        agree(TorchOps(), lambda o: o.rope(o.constant(x), o.constant(table), pairing))

    @pytest.mark.parametrize("softcap", [0.0, 3.0])
    @pytest.mark.parametrize("sunk", [False, True])
    @pytest.mark.parametrize("sloped", [False, True])
    def test_attention(self, softcap, sunk, sloped):
        cache = Cache(2, 24, (150, 70))
        rows = [(0, 0, 150), (0, 3, 100), (1, 0, 70), (0, 0, 0), (1, 5, 5)]
        q = normal(5, 6, 24)

        def run(o):
            options = {"scale": 0.3, "softcap": softcap, "sinks": o.constant(normal(6)) if sunk else None}
            falls = Alibi(o.constant(alibi_slopes(6)), o.constant(np.int32([149, 7, 9, 0, 3]))) if sloped else None
            return o.attend(o.constant(q), cache.fill(o), 1, cache.reads(o, rows), alibi=falls, **options)

        agree(TorchOps(), run, 1e-5)
