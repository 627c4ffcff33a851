"""What goes wrong is told in one line on stderr, with an exit code that says of what kind it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from opsin import gguf
from opsin.cli import chat, main


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    told = [line for line in done.stderr.splitlines() if "compil" not in line]  # kernels may come first
    assert done.stdout == ""
    assert len(told) == 1, done.stderr
    assert told[0].startswith("opsin: ")
    assert all(word in told[0] for word in words), told[0]
    assert done.returncode == code


def test_a_missing_file(run, tmp_path: Path) -> None:
    assert_one_line(run("chat", "-m", tmp_path / "none.gguf", "Hi"), 3, "none.gguf", "(")


def test_a_folder(run, tmp_path: Path) -> None:
    assert_one_line(run("chat", "-m", tmp_path, "Hi"), 3, str(tmp_path))


def test_a_file_of_another_kind(run, tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("This is no model.")
    assert_one_line(run("chat", "-m", path, "Hi"), 3, "text.gguf")


def test_an_empty_file(run, tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()
    assert_one_line(run("bench", "-m", path), 3, "empty.gguf")


def test_a_cut_file(run, tmp_path: Path, smollm2: Path) -> None:
    path = tmp_path / "cut.gguf"
    with smollm2.open("rb") as file:
        path.write_bytes(file.read(4 << 20))
    assert_one_line(run("chat", "-m", path, "Hi"), 3, "cut.gguf")


def test_an_unknown_family(run, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    gguf.write(path, {"general.architecture": "never-heard-of"}, [])
    assert_one_line(run("chat", "-m", path, "Hi"), 4, "never-heard-of")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-1"),
        ("--top-p", "2"),
        ("--min-p", "nan"),
        ("--temperature", "nan"),
        ("--top-k", "-1"),
        ("--max-tokens", "-2"),
        ("--seed", str(1 << 64)),
    ],
)
def test_a_sampling_option_out_of_range(run, smollm2: Path, option: str, value: str) -> None:
    assert_one_line(run("chat", "-m", smollm2, "Hi", option, value), 2, option.strip("-").replace("-", "_"), value)


@pytest.mark.parametrize("option", [("-t", "0"), ("-n", "-1"), ("-c", "many"), ("--cache-type", "f8"), ("--seed", "x")])
def test_a_wrong_option_is_a_wrong_use(run, option: tuple[str, str]) -> None:
    done = run("chat", "-m", "x.gguf", "Hi", *option)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_empty_question(run, smollm2: Path) -> None:
    assert_one_line(run("chat", "-m", smollm2, stdin=" \n"), 2, "empty")


def test_a_context_beyond_the_model(run, smollm2: Path) -> None:
    assert_one_line(run("chat", "-m", smollm2, "-c", 1_000_000, "Hi"), 2, "context=1000000", "8192")


def test_a_prompt_beyond_the_context(run, smollm2: Path) -> None:
    assert_one_line(run("chat", "-m", smollm2, "-c", 64, "one two three " * 100), 2, "64", "context")


def test_a_wrong_variable(run, smollm2: Path) -> None:
    assert_one_line(run("chat", "-m", smollm2, "Hi", OPSIN_THREADS="two"), 2, "OPSIN_THREADS=two")
    assert_one_line(run("chat", "-m", smollm2, "Hi", OPSIN_ISA="mmx"), 5, "OPSIN_ISA=mmx", "portable")


def test_debugging_shows_where(run, tmp_path: Path) -> None:
    done = run("chat", "-m", tmp_path / "none.gguf", "Hi", OPSIN_DEBUG="1")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


def test_our_own_mistakes_are_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: object) -> int:
        raise ValueError("two\nlines")

    monkeypatch.delenv("OPSIN_DEBUG", raising=False)
    monkeypatch.setattr(chat, "run", fail)
    assert main.run(["chat", "-m", "x.gguf", "Hi"]) == main.INTERNAL
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "internal error: ValueError" in err


def test_too_little_memory_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: object) -> int:
        raise MemoryError

    monkeypatch.delenv("OPSIN_DEBUG", raising=False)
    monkeypatch.setattr(chat, "run", fail)
    assert main.run(["chat", "-m", "x.gguf", "Hi"]) == main.OUT_OF_MEMORY
    assert "out of memory" in capsys.readouterr().err
