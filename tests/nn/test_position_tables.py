"""Tables of positions for pictures of other shapes: as torch resizes a picture."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.nn.position_tables import interpolated, stretched

WAYS = {
    "from corner to corner": (interpolated, {"mode": "bilinear", "align_corners": True}),
    "linear": (lambda *given: stretched(*given, "linear"), {"mode": "bilinear", "align_corners": False}),
    "cubic": (lambda *given: stretched(*given, "cubic"), {"mode": "bicubic", "align_corners": False}),
    "averaged": (
        lambda *given: stretched(*given, "averaged"), {"mode": "bilinear", "align_corners": False, "antialias": True}
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("side", "high", "wide"), [(5, 5, 5), (5, 2, 12), (6, 7, 1), (1, 3, 4), (48, 30, 55)])
def test_a_table_is_stretched_as_torch_does_it(way, side, high, wide):
    torch = pytest.importorskip("torch")
    ours, options = WAYS[way]
    given = np.random.default_rng(3).standard_normal((side * side, 8)).astype(np.float32)
    square = torch.from_numpy(given.reshape(1, side, side, 8)).permute(0, 3, 1, 2).double()
    theirs = torch.nn.functional.interpolate(square, (high, wide), **options)
    wanted = theirs[0].permute(1, 2, 0).reshape(high * wide, 8).numpy()
    made = ours(given, high, wide)
    assert made.dtype == np.float32
    assert np.abs(made - wanted).max() < 2e-6
