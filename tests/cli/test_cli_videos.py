"""`opsin chat` about videos: files as options, and on stderr which of their frames are looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_sight import tiny_pair

sys.path.append(str(Path(__file__).parents[1] / "media"))
from made_videos import made_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    tiny_pair(folder)
    (folder / "clip.mp4").write_bytes(made_video(20))
    return folder


def test_a_video_is_asked_about_and_what_it_takes_is_told(run, folder):
    given = ("chat", "-m", folder / "model.gguf", "--video", folder / "clip.mp4", "--video-fps", 1, "-n", 4)
    done = run(*given, "--ignore-eos", "What?")
    assert done.returncode == 0, done.stderr
    assert "clip.mp4: 64 x 48 pixels" in done.stderr
    assert "2 of 20 frames of a video of 2.0 seconds" in done.stderr


def test_a_file_that_is_no_video_ends_in_a_line(run, folder):
    (folder / "no.mp4").write_bytes(b"nothing")
    done = run("chat", "-m", folder / "model.gguf", "--video", folder / "no.mp4", "What?")
    assert done.returncode != 0
    assert "no.mp4: of an unknown kind" in done.stderr
