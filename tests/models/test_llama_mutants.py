"""Mistakes that llama implementations make: each must be seen by the comparison with transformers.

The list is the point. A mutant that survives means that the comparison in `test_llama.py` proves less than it says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import Shape, weights, write_llama
from vision_mutants import operation

from opsin.engine.runner import Limits, Runner
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.nn.parts import Embedding
from opsin.ops import PAGE

pytest.importorskip("torch")
llama_truth = pytest.importorskip("llama_truth", reason="needs transformers")

IDS = np.random.default_rng(5).integers(0, Shape().vocabulary, 150).tolist()
LIMITS = Limits(rows=100, outputs=100, sequences=1, context=256, pages=4)


@pytest.fixture(scope="module")
def expected():
    return llama_truth.logits(llama_truth.llama_truth(Shape()), IDS)


@pytest.fixture
def decoder(device, tiny_file):
    return open_decoder(device, tiny_file())


def open_decoder(device, path):
    with File.open(path) as file:
        return load_decoder(file, FileReader(file, device.eager()))


def distance(device, decoder, expected):
    """How far the logits are off, as a share of the largest."""
    runner = Runner(device, decoder, LIMITS, "f32")
    return np.abs(runner.score(IDS, [2, 0, 3]) - expected).max() / np.abs(expected).max()


def filling(change):
    """A mutant of what a step is told: change(inputs, rows, start)."""

    def apply(patch, decoder):
        fill = Runner._fill

        def mutant(self, row, number, rows, ids, start, pages, held):
            fill(self, row, number, rows, ids, start, pages, held)
            change(self.program.inputs, slice(row, row + len(ids)), start)

        patch.setattr(Runner, "_fill", mutant)
        return decoder

    return apply


def block(layer, part, wrong):
    """A mutant of one part of one layer."""

    def apply(patch, decoder):
        patch.setattr(decoder.weights.blk[layer], part, wrong)
        return decoder

    return apply


def heads(**wrong):
    return lambda patch, decoder: replace(decoder, heads=replace(decoder.heads, **wrong))


def _add(inputs, name, rows, value):
    inputs[name][rows] += value


def _drop_last_page(inputs, rows, start):
    inputs["last"][rows] = np.maximum(1, inputs["last"][rows] // PAGE * PAGE)


def _cannot_see_before_its_chunk(inputs, rows, start):
    inputs["first"][rows] = start


MUTANTS = {
    "a row does not see itself": filling(lambda inputs, rows, start: _add(inputs, "last", rows, -1)),
    "a row sees the next one": filling(lambda inputs, rows, start: _add(inputs, "last", rows, 1)),
    "a row does not see the first one": filling(lambda inputs, rows, start: _add(inputs, "first", rows, 1)),
    "the last page is dropped": filling(_drop_last_page),
    "a chunk does not see the chunks before": filling(_cannot_see_before_its_chunk),
    "positions start anew in each chunk": filling(lambda inputs, rows, start: _add(inputs, "positions", rows, -start)),
    "positions shift by one in the second chunk": filling(
        lambda inputs, rows, start: _add(inputs, "positions", rows, int(start > 0))
    ),
    "keys of a chunk land one row too late": filling(
        lambda inputs, rows, start: _add(inputs, "slots", rows, int(start > 0))
    ),
    "no RoPE": operation("rope", lambda right, ops, x, table, pairing: x),
    "RoPE pairs halves": operation("rope", lambda right, ops, x, table, pairing: right(ops, x, table, "halves")),
    "RoPE turns the other way": operation(
        "rope_table", lambda right, ops, positions, f, scale: right(ops, positions, ops.constant(-f.numpy()), scale)
    ),
    "gate and up are swapped": operation("glu", lambda right, ops, gate, up, kind: right(ops, up, gate, kind)),
    "gelu for silu": operation("glu", lambda right, ops, gate, up, kind: right(ops, gate, up, "gelu")),
    "scores are not scaled": heads(scale=1.0),
    "scores are scaled by width over heads": heads(scale=16**-0.5),
    "scores are capped": heads(softcap=10.0),
    "eps of 1e-5": lambda patch, decoder: replace(decoder, eps=1e-5),
    "no norm before attention in one layer": block(1, "attn_norm", lambda x, eps: x),
    "no norm before the feed-forward in one layer": block(1, "ffn_norm", lambda x, eps: x),
    "the last layer is left out": lambda patch, decoder: (decoder.weights.blk.pop(), decoder)[1],
    "embeddings are scaled": lambda patch, decoder: (
        patch.setattr(Embedding, "__call__", lambda self, ids: 8.0 * ids.ops.embed(ids, self.weight)), decoder
    )[1],
}  # fmt: skip


def test_without_a_mutant_the_logits_are_right(device, decoder, expected):
    assert distance(device, decoder, expected) <= 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, device, decoder, expected, mutant):
    mutated = MUTANTS[mutant](monkeypatch, decoder)
    assert distance(device, mutated, expected) > 1e-3


def test_heads_grouped_in_the_wrong_order_are_seen(device, expected, tmp_path):
    """Query head h reads KV head h // 2. Files whose heads stand as if it were h % 2 give other logits."""
    shape, wrong = Shape(), [0, 2, 1, 3]
    values = weights(shape)
    for layer in range(shape.layers):
        q, out = f"blk.{layer}.attn_q.weight", f"blk.{layer}.attn_output.weight"
        values[q] = values[q].reshape(4, 32, -1)[wrong].reshape(values[q].shape)
        values[out] = values[out].reshape(-1, 4, 32)[:, wrong].reshape(values[out].shape)
    path = write_llama(tmp_path / "grouped.gguf", shape, values)
    assert distance(device, open_decoder(device, path), expected) > 1e-3
