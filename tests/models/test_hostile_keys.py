"""Metadata of strangers: a decoder is refused with an error of ours, or computes something; nothing else happens."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, score  # noqa: E402
from checkpoints import CHECKPOINTS  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.ops.reference import Reference  # noqa: E402

VALUES = [
    None, 0, -1, 3, 2**31, 2**40, 1e30, float("nan"), "yarn", [0, 0, 0, 0], [1.5, 2.0], ["a"], [2**31 - 1] * 4,
]  # fmt: skip
MORE = [
    "rope.scaling.type", "rope.scaling.factor", "attention.scale", "rope.dimension_count", "final_logit_softcapping",
    "rope.scale_linear", "attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa",
    "rope.dimension_sections",
]  # fmt: skip


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_wrong_keys_are_refused_or_harmless(tmp_path, family):
    ops, refused, ran = Reference(), 0, 0
    with File.open(checkpoints.save(tmp_path / "good.gguf", family, checkpoints.make(family))) as file:
        typed = file.typed
        tensors = [NewTensor(name, info.shape, info.type, file.read(name)) for name, info in file.tensors.items()]
    keys = dict.fromkeys([*(k for k in typed if k.startswith(f"{family}.")), *(f"{family}.{key}" for key in MORE)])
    for key in keys:
        for value in VALUES:
            changed = {**typed, key: value}
            path = write(tmp_path / "bad.gguf", {k: v for k, v in changed.items() if v is not None}, tensors)[0]
            try:
                with File.open(path) as file:
                    decoder = load_decoder(file, FileReader(file, ops))
                assert np.asarray(score(ops, decoder, Sequence([1, 2, 3]))).shape == (3, decoder.vocabulary)
                ran += 1
            except OpsinError as error:
                assert len(str(error)) < 400
                refused += 1
    assert refused > 50
    assert ran > 30
