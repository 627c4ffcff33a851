"""Mistakes in decoders with experts, each of which the comparison with transformers must see; and wrong files."""

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

IDS = np.random.default_rng(5).integers(7, checkpoints.VOCABULARY, 100).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("qwen3moe")


@pytest.fixture
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("experts") / "tiny.gguf", "qwen3moe", truth)


def routing(**wrong):
    return lambda patch, decoder: replace(decoder, routing=replace(decoder.routing, **wrong))


def exchanged(patch, decoder):
    gates = decoder.weights.blk[2].ffn.gates
    gates.gate, gates.up = gates.up, gates.gate
    return decoder


def shifted(right, ops, logits, how, *rest):
    """The experts are numbered from another one on."""
    routes = right(ops, logits, how, *rest)
    return right(ops, ops.constant(np.roll(logits.numpy(), 1, 1)), how, *rest) if routes else routes


def equal_shares(right, ops, x, routes, residual=None, **options):
    same = ops.constant(np.full(routes.shares.shape, 0.5, np.float32))
    return right(ops, x, replace(routes, shares=same), residual, **options)


MUTANTS = {
    "one expert less": routing(used=1),
    "one expert more": routing(used=3),
    "a sigmoid": routing(gating="sigmoid"),
    "shares are not divided by their sum": routing(normalised=False),
    "shares are twice as large": routing(scale=2.0),
    "the best experts of groups": routing(groups=2, used_groups=1),
    "gate and up are exchanged in a layer": exchanged,
    "other experts": operation("route", shifted),
    "all experts of a row count alike": operation("join", equal_shares),
    "shares multiply what goes in": lambda patch, decoder: _first(patch, decoder),
    "nothing goes past the experts": operation(
        "join", lambda right, ops, x, routes, residual=None, **options: right(ops, x, routes, None, **options)
    ),
}


def _first(patch, decoder):
    ffn = type(decoder.weights.blk[0].ffn)
    right = ffn.__call__
    patch.setattr(ffn, "__call__", lambda *args, **options: right(*args, **options, shares_first=True))
    return decoder


@pytest.fixture(scope="module", params=["qwen3moe", "mixtral"])
def mixture(request, tmp_path_factory):
    """A file, and what transformers says of it."""
    truth = checkpoints.make(request.param)
    path = tmp_path_factory.mktemp(request.param) / "tiny.gguf"
    return checkpoints.save(path, request.param, truth), checkpoints.logits(truth, IDS)


def test_logits_equal_transformers(ops, mixture):
    path, theirs = mixture
    assert distance(score(ops, open_decoder(ops, path), Sequence(IDS)), theirs) < 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, mixture, mutant):
    path, theirs = mixture
    wrong = MUTANTS[mutant](monkeypatch, open_decoder(ops, path))
    assert distance(score(ops, wrong, Sequence(IDS)), theirs) > 1e-3


def rewritten(path, target, *, keys=None, change=None):
    """The file with other keys, or with tensors that `change` gives by their names."""
    with File.open(path) as file:
        metadata = {**file.typed, **(keys or {})}
        tensors = {name: file.read(name).view(np.float32).reshape(info.shape) for name, info in file.tensors.items()}
    tensors = {name: (change or {}).get(name, lambda values: values)(values) for name, values in tensors.items()}
    write(target, metadata, [NewTensor.of(name, values) for name, values in tensors.items() if values is not None])
    return target


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"expert_used_count": 7}, "7 of 6 experts"),
        ({"expert_used_count": 0}, "expert_used_count is 0"),
        ({"expert_count": 0}, "says no qwen3moe.expert_count"),
        ({"expert_count": 7}, "ffn_gate_inp"),
        ({"expert_count": -3}, "2 of -3 experts"),
        ({"expert_gating_func": 9}, "expert_gating_func is 9"),
        ({"expert_weights_scale": float("nan")}, "expert_weights_scale"),
        ({"expert_group_count": 4}, "of 4 groups"),
        ({"expert_group_count": 6, "expert_group_used_count": 1}, "in 1 of 6 groups"),
        ({"expert_group_count": 2, "expert_group_used_count": 3}, "3 of 2 groups"),
    ],
)
def test_keys_that_mean_nothing_are_refused(ops, path, tmp_path, keys, said):
    wrong = rewritten(path, tmp_path / "wrong.gguf", keys={f"qwen3moe.{key}": value for key, value in keys.items()})
    with pytest.raises(OpsinError, match=said):
        open_decoder(ops, wrong)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ffn_down_exps.weight", lambda v: v[:5], "ffn_down_exps.weight"),
        ("ffn_down_exps.weight", lambda v: v[:, :60], "ffn_down_exps.weight"),
        ("ffn_down_exps.weight", lambda v: v[0], "experts of 1 parts were expected"),
        ("ffn_up_exps.weight", lambda v: v[:, :, :60], "ffn_up_exps.weight"),
        ("ffn_gate_exps.weight", lambda v: v[:, :39], "ffn_gate_exps.weight"),
        ("ffn_gate_exps.weight", lambda v: None, "ffn_gate_exps.weight"),
        ("ffn_gate_inp.weight", lambda v: v[:4], "ffn_gate_inp.weight"),
    ],
)
def test_tensors_that_do_not_go_together_are_refused(ops, path, tmp_path, name, change, said):
    wrong = rewritten(path, tmp_path / "wrong.gguf", change={f"blk.2.{name}": change})
    with pytest.raises(OpsinError, match=said):
        open_decoder(ops, wrong)


def test_gate_and_up_in_one_tensor_are_those_apart(ops, path, tmp_path):
    """To the bit, in every layer that has them."""
    with File.open(path) as file:
        read = {name: file.read(name).view(np.float32).reshape(info.shape) for name, info in file.tensors.items()}
        fused = {name: values for name, values in read.items() if "_gate_exps" not in name and "_up_exps" not in name}
        for layer in (0, 2):
            both = [read[f"blk.{layer}.ffn_{part}_exps.weight"] for part in ("gate", "up")]
            fused[f"blk.{layer}.ffn_gate_up_exps.weight"] = np.concatenate(both, 1)
        write(tmp_path / "fused.gguf", file.typed, [NewTensor.of(name, values) for name, values in fused.items()])
    one, other = open_decoder(ops, path), open_decoder(ops, tmp_path / "fused.gguf")
    np.testing.assert_array_equal(score(ops, other, Sequence(IDS)), score(ops, one, Sequence(IDS)))
