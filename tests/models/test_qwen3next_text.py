"""Qwen 3 Next: matrices of several parts, as files hold them by groups or apart; mistakes; wrong files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, distance, open_decoder, score  # noqa: E402
from vision_mutants import operation  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.models.qwen35 import DeltaBlock  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402

IDS = np.random.default_rng(5).integers(7, checkpoints.VOCABULARY, 60).tolist()
KEYS, WIDTH, GROUP, VALUE = 2, 8, 3, 12  # heads of keys, their width; heads of values of each, and their width


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("qwen3next")


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, IDS)


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("next") / "tiny.gguf", "qwen3next", truth)


def rewritten(source, path, change, keys=None):
    """The file with its tensors changed: change(name, values) gives names and values."""
    with File.open(source) as file:
        held = [(name, FileReader(file, None).values(name)) for name in file.tensors]
        tensors = [NewTensor.of(*new) for name, values in held for new in change(name, values)]
        return write(path, {**file.metadata, **(keys or {})}, tensors)[0]


def apart(name, values):
    """What newer files hold: queries, keys and values of all groups, and their gates."""
    if not name.endswith("ssm_in.weight"):
        return [(name, values)]
    groups = values.reshape(KEYS, -1, values.shape[-1])
    q, k, v, z = np.split(groups, np.cumsum([WIDTH, WIDTH, GROUP * VALUE]), 1)
    layer = name.rsplit(".", 2)[0]
    flat = np.concatenate([part.reshape(-1, values.shape[-1]) for part in (q, k, v)])
    return [(f"{layer}.attn_qkv.weight", flat), (f"{layer}.attn_gate.weight", z.reshape(-1, values.shape[-1]))]


def test_a_file_whose_parts_stand_apart_gives_the_same_bits(ops, path, tmp_path, expected):
    newer = rewritten(path, tmp_path / "newer.gguf", apart)
    ours = score(ops, open_decoder(ops, newer), Sequence(IDS))
    assert np.array_equal(ours, score(ops, open_decoder(ops, path), Sequence(IDS)))
    assert distance(ours, expected) < 1e-4


def delta(**wrong):
    return lambda patch, decoder: replace(decoder, delta=replace(decoder.delta, **wrong))


def swapped(names):
    """Two matrices of each recurrent layer exchanged."""

    def apply(patch, decoder):
        for block in decoder.blocks:
            if isinstance(block, DeltaBlock):
                first, second = (getattr(block.delta, name) for name in names)
                patch.setattr(block.delta, names[0], second)
                patch.setattr(block.delta, names[1], first)
        return decoder

    return apply


MUTANTS = {
    "value heads are tiled": delta(grouped=False),
    "what is written and what is kept are exchanged": swapped(("ssm_alpha", "ssm_beta")),
    "nothing turns": operation("rope", lambda right, ops, x, table, pairing: x),
    "pairs are neighbours": operation("rope", lambda right, ops, x, table, pairing: right(ops, x, table, "neighbours")),
    "one expert more": lambda patch, decoder: replace(decoder, routing=replace(decoder.routing, used=3)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, path, expected, mutant):
    wrong = MUTANTS[mutant](monkeypatch, open_decoder(ops, path))
    assert distance(score(ops, wrong, Sequence(IDS)), expected) > 1e-2


@pytest.mark.parametrize(
    ("name", "said"),
    [("ssm_in", "blk.0.ssm_in.weight makes 175 values, where 176"), ("ssm_ba", "blk.0.ssm_ba.weight makes 11 values")],
)
def test_a_matrix_of_another_size_is_refused(ops, path, tmp_path, name, said):
    wrong = rewritten(
        path, tmp_path / "wrong.gguf", lambda own, values: [(own, values[:-1] if f".{name}." in own else values)]
    )
    with pytest.raises(OpsinError, match=said), File.open(wrong) as file:
        load_decoder(file, FileReader(file, ops))


def test_a_matrix_that_is_missing_is_named(ops, path, tmp_path):
    wrong = rewritten(path, tmp_path / "wrong.gguf", lambda own, values: [] if "ssm_ba" in own else [(own, values)])
    with pytest.raises(OpsinError, match=r"has no tensor blk.0.ssm_ba.weight"), File.open(wrong) as file:
        load_decoder(file, FileReader(file, ops))
