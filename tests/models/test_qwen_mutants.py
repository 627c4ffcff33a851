"""Mistakes in the decoders of Qwen 2, Qwen 3 and InternLM 2: each must be seen by the comparison with transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, distance, open_decoder, score  # noqa: E402

from opsin.ops.cpu import Operations  # noqa: E402

IDS = np.random.default_rng(5).integers(7, checkpoints.VOCABULARY, 100).tolist()


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "internlm2"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def truth(family):
    return checkpoints.make(family)


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, IDS)


@pytest.fixture
def ops(device):
    return device.eager()


@pytest.fixture
def decoder(ops, family, truth, tmp_path):
    return open_decoder(ops, checkpoints.save(tmp_path / "tiny.gguf", family, truth))


def attention(change):
    """A mutant of the attention of one layer."""

    def apply(patch, decoder):
        change(patch, decoder.weights.blk[1].attn)
        return decoder

    return apply


def heads(**wrong):
    return lambda patch, decoder: replace(decoder, heads=replace(decoder.heads, **wrong))


def _without(*names):
    def change(patch, part):
        for name in names:
            owner, _, last = name.rpartition(".")
            patch.setattr(getattr(part, owner) if owner else part, last, None)

    return attention(change)


def _exchanged(one, other):
    def change(patch, part):
        first, second = getattr(part, one), getattr(part, other)
        patch.setattr(part, one, second)
        patch.setattr(part, other, first)

    return attention(change)


def _glu(patch, decoder):
    right = Operations.glu
    patch.setattr(Operations, "glu", lambda self, gate, up, kind: right(self, gate, up, "gelu"))
    return decoder


def _frequencies(decoder, base):
    pairs = decoder.heads.width // 2
    return decoder.frequencies.ops.constant((base ** (-np.arange(pairs) / pairs)).astype(np.float32))


MUTANTS = {
    "other pairs turn": lambda patch, decoder: replace(
        decoder, pairing="neighbours" if decoder.pairing == "halves" else "halves"
    ),
    "scores are not scaled": heads(scale=1.0),
    "eps of 1e-5": lambda patch, decoder: replace(decoder, eps=1e-5),
    "keys and values are exchanged": _exchanged("attn_k", "attn_v"),
    "GELU": _glu,
    "frequencies of base 10000": lambda patch, decoder: replace(decoder, frequencies=_frequencies(decoder, 1e4)),
    "qwen2: no bias of queries": _without("attn_q.bias"),
    "qwen2: no bias of keys": _without("attn_k.bias"),
    "qwen2: no bias of values": _without("attn_v.bias"),
    "qwen3: no norm of queries": _without("attn_q_norm"),
    "qwen3: no norm of keys": _without("attn_k_norm"),
    "qwen3: norms of queries and keys are exchanged": _exchanged("attn_q_norm", "attn_k_norm"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, family, ops, decoder, expected, mutant):
    of, _, _ = mutant.rpartition(": ")
    if of and of != family:
        pytest.skip(f"a part of {of}")
    wrong = MUTANTS[mutant](monkeypatch, decoder)
    assert distance(score(ops, wrong, Sequence(IDS)), expected) > 1e-3
