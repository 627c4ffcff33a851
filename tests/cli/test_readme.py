"""What README says can be typed: its Python and its commands run, and its files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from opsin_process import COMMAND, environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for language, text in fences if language == kind]


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if "opsin " in line and not line.startswith("bash ")]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that hears, and something to hear."""
    pytest.importorskip("torch")
    from tiny_speech import published, write_by_hand

    made = tmp_path_factory.mktemp("speech")
    write_by_hand(made / "whisper.gguf", published())
    soundfile.write(made / "talk.mp3", np.random.default_rng(0).standard_normal(25_000) * 0.1, 16_000)
    return made


@pytest.fixture
def folder(tmp_path: Path, smollm2: Path, speech: Path) -> Path:
    """A folder where model.gguf is a model, and the examples."""
    (tmp_path / "model.gguf").symlink_to(smollm2)
    for path in speech.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_there_is_something_to_try() -> None:
    assert len(blocks("python")) >= 2
    assert len(commands()) >= 4


@pytest.mark.model
@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(folder: Path, code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.model
@pytest.mark.parametrize("line", commands())
def test_commands_run(folder: Path, line: str) -> None:
    command = line.replace("opsin ", shlex.join(COMMAND) + " ")
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_first_commands_are_those_of_the_tree() -> None:
    lines = [line.split("  #")[0].strip() for line in blocks("sh")[0].splitlines()]
    wanted = [["bash", f"tools/{name}"] for name in ("first-answer", "first-transcript", "test")]
    assert [line.split()[0:2] for line in lines] == wanted
    assert all((ROOT / line.split()[1]).is_file() for line in lines)
    assert "tools/test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_table_of_speed_has_its_markers_once() -> None:
    assert README.count("<!-- bench:text -->") == README.count("<!-- /bench:text -->") == 1


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_the_tree_names_folders_that_exist() -> None:
    tree = next(block for block in blocks("") if block.startswith("src/opsin/"))
    names = re.findall(r"^(\s*)([\w/.]+)", tree, re.MULTILINE)
    for indent, name in names[1:]:
        assert (ROOT / ("src/opsin" if indent else ".") / name).exists(), name


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_the_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|tools|docs|bench)/[\w/.-]+)`", text)
    assert all((ROOT / name).exists() for name in named), [name for name in named if not (ROOT / name).exists()]
