"""States of several layers of a tower, and maps of other sizes."""

from __future__ import annotations

import numpy as np
import pytest
from memory_decoder import Made
from test_vit import SHAPE, tensors

from opsin.nn.states import select, shrunk
from opsin.nn.vit import Vit, VitWeights, attention_spans


def test_states_of_several_layers_stand_side_by_side(device):
    random = np.random.default_rng(1)
    given = random.standard_normal((2, 50, SHAPE.values)).astype(np.float32)
    source = Made(device.eager(), tensors())
    tower = Vit(source.ops, VitWeights.read(source, "v"), SHAPE)
    spans = attention_spans(tower.ops, [0, 50], 2)
    states = [tower.run(tower.embed(given), [spans] * count).numpy() for count in (1, 2)]
    assert np.array_equal(select(tower, given, [2]).numpy(), states[1])
    assert np.array_equal(select(tower, given, [2, 1]).numpy(), np.concatenate(states[::-1], 1))


@pytest.mark.parametrize(("size", "wanted"), [((9, 7), (5, 6)), ((9, 9), (9, 4)), ((3, 8), (13, 3)), ((4, 4), (1, 1))])
def test_maps_are_shrunk_as_torch_does_it(size, wanted):
    torch = pytest.importorskip("torch")
    given = np.random.default_rng(0).standard_normal((2, *size, 5)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(given).permute(0, 3, 1, 2), list(wanted), mode="bilinear")
    assert np.abs(shrunk(given, *wanted) - theirs.permute(0, 2, 3, 1).numpy()).max() < 1e-5
