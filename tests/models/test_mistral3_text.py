"""Mistral Small's decoder: the tiny Llama, which transformers proves, under the name that newer files give it."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from opsin.errors import ModelError

pytest.importorskip("torch")
pixtral_truth = pytest.importorskip("pixtral_truth", reason="needs transformers")

from tiny import tiny_llama  # noqa: E402


def test_logits_are_those_of_the_same_decoder(tmp_path):
    paths = [tiny_llama(tmp_path / "one.gguf"), pixtral_truth.write_text(tmp_path / "other.gguf")]
    found = []
    for path in paths:
        with opsin.load(path, threads=2) as model:
            found.append(model.logits(list(range(7, 90))))
    assert np.array_equal(*found)


def test_a_model_that_scales_its_queries_is_refused(tmp_path):
    path = pixtral_truth.write_text(tmp_path / "later.gguf", **{"attention.temperature_scale": 0.1})
    with pytest.raises(ModelError, match="temperature_scale is not 0.*Ministral 3 not yet"):
        opsin.load(path)
