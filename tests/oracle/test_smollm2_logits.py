"""SmolLM2's logits against `transformers` with the same weights; `bench/kl.py` does it on all of every passage."""

from __future__ import annotations

import numpy as np
import pytest
from smollm2 import sequences

import opsin

ROWS = 152  # from the start of each of the four passages

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]
llama_reference = pytest.importorskip("llama_reference", reason="needs torch and transformers")


@pytest.fixture(scope="module")
def divergences(smollm2):
    truth, model = llama_reference.load(smollm2), opsin.load(smollm2)
    from divergence import divergence

    return {
        name: divergence(llama_reference.logits(truth, ids[:ROWS]), model.logits(ids[:ROWS]))
        for name, ids in sequences(smollm2).items()
    }


def test_passages_are_varied_and_complete(divergences):
    assert set(divergences) == {"code", "english", "languages", "mixed"}
    assert all(len(rows) == ROWS for rows in divergences.values())


def test_mean_divergence_from_transformers_is_below_a_hundredth(divergences):
    rows = np.concatenate(list(divergences.values()))
    assert rows.min() > -1e-9
    assert rows.mean() < 0.01


def test_no_passage_is_far_off(divergences):
    means = {name: float(rows.mean()) for name, rows in divergences.items()}
    assert max(means.values()) < 0.02, means
