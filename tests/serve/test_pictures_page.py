"""What docs/pictures.md says can be typed: all of it runs, against a tiny model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_server import running
from tiny_sight import tiny_pair

import opsin

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for language, text in fences if language == kind]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    tiny_pair(made, metadata={"general.sampling.temp": 0.0})  # the same answers each time
    for name in ("scene.png", "one.jpg"):
        shutil.copy(ROOT / "examples" / name, made)
    return made


@pytest.fixture(scope="module")
def port(folder: Path):
    with (
        opsin.load(folder / "model.gguf", threads=2, context=512, sequences=4) as model,
        running(lambda: model) as made,
    ):
        yield made.port


def typed(folder: Path, arguments: list[str]) -> str:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_answer(folder):
    lines = [line for line in blocks("sh")[0].splitlines() if line]
    assert len(lines) == 2
    for line in lines:
        command = line.replace("opsin ", f"{sys.executable} -m opsin ", 1)
        assert typed(folder, ["bash", "-c", command + " -n 8"])


def test_the_python_runs_as_it_stands(folder):
    said = typed(folder, [sys.executable, "-c", "".join(blocks("python")[:-1])])
    assert "Usage(" in said and "<start_of_image>" in said


def test_serve_is_started_as_it_says(folder):
    (line,) = blocks("sh")[1].splitlines()
    assert line == "opsin serve -m model.gguf --port 8080"


def test_curl_gets_an_answer(folder, port):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    (command,) = blocks("sh")[2:]
    said = typed(folder, ["bash", "-c", "curl -s " + command.removeprefix("curl ").replace("8080", str(port))])
    assert '"role":"assistant"' in said and '"image_tokens":16' in said


def test_the_client_of_openai_streams(folder, port):
    code = blocks("python")[-1].replace("8080", str(port))
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
