"""README's exit codes, once for each subcommand where such a failure can be: a line on stderr, nothing on stdout."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from opsin import gguf
from opsin.cli import main
from opsin.errors import BusyError, DeviceError, FileError, ModelError, OutOfMemoryError, RequestError

COMMANDS = [module.__name__.rpartition(".")[2] for module in main._COMMANDS]


def lines(file: Path, tmp: Path) -> dict[str, list[object]]:
    """For each subcommand that reads a file, a line that is right but for the file."""
    return {
        "chat": ["chat", "-m", file, "Hi"],
        "transcribe": ["transcribe", "-m", file, "a.wav"],
        "serve": ["serve", "-m", file, "--port", 0],
        "bench": ["bench", "-m", file, "-p", 2, "-n", 1],
        "inspect": ["inspect", file],
        "convert": ["convert", file, "-o", tmp / "out.gguf"],
        "quantize": ["quantize", file, "-o", tmp / "out.gguf", "Q8_0"],
        "key": ["key", file],
        "merge": ["merge", file, file, "-o", tmp / "out.gguf"],
    }


READING = list(lines(Path(), Path()))


def ends(capsys: pytest.CaptureFixture[str], arguments: list[object]) -> tuple[int, str]:
    """The exit code and the last line that was said; there is no traceback, and nothing on stdout."""
    code = main.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and "internal error" not in err
    return code, err.splitlines()[-1]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPSIN_DEBUG", raising=False)


def test_every_command_that_reads_a_file_is_on_the_list() -> None:
    assert set(COMMANDS) == {*READING, "demo", "cache", "doctor"}


@pytest.mark.parametrize("command", READING)
def test_3_is_a_file_that_is_missing_empty_or_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "page.gguf").write_text("<html>" * 100)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(9))
    for name in ("none.gguf", "empty.gguf", "page.gguf", "cut.gguf"):
        code, said = ends(capsys, lines(tmp_path / name, tmp_path)[command])
        assert code == FileError.exit_code == 3 and name in said, said
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("command", ["chat", "serve", "bench", "convert"])
def test_4_is_a_model_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path = tmp_path / "new.gguf"
    if command == "convert":
        path.mkdir()
        (path / "config.json").write_text(json.dumps({"architectures": ["NeverHeardOf"], "model_type": "never"}))
        (path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    else:
        gguf.write(path, {"general.architecture": "never-heard-of"}, [])
    code, said = ends(capsys, lines(path, tmp_path)[command])
    assert code == ModelError.exit_code == 4 and "never" in said.lower(), said


@pytest.mark.parametrize("command", COMMANDS)
def test_2_is_a_wrong_line(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, said = ends(capsys, [command, "--no-such-option"])
    assert code == RequestError.exit_code == 2
    assert f"opsin {command}: error: " in said and "--no-such-option" in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DeviceError("no"), 5, "no"),
        (BusyError("later"), 6, "later"),
        (MemoryError(), 71, "out of memory"),
        (OutOfMemoryError("memory ran out"), 71, "out of memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), 71, "out of memory"),
        (OSError("/usr/lib/libllvmlite.so: failed to map segment from shared object"), 71, "out of memory"),
        (ImportError("libopenblas.so: cannot allocate memory in static TLS block"), 71, "out of memory"),
        (RuntimeError("can't start new thread"), 71, "out of memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.gguf"), 5, "No space left on device: model.gguf"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), 5, "Too many open files"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), 141, ""),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_machine_fails_at_has_its_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    command: str, error: BaseException, code: int, said: str,
) -> None:  # fmt: skip
    def fail(*_: object) -> int:
        raise error

    module = next(module for module in main._COMMANDS if module.__name__.endswith(command))
    monkeypatch.setattr(module, "run", fail)
    assert main.run([str(word) for word in lines(tmp_path, tmp_path).get(command, [command])]) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == bool(said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_the_machines_fault(
    tiny_file, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, full = tiny_file(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr("opsin.gguf.writer._write_part", fail)
    code, said = ends(capsys, ["quantize", source, "-o", tmp_path / "out.gguf", "Q8_0"])
    assert code == 5 and "No space left on device" in said
    monkeypatch.setattr("PIL.Image.Image.save", fail)
    assert main.run(["demo", "--save", str(tmp_path / "a.png")]) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "transcribe"])  # which takes any number
def test_a_word_too_many_is_named_with_the_usage_of_the_command(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main.run([command, "-h", "many"]) == 0
    capsys.readouterr()
    words = {"inspect": 1, "convert": 1, "merge": 2, "quantize": 3, "chat": 1, "demo": 1, "key": 1}.get(command, 0)
    required = {"convert": ["-o", "x"], "merge": ["-o", "x"], "bench": ["-m", "x"]}.get(command, [])
    assert main.run([command, *required, *["w"] * words, "many"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: opsin {command} ") and "there is no place for 'many'" in err


@pytest.mark.parametrize("command", ["merge", "quantize", "convert"])
def test_a_file_to_read_is_never_written_over(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    if command == "convert":
        source = tmp_path
        target = tmp_path / "model.safetensors"
        (tmp_path / "config.json").write_text("{}")
        target.write_bytes(b"weights")
    else:
        source = target = tmp_path / "in.gguf"
        target.write_bytes(tiny_file().read_bytes())
    link = tmp_path / "link.gguf"
    link.symlink_to(target)
    before = target.read_bytes()
    for out in (target, link):
        words = [word if word != tmp_path / "out.gguf" else out for word in lines(source, tmp_path)[command]]
        code, said = ends(capsys, words)
        assert code == 2 and "to read" in said, said
        assert target.read_bytes() == before
