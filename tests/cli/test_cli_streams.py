"""What the command writes where: a terminal gets no control characters, an output that takes no more ends in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hostile import EVIL, controls, evil_model, on_terminal
from opsin_process import COMMAND, environment
from tiny import tiny_llama

from opsin import gguf
from opsin.cli.streams import cut, visible

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs Linux")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    return evil_model(tmp_path_factory.mktemp("evil"))


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    template = "{{ raise_exception(messages[0].content + '" + EVIL.replace("\\", "") + "') }}"
    return tiny_llama(
        tmp_path_factory.mktemp("refusing") / "model.gguf", metadata={"tokenizer.chat_template": template}
    )


# Characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, \ttabs\n", "plain, \ttabs\n"),
        ("Grüße, 世界 🙂 👨\u200d👩\u200d👧 می\u200cخواهم l\u00a0'eau　！", None),
        ("\x1b[2J\x07\r", "\\x1b[2J\\x07\\r"),
        ("\x9b31m\u202e\u2066\u200e\ufeff\u2028", "\\x9b31m\\u202e\\u2066\\u200e\\ufeff\\u2028"),
        ("caf\udce9 \U000e0041 \ue000", "caf\\udce9 \\U000e0041 \\ue000"),
        ("a\r\nb", "a\nb"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert visible(text) == (text if shown is None else shown)
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize(
    ("text", "columns", "left"),
    [("abcdef", 4, "abcd"), ("世界世界", 5, "世界"), ("e\u0301e\u0301e\u0301", 2, "e\u0301e\u0301"), ("ab", 9, "ab")],
)
def test_a_line_is_cut_where_the_terminal_ends(text, columns, left):
    assert cut(text, columns) == left


# Terminals


def commands(evil: Path, refusing: Path, tmp: Path) -> dict[str, tuple[object, ...]]:
    """A line for each subcommand in which a stranger's words come up."""
    folder = tmp / f"{EVIL}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama\\u001b[2J\\u202e"}')
    loud = ("--temperature", 9, "--top-k", 0, "--top-p", 1, "--min-p", 0, "--seed", 1)
    return {
        "chat: the answer": ("chat", "-m", evil, "-n", 300, "--ignore-eos", *loud, "Hi"),
        "chat: the template": ("chat", "-m", refusing, f"Hi{EVIL}"),
        "chat: a picture's name": ("chat", "-m", evil, "--image", tmp / EVIL, "Hi"),
        "transcribe": ("transcribe", "-m", tmp / f"no{EVIL}", "a.wav"),
        "serve": ("serve", "-m", evil, "--port", 0, "-c", 64, "-np", 1),
        "serve: an option": ("serve", "-m", evil, "--media-path", tmp / f"no{EVIL}"),
        "demo": ("demo", f"WORD{EVIL}"),
        "bench": ("bench", "-m", evil, "-p", 4, "-n", 2),
        "inspect": ("inspect", evil),
        "convert": ("convert", folder, "-o", tmp / f"{EVIL}.gguf"),
        "quantize": ("quantize", evil, "-o", tmp / f"q{EVIL}.gguf", "Q8_0"),
        "quantize: a type": ("quantize", evil, tmp / "x.gguf", EVIL),
        "merge": ("merge", evil, evil, "-o", tmp / "x.gguf"),
        "key": ("key", tmp / f"no{EVIL}"),
        "cache": ("cache",),
        "doctor": ("doctor",),
        "an option": ("inspect", f"--{EVIL}"),
        "a value": ("chat", "-t", EVIL),
        "a command": (EVIL,),
    }


NAMES = list(commands(Path(), Path(), Path("/tmp")))


def test_every_command_is_on_the_list():
    from opsin.cli import main

    assert {module.__name__.rpartition(".")[2] for module in main._COMMANDS} <= {name.split(":")[0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_gets_no_control_characters(evil, refusing, tmp_path, name):
    variables = {"OPSIN_CACHE": str(tmp_path / EVIL)} if name in ("cache", "doctor") else {}
    end = "OPENAI_BASE_URL" if name == "serve" else ""
    code, said = on_terminal(*commands(evil, refusing, tmp_path)[name], end=end, **variables)
    assert "Traceback" not in said and "internal error" not in said, said
    assert controls(said) == [], said
    assert "\\x" in said, said
    assert code in (0, 2, 3, 4, -15, 143), said


def test_a_conversation_gets_none_either(evil):
    said = on_terminal("chat", "-m", evil, "-n", 3, keys="/im\n/image no.png\n/image\n/bye\n")[1]
    assert controls(said) == [], said
    assert "there is no /im; did you mean /image?" in said
    assert "/image FILE: say which picture" in said


def test_a_pipe_gets_the_answer_as_it_is(run, evil):
    loud = ("--temperature", 9, "--top-k", 0, "--top-p", 1, "--min-p", 0, "--seed", 1, "--ignore-eos")
    done = run("chat", "-m", evil, "-n", 300, *loud, "Hi")
    assert done.returncode == 0
    assert any(not c.isprintable() and c != "\n" for c in done.stdout)
    assert "\x1b" not in done.stderr


# Closed and full outputs


def shell(redirection: str, *arguments: object, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command with a redirection of bash, which comes last and so decides."""
    line = f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True,
        env=environment(), timeout=600, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def told(stderr: str) -> list[str]:
    """Lines that are no notes of loading."""
    return [line for line in stderr.splitlines() if "compil" not in line and "opsin-nano, the model" not in line]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("plain") / "model.gguf")


def speaking(plain: Path, tmp: Path) -> dict[str, tuple[object, ...]]:
    """A line for each subcommand that writes to stdout."""
    return {
        "chat": ("chat", "-m", plain, "-n", 3, "Hi"),
        "demo": ("demo", "--seed", 3),
        "bench": ("bench", "-m", plain, "-p", 4, "-n", 2),
        "inspect": ("inspect", plain),
        "quantize": ("quantize", plain, "-o", tmp / "q.gguf", "Q8_0"),
        "cache": ("cache", "--json"),
        "doctor": ("doctor", "--json"),
        "help": ("--help",),
        "help of one": ("help", "chat"),
        "version": ("--version",),
    }


@pytest.mark.parametrize("name", list(speaking(Path(), Path())))
@pytest.mark.parametrize(("redirection", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left")])
def test_an_output_that_takes_nothing_ends_in_one_line(plain, tmp_path, name, redirection, reason):
    code, out, err = shell(redirection, *speaking(plain, tmp_path)[name])
    assert (code, out) == (5, ""), err
    assert len(told(err)) == 1 and f"opsin: the output cannot be written: {reason}" in told(err)[0], err


NOISY = ("chat", "-n", 3, "--temperature", 0, "Hi")  # says something on stderr


@pytest.fixture(scope="module")
def usual():
    """What it answers where somebody can read its notes."""
    _, out, err = shell("", *NOISY)
    assert err
    return out


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(true)", "<&-", "<&- 2>&-"])
def test_notes_that_nobody_can_read_end_no_answer(usual, redirection):
    code, out, err = shell(redirection, *NOISY)
    assert code == 0 and ("2>" not in redirection or err == "")
    assert out == usual != ""


@pytest.mark.parametrize("redirection", ["", "2>&-", "2>/dev/full", "2> >(true)", "<&-", "<&- 2>&-"])
def test_notes_that_nobody_can_read_end_no_writing(plain, tmp_path, redirection):
    code, out, err = shell(redirection, "quantize", plain, "-o", tmp_path / "q.gguf", "Q4_K")
    assert code == 0 and out.startswith(f"{tmp_path / 'q.gguf'} has ")
    assert (err == "") == ("2>" in redirection)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_an_error_that_nobody_can_read_has_its_exit_code(tmp_path, redirection):
    assert shell(redirection, "chat", "-m", tmp_path / "none.gguf", "Hi") == (3, "", "")
    assert shell(redirection, "inspect") == (2, "", "")


@pytest.mark.parametrize("name", ["chat", "inspect", "help"])
def test_a_reader_who_left_ends_it_quietly(plain, tmp_path, name):
    code, _, err = shell("| true", *speaking(plain, tmp_path)[name])
    assert code in (0, 141)  # 0 where all fitted into the pipe before its reader left
    assert told(err) == []
    command = [*COMMAND, *map(str, speaking(plain, tmp_path)[name])]
    code = (
        f"import os, subprocess; r, w = os.pipe(); os.close(r); print(subprocess.run({command!r}, stdout=w).returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout == "141\n"
    assert told(done.stderr) == []


@pytest.mark.parametrize(
    ("redirection", "reason"), [("<&-", "empty"), ("< /dev/null", "empty"), ("0> /dev/null", "stdin")]
)
def test_a_question_that_cannot_be_read_is_told(plain, redirection, reason):
    code, out, err = shell(redirection, "chat", "-m", plain)
    assert (code, out) == (2, "")
    assert len(told(err)) == 1 and reason in told(err)[0]


def test_no_note_goes_into_a_file_that_was_opened_as_number_two(plain, tmp_path):
    code, out, _ = shell("2>&-", "quantize", plain, "-o", tmp_path / "q.gguf", "Q4_K")  # with notes of fallbacks
    assert code == 0 and "rows of" not in out
    with gguf.File.open(tmp_path / "q.gguf") as file:
        assert file.tensors
