"""The recipe runs through all its stages, and learns."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

from training.retrain import BRIEF, QUICK, quick


@pytest.mark.timeout(1200)  # half a minute alone on a machine; this much leaves room for others beside it
def test_a_brief_run_of_all_stages_lowers_the_loss(tmp_path: Path) -> None:
    """What is learned of colours, `python -m training.retrain --quick` shows."""
    assert [stage.name for stage in BRIEF] == [stage.name for stage in QUICK]
    shown = quick(tmp_path, stages=BRIEF, asked=11)
    assert shown.last_loss < 0.8 * shown.first_loss
