"""`opsin transcribe`: recordings by path and from stdin, to stdout and into files."""

from __future__ import annotations

import json
import re
import sys
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_hearing import recording, tiny_hearing
from tiny_speech import published, write_by_hand

from opsin.cli import main, transcribe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("speech")
    write_by_hand(made / "model.gguf", published())
    time = np.arange(25_000) / 16_000
    soundfile.write(made / "one.wav", np.random.default_rng(0).standard_normal(25_000) * 0.1, 16_000)
    soundfile.write(made / "two.flac", np.sin(2 * np.pi * 300 * time) * np.sin(9 * time), 16_000)
    return made


def test_segments_are_lines(run, folder):
    done = run("transcribe", "-m", folder / "model.gguf", folder / "one.wav", "-l", "en", "--temperature", 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and "Traceback" not in done.stderr


def test_inspect_tells_what_it_hears_and_that_nothing_is_left_unread(run, folder):
    told = json.loads(run("inspect", folder / "model.gguf", "--json").stdout)
    audio = told["audio"]
    assert (audio["projector"], audio["writes"], audio["token_rate"]) == ("whisper", True, None)
    assert audio["seconds"] == 2 * audio["memory_rows"] / 100
    assert told["notes"] == []


def test_several_become_files_of_their_own(run, folder, tmp_path):
    sounds = [folder / "one.wav", folder / "two.flac"]
    options = ["-l", "en", "--temperature", 0, "-d", tmp_path]
    assert run("transcribe", "-m", folder / "model.gguf", *sounds, *options, "-f", "json").returncode == 0
    made = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert sorted(made) == ["one.json", "two.json"]
    assert made["one.json"]["segments"] != made["two.json"]["segments"]
    assert made["one.json"]["duration"] == pytest.approx(25_000 / 16_000, abs=1e-3)


def transcribed(folder, *words):
    assert main.run(["transcribe", "-m", f"{folder}/model.gguf", "-l", "en", "--temperature", "0", *words]) == 0


def test_what_comes_in_becomes_subtitles_and_words(folder, monkeypatch, capfd):
    def told(*more):
        data = (folder / "one.wav").read_bytes()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(data)))
        transcribed(folder, "-", *more)
        return capfd.readouterr().out

    assert told("-f", "srt").startswith("1\n00:00:0")
    assert told("-f", "vtt").startswith("WEBVTT\n\n00:00:0")
    made = json.loads(told("-f", "json", "--words", "--task", "translate"))
    assert made["task"] == "translate" and all(word["start"] <= word["end"] for word in made["words"])
    assert "".join(word["word"] for word in made["words"]).split() == made["text"].split() != []


@pytest.mark.parametrize(("names", "of"), [(["one.wav"], "2 s of sound"), (["one.wav", "two.flac"], "2 sounds")])
def test_a_terminal_sees_how_long_it_takes(folder, monkeypatch, capfd, names, of):
    lines = []
    monkeypatch.setattr(transcribe, "draw", lines.append)
    monkeypatch.setattr(transcribe, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    transcribed(folder, *(f"{folder}/{name}" for name in names))
    assert any(re.fullmatch(rf"\d+% of {of}, \d+ s left", line) for line in lines)
    assert lines[-1] == ""


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["nowhere.wav"], 1, "nowhere.wav: cannot be read"),
        (["one.wav", "-l", "tlh"], 1, "knows no language 'tlh'"),
        (["one.wav", "one.wav", "-d", "."], 1, "two sounds would be written to one.txt"),
        (["one.wav", "-d", "nowhere"], 1, "nowhere is no folder"),
    ],
)
def test_what_cannot_be_is_one_line(run, folder, more, code, words):
    sounds = [folder / name if name == "one.wav" else name for name in more]
    done = run("transcribe", "-m", folder / "model.gguf", *sounds)
    assert words in done.stderr and len(done.stderr.strip().splitlines()) <= 2
    assert done.returncode != 0


def test_a_model_that_is_talked_to_writes_text_and_json_and_refuses_subtitles(run, tmp_path):
    tiny_hearing(tmp_path)
    (tmp_path / "a.wav").write_bytes(recording())
    asked = ["transcribe", "-m", tmp_path / "model.gguf", tmp_path / "a.wav", "--temperature", 0, "-f"]
    told = json.loads(run(*asked, "json").stdout)
    assert sorted(told) == ["duration", "language", "task", "text"] and told["duration"] == 1.0
    assert run(*asked, "txt").stdout.split() == told["text"].split() != []
    refused = run(*asked, "srt")
    assert refused.returncode and not refused.stdout
    assert "model writes down what was said, and not when" in refused.stderr.strip().splitlines()[-1]
