"""Ctrl-C, a reader who leaves, and a conversation on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opsin_process import COMMAND, environment

pytestmark = pytest.mark.model
LONG = ("--temperature", "0", "--ignore-eos", "-n", "4000", "Tell me a very long story.")


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )


def test_ctrl_c_ends_an_answer_at_once(smollm2: Path) -> None:
    child = start("chat", "-m", smollm2, *LONG)
    assert child.stdout is not None
    assert child.stdout.read(1)
    time.sleep(0.3)
    began = time.perf_counter()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    seconds = time.perf_counter() - began
    assert child.returncode == 130
    assert b"Traceback" not in errors
    assert seconds < 2  # 0.3 on a quiet machine: bench/polite.py


@pytest.mark.parametrize("library", ["_multiarray_umath", "llvmlite"])
def test_ctrl_c_while_it_starts_is_quiet_too(smollm2: Path, library: str) -> None:
    child = start("chat", "-m", smollm2, *LONG)
    maps = Path(f"/proc/{child.pid}/maps")
    deadline = time.perf_counter() + 60
    while library not in maps.read_text() and time.perf_counter() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"Traceback" not in errors


def test_a_reader_who_leaves_ends_the_answer(smollm2: Path) -> None:
    child = start("chat", "-m", smollm2, *LONG)
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.read(1)
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=30) == 141
    assert b"Broken" not in errors
    assert b"Traceback" not in errors


class Terminal:
    """`opsin chat` on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self.end, inner = pty.openpty()
        command = [*COMMAND, "chat", *map(str, arguments)]
        self.child = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment(TERM="dumb"), start_new_session=True
        )
        os.close(inner)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def until(self, text: str, seconds: float = 60) -> str:
        """Everything up to `text`, which must come."""
        deadline = time.perf_counter() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.end], [], [], max(0, deadline - time.perf_counter()))
            assert ready, f"{text!r} did not come after {self.seen!r}"
            self.seen += os.read(self.end, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self.end)


@pytest.fixture
def terminal(smollm2: Path) -> Iterator[Terminal]:
    opened = Terminal("-m", smollm2, "--temperature", "0", "-n", "400", "--ignore-eos")
    yield opened
    opened.close()


def test_ctrl_c_in_a_conversation_ends_the_answer_and_not_the_conversation(terminal: Terminal) -> None:
    terminal.until("> ")
    terminal.type("Tell me a long story.\n")
    time.sleep(1)
    terminal.child.send_signal(signal.SIGINT)
    terminal.until("(stopped)", 10)
    terminal.until("> ")
    time.sleep(0.5)  # a signal between the prompt and the wait for keys is seen with the next key only
    terminal.child.send_signal(signal.SIGINT)
    terminal.until("Ctrl-D leaves")
    terminal.until("> ")
    terminal.type("/clear\n")
    terminal.until("> ")
    terminal.type("/exit\n")
    assert terminal.child.wait(timeout=20) == 0


def test_ctrl_d_leaves_a_conversation(terminal: Terminal) -> None:
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.child.wait(timeout=20) == 0
