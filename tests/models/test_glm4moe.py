"""What only GLM's experts have: a bias of the choice, groups, a scale, an expert that all share, layers left aside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, distance, open_decoder, score  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402

IDS = np.random.default_rng(5).integers(7, checkpoints.VOCABULARY, 100).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("glm4moe")


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, IDS)


@pytest.fixture
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("glm") / "tiny.gguf", "glm4moe", truth)


def routing(**wrong):
    return lambda patch, decoder: replace(decoder, routing=replace(decoder.routing, **wrong))


def part(change):
    def apply(patch, decoder):
        change(patch, decoder.weights.blk[2].ffn)
        return decoder

    return apply


MUTANTS = {
    "a softmax": routing(gating="softmax"),
    "no groups": routing(groups=1, used_groups=1),
    "the best group alone": routing(used_groups=1),
    "shares are not divided by their sum": routing(normalised=False),
    "shares are not scaled": routing(scale=1.0),
    "no bias of the choice": part(lambda patch, ffn: patch.setattr(ffn, "choice", None)),
    "the bias changes shares, too": part(lambda patch, ffn: patch.setattr(ffn.router, "bias", ffn.choice)),
    "nothing that all rows share": part(lambda patch, ffn: patch.setattr(ffn, "shared", None)),
    "the whole head turns": lambda patch, decoder: replace(
        decoder, frequencies=decoder.frequencies.ops.constant(np.float32(5e4 ** (-np.arange(16) / 16)))
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, path, expected, mutant):
    wrong = MUTANTS[mutant](monkeypatch, open_decoder(ops, path))
    assert distance(score(ops, wrong, Sequence(IDS)), expected) > 1e-3


def with_guesses(path, target, *, guessing=1, stored=4):
    """The file with a layer behind its own that guesses another token."""
    with File.open(path) as file:
        keys = {**file.typed, "glm4moe.block_count": stored, "glm4moe.nextn_predict_layers": guessing}
        made = [file.copy_tensor(name) for name in file.tensors]
        norm = np.ones(checkpoints.WIDTH, np.float32)
        made += [NewTensor.of(f"blk.3.{name}.weight", norm) for name in ("attn_norm", "nextn.enorm", "nextn.hnorm")]
        write(target, keys, made)
    return target


def test_layers_that_guess_further_tokens_are_left_aside(ops, path, expected, tmp_path):
    with File.open(with_guesses(path, tmp_path / "more.gguf")) as file:
        decoder = load_decoder(file, FileReader(file, ops))
    assert len(decoder.weights.blk) == 3
    assert distance(score(ops, decoder, Sequence(IDS)), expected) <= 1e-4


@pytest.mark.parametrize(("guessing", "stored"), [(4, 4), (-1, 3), (0, 4)])
def test_other_counts_of_layers_are_refused(ops, path, tmp_path, guessing, stored):
    wrong = with_guesses(path, tmp_path / "wrong.gguf", guessing=guessing, stored=stored)
    with pytest.raises(OpsinError, match=r"nextn_predict_layers|holds|no tensor"), File.open(wrong) as file:
        load_decoder(file, FileReader(file, ops))


def test_a_shared_expert_with_a_gate_of_its_own(ops, path, tmp_path):
    """Its outcome times the sigmoid of a number that each row makes: half of it, where that is 0."""
    with File.open(path) as file:
        made = [file.copy_tensor(name) for name in file.tensors]
        large = np.zeros((1, checkpoints.WIDTH), np.float32)
        made += [NewTensor.of(f"blk.{i}.ffn_gate_inp_shexp.weight", large) for i in (1, 2)]
        write(tmp_path / "gated.gguf", file.typed, made)
    plain, gated = open_decoder(ops, path), open_decoder(ops, tmp_path / "gated.gguf")
    for one, other in zip(plain.weights.blk[1:], gated.weights.blk[1:], strict=True):
        x = ops.constant(np.random.default_rng(0).standard_normal((5, checkpoints.WIDTH)).astype(np.float32))
        half = one.ffn.shared(x, "silu", None).numpy() / 2  # the sigmoid of 0
        np.testing.assert_allclose(other.ffn.shared(x, "silu", None).numpy(), half, rtol=1e-6)
