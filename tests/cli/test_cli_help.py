"""Help comes at once: nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from opsin.cli import main
from opsin.engine.sampling import Sampling


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("numpy", "llvmlite", "numba", "jinja2", "tokenizers", "regex", "torch", "huggingface_hub", "httpx2")
    code = f"import sys, opsin.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [module.__name__.rpartition(".")[2] for module in main._COMMANDS])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main.run([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: opsin {command}")
    assert err == ""
    assert main.run(["help", command]) == 0
    assert capsys.readouterr() == (out, "")


def test_the_help_of_chat_tells_the_defaults_of_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["chat", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split()).rpartition("sampling:")[2]
    own = Sampling()
    for name in ("temperature", "top_k", "top_p", "min_p"):
        rest = told.partition(f"--{name.replace('_', '-')}")[2].partition("(default: the model's, or ")[2]
        assert rest.startswith(f"{getattr(own, name)})"), name


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == main.run(["help"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("usage: opsin [-h]") and out.count("usage: opsin [-h]") == 2


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["caht"], "there is no command 'caht' (did you mean chat?)"),
        (["Serve", "-m", "x"], "there is no command 'Serve' (did you mean serve?)"),
        (["help", "quantise"], "there is no command 'quantise' (did you mean quantize?)"),
        (["model.gguf"], "there is no command 'model.gguf' (there are chat, transcribe, serve, "),
        ([""], "there is no command '' (there are chat, "),
    ],
)
def test_a_command_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str], typed: list[str], said: str) -> None:
    assert main.run(typed) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"opsin: {said}") and err.count("\n") == 1


def test_the_version_is_that_of_the_package(run) -> None:
    import opsin

    assert run("--version").stdout == f"opsin {opsin.__version__}\n"


def test_no_command_is_a_wrong_use(run) -> None:
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "COMMAND" in done.stderr
