"""What only gpt-oss has: sinks, windows of every other layer, a ramp between pairs, clamped gates, biases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, distance, open_decoder, score  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.models import gpt_oss as family  # noqa: E402
from opsin.nn import rope  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402

IDS = np.random.default_rng(5).integers(7, checkpoints.VOCABULARY, 100).tolist()


@pytest.fixture(scope="module")
def truth():
    """Of gates so large that some are clamped."""
    model = checkpoints.make("gpt-oss")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.experts.gate_up_proj.mul_(4)
    return model


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, IDS)


@pytest.fixture
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("gpt-oss") / "tiny.gguf", "gpt-oss", truth)


def test_logits_equal_transformers(ops, path, expected):
    assert distance(score(ops, open_decoder(ops, path), Sequence(IDS)), expected) <= 1e-4


def part(change):
    """A mutant of a layer's parts, made in place."""

    def apply(patch, ops, path):
        decoder = open_decoder(ops, path)
        change(patch, decoder.weights.blk[1])
        return decoder

    return apply


def glu(wrong):
    def apply(patch, ops, path):
        right = Operations.glu
        patch.setattr(Operations, "glu", lambda self, gate, up, kind: wrong(right, self, gate, up, kind))
        return open_decoder(ops, path)

    return apply


def _clipped(ops, x, low, high):
    return ops.constant(np.clip(x.numpy(), low, high))


def with_ramp_of_whole_numbers(patch, ops, path):
    right = rope._yarn
    patch.setattr(rope, "_yarn", lambda *args, whole: right(*args, whole=True))
    return open_decoder(ops, path)


def windows(**wrong):
    return lambda patch, ops, path: replace(open_decoder(ops, path), **wrong)


def of_other_layers(patch, ops, path):
    right = family.GptOss._place
    patch.setattr(family.GptOss, "_place", lambda self, layer: right(self, layer ^ 1))
    return open_decoder(ops, path)


def _swapped(right, self, gate, up, kind):
    return right(self, up, gate, kind)


MUTANTS = {
    "no sinks in a layer": part(lambda patch, block: patch.setattr(block.attn, "sinks", None)),
    "the ramp of yarn is rounded": with_ramp_of_whole_numbers,
    "cosines do not grow": lambda patch, ops, path: replace(
        open_decoder(ops, path), rope=replace(open_decoder(ops, path).rope, scale=1.0)
    ),
    "no windows": windows(window=0),
    "windows of a row more": windows(window=25),
    "windows of the other layers": of_other_layers,
    "an ordinary gate": glu(lambda right, self, gate, up, kind: right(self, gate, up, "silu")),
    "a slope of 1.702 alone": glu(lambda right, self, gate, up, kind: right(self, gate, up, "gelu_quick")),
    "gates are clamped below": glu(lambda r, self, gate, up, kind: r(self, _clipped(self, gate, -0.5, 9), up, kind)),
    "what is gated is clamped sooner": glu(
        lambda r, self, gate, up, kind: r(self, gate, _clipped(self, up, -2, 2), kind)
    ),
    "gates and what they gate are exchanged": glu(_swapped),
    "no bias of the router": part(lambda patch, block: patch.setattr(block.ffn.router, "bias", None)),
    "no bias of gates": part(lambda patch, block: patch.setattr(block.ffn.gates.gate, "bias", None)),
    "no bias of what is gated": part(lambda patch, block: patch.setattr(block.ffn.gates.up, "bias", None)),
    "no bias of the outcome": part(lambda patch, block: patch.setattr(block.ffn.down, "bias", None)),
    "no bias of attention": part(lambda patch, block: patch.setattr(block.attn.attn_output, "bias", None)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, path, expected, mutant):
    wrong = MUTANTS[mutant](monkeypatch, ops, path)
    assert distance(score(ops, wrong, Sequence(IDS)), expected) > 1e-3


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("attention__sliding_window", -1, "sliding_window"),
        ("expert_count", 0, "expert_count"),
        ("expert_used_count", 6, "6 of 5 experts"),
    ],
)
def test_keys_that_mean_nothing_are_refused(ops, truth, tmp_path, key, value, said):
    with pytest.raises(OpsinError, match=said):
        open_decoder(ops, checkpoints.save(tmp_path / "wrong.gguf", "gpt-oss", truth, **{key: value}))


def test_a_file_without_windows_sees_all(ops, truth, path, tmp_path):
    """And one layer alone, which has a window."""
    assert {name: g.window for name, g in open_decoder(ops, path).groups.items()} == {"self": 0, "window": 24}
    whole = checkpoints.save(tmp_path / "whole.gguf", "gpt-oss", truth, attention__sliding_window=0)
    assert {name: g.layers for name, g in open_decoder(ops, whole).groups.items()} == {"self": 4}
    alone = checkpoints.make("gpt-oss", layers=1)
    decoder = open_decoder(ops, checkpoints.save(tmp_path / "one.gguf", "gpt-oss", alone))
    assert {name: g.window for name, g in decoder.groups.items()} == {"self": 24}
    assert distance(score(ops, decoder, Sequence(IDS)), checkpoints.logits(alone, IDS)) <= 1e-4
