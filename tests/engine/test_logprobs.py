"""Log-probabilities of chosen ids, beside torch's log-softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin.engine.logprobs import logprobs


@pytest.mark.parametrize("most", [0, 1, 5, 200, 500])
def test_log_probabilities_equal_log_softmax(most: int) -> None:
    logits = (10 * np.random.default_rng(most).standard_normal(200)).astype(np.float32)
    told = logprobs(logits, 17, most)
    oracle = torch.log_softmax(torch.from_numpy(logits).double(), 0)
    assert told.chosen == (17, pytest.approx(oracle[17].item(), abs=1e-9))
    values, ids = oracle.sort(descending=True)
    assert [i for i, _ in told.likeliest] == ids[:most].tolist()
    assert [p for _, p in told.likeliest] == pytest.approx(values[:most].tolist(), abs=1e-9)


def test_large_logits_do_not_overflow() -> None:
    told = logprobs(np.array([1e4, 0.0, 1e4], np.float32), 0, 3)
    assert told.chosen[1] == pytest.approx(-np.log(2))
    assert [i for i, _ in told.likeliest] == [0, 2, 1]
