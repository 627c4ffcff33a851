"""The short version of the recipe learns."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

from training.retrain import quick


@pytest.mark.timeout(1200)  # two minutes alone on a machine; this much leaves room for others beside it
def test_short_recipe_lowers_the_loss_and_learns_colours(tmp_path: Path) -> None:
    """Three stages, one after the other, and questions in shades that were not trained."""
    shown = quick(tmp_path)
    assert shown.last_loss < 0.7 * shown.first_loss
    assert shown.colour > 2 * shown.chance
