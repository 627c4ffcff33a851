"""`opsin chat --audio`: what a sound is told as, and one that cannot be read."""

from __future__ import annotations

import pytest
from tiny_hearing import SECOND, recording, tiny_hearing

from opsin.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hears")
    tiny_hearing(made)
    (made / "a.wav").write_bytes(recording())
    return made


def test_a_sound_is_asked_about(folder, capsys):
    asked = ["--audio", str(folder / "a.wav"), "Who?", "-n", "2", "-c", "256", "--stats"]
    assert main.run(["chat", "-m", str(folder / "model.gguf"), *asked]) == 0
    said = capsys.readouterr().err
    assert f"a.wav: 1.0 seconds, {SECOND} tokens" in said
    assert f"{SECOND} of sounds" in said


def test_what_is_no_sound_ends_with_one_line(folder, capsys):
    (folder / "b.wav").write_bytes(b"no sound at all")
    assert main.run(["chat", "-m", str(folder / "model.gguf"), "--audio", str(folder / "b.wav"), "Who?"]) != 0
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert "b.wav" in said
    assert "of an unknown kind" in said
