"""What every device keeps of weights, before one is opened."""

from __future__ import annotations

import pytest

from opsin.ops import Raw
from opsin.ops.layout import weight_bytes
from opsin.quants import BY_NAME, TYPES


@pytest.mark.parametrize("name", [kind.name for kind in TYPES.values()])
def test_a_weight_takes_the_bytes_that_were_foretold(ops, name):
    kind, outputs, inputs = BY_NAME[name], 70, 512
    weight = ops.pack(Raw("w", kind.id, (outputs, inputs), lambda first, last, into: into.fill(0)))
    assert 0 <= weight.bytes - weight_bytes(kind, outputs, inputs) < 512, "but for what kernels may read past the end"


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "I8", "Q8_0"])
def test_nor_more_where_it_may_be_rounded(ops, name):
    kind, outputs, inputs = BY_NAME[name], 70, 512
    raw = Raw("w", kind.id, (outputs, inputs), lambda first, last, into: into.fill(0))
    foretold = weight_bytes(kind, outputs, inputs, rounded=True)
    assert -0.02 * foretold < ops.pack(raw, rounded=True).bytes - foretold < 512, "a CPU that keeps floats needs less"
