"""The pictures in examples/ are those that the script draws, and each has questions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from opsin.media.decode import open_picture

ROOT = Path(__file__).parents[2]


def test_the_examples_are_what_the_script_draws(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "draw_examples.py", tmp_path], check=True)
    kept, drawn = ({path.name for path in folder.iterdir()} for folder in (ROOT / "examples", tmp_path))
    assert kept == drawn | {"README.md", "sense.flac"}  # and a recording
    questions = json.loads((ROOT / "examples" / "questions.json").read_text(encoding="utf-8"))
    assert questions == json.loads((tmp_path / "questions.json").read_text(encoding="utf-8"))
    pictures = {each["picture"] for each in questions}
    assert len(pictures) == 12 and pictures | {"questions.json"} == drawn
    for name in pictures:
        ours, again = (open_picture(folder / name) for folder in (ROOT / "examples", tmp_path))
        assert ours.size == (384, 384) and not ours.notes
        # Another version of Pillow may smooth letters a little otherwise.
        assert np.abs(ours.pixels.astype(int) - again.pixels).mean() < 1
