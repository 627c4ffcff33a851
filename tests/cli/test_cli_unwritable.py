"""Targets that cannot be written: a line, exit code 5 (2 for a wrong name), and nothing under the final name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from opsin_process import COMMAND, environment
from test_cli_errors import assert_one_line
from tiny import tiny_llama
from tiny_sight import tiny_pair

sys.path.insert(0, str(Path(__file__).parents[1] / "convert"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    tiny_pair(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("torch")
    hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")
    folder = tmp_path_factory.mktemp("checkpoint")
    hf_folders.save(folder, "gemma3")
    return folder


def arguments(command, sources, checkpoint, out):
    return {
        "convert": ("convert", checkpoint, "-o", out),
        "convert to a pair": ("convert", checkpoint, "-o", out, "--mmproj", out.with_name("mmproj.gguf")),
        "merge": ("merge", sources / "model.gguf", sources / "mmproj.gguf", "-o", out),
        "quantize": ("quantize", sources / "model.gguf", out, "Q8_0"),
    }[command]


COMMANDS = ("convert", "convert to a pair", "merge", "quantize")


def limited(arguments, most):
    """The command, where no file may have more than `most` bytes: as on a full disk."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment(), check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="limits are Unix's")
@pytest.mark.parametrize("most", [0, 5000, 60000])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, sources, checkpoint, command, most):
    done = limited(arguments(command, sources, checkpoint, tmp_path / "out.gguf"), most)
    assert_one_line(done, 5, "cannot be written", "File too large", "space")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_stood_under_the_name_stays(tmp_path, sources, checkpoint, command):
    (tmp_path / "out.gguf").write_bytes(b"of value")
    done = limited(arguments(command, sources, checkpoint, tmp_path / "out.gguf"), 5000)
    assert done.returncode == 5
    assert (tmp_path / "out.gguf").read_bytes() == b"of value"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_as_target_and_a_folder_that_is_not_there_are_told_before_any_work(
    run, tmp_path, sources, checkpoint, command
):
    (tmp_path / "out.gguf").mkdir()
    done = run(*arguments(command, sources, checkpoint, tmp_path / "out.gguf"))
    assert_one_line(done, 2, "out.gguf is a folder")
    done = run(*arguments(command, sources, checkpoint, tmp_path / "none" / "out.gguf"))
    assert_one_line(done, 2, "there is no folder", "none")
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_or_a_device_is_not_replaced(run, tmp_path, sources, checkpoint, command):
    os.mkfifo(tmp_path / "out.gguf")
    assert_one_line(run(*arguments(command, sources, checkpoint, tmp_path / "out.gguf")), 2, "is no regular file")
    assert (tmp_path / "out.gguf").is_fifo()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_that_may_not_be_written(run, tmp_path, sources, checkpoint, command):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if os.access(closed, os.W_OK):
        closed = Path("/proc/self/fdinfo")  # where nobody can make a file
        if not closed.is_dir():
            pytest.skip("this user may write everywhere")
    assert_one_line(run(*arguments(command, sources, checkpoint, closed / "out.gguf")), 5, "cannot be written")


def test_weights_are_not_overwritten_by_what_is_made_of_them(run, checkpoint):
    weights = checkpoint / "model.safetensors"
    before = weights.stat()
    done = run("convert", checkpoint, "-o", weights)
    assert_one_line(done, 2, "model.safetensors is a file to read")
    assert weights.stat().st_ino == before.st_ino


def test_a_source_that_cannot_be_read_is_no_full_disk(run, tmp_path):
    tiny_llama(tmp_path / "model.gguf")
    cut = (tmp_path / "model.gguf").read_bytes()[:-4000]
    (tmp_path / "model.gguf").write_bytes(cut)
    assert_one_line(run("quantize", tmp_path / "model.gguf", tmp_path / "out.gguf", "Q8_0"), 3, "incomplete")
    assert not (tmp_path / "out.gguf").exists()
