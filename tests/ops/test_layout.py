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
