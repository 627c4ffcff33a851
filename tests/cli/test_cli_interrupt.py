"""Ctrl-C, a reader who leaves, and a conversation on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from opsin_process import COMMAND, environment
from waiting import PATIENCE, wait_for

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
    child.send_signal(signal.SIGINT)
    rest, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert b"Traceback" not in errors
    assert len(rest) < 4000  # of some 16,000. How soon it ends is timed by bench/polite.py


@pytest.mark.parametrize("library", ["_multiarray_umath", "llvmlite"])
def test_ctrl_c_while_it_starts_is_quiet_too(smollm2: Path, library: str) -> None:
    child = start("chat", "-m", smollm2, *LONG)
    maps = Path(f"/proc/{child.pid}/maps")
    wait_for(lambda: library in maps.read_text())
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=PATIENCE)
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
    assert child.wait(timeout=PATIENCE) == 141
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

    def until(self, text: str, seconds: float = PATIENCE) -> str:
        """Everything up to `text`, which must come."""
        deadline = time.perf_counter() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.end], [], [], max(0, deadline - time.perf_counter()))
            assert ready, f"{text!r} did not come after {self.seen!r}"
            self.seen += os.read(self.end, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def answers(self) -> None:
        """Wait until it has written more than an echo of what was typed."""
        while len(self.seen) < 300:
            self.seen += os.read(self.end, 65536).decode(errors="replace")

    def interrupt(self, text: str) -> str:
        """Everything up to what is said of Ctrl-C. A signal just before it waits for keys is seen with the next one."""
        for _ in range(60):
            self.child.send_signal(signal.SIGINT)
            with suppress(AssertionError):
                return self.until(text, 2)
        raise AssertionError(f"{text!r} never came after {self.seen!r}")

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self.end)


@pytest.fixture
def terminal(smollm2: Path) -> Iterator[Terminal]:
    opened = Terminal("-m", smollm2, "--temperature", "0", "-n", "4000", "--ignore-eos")
    yield opened
    opened.close()


def test_ctrl_c_in_a_conversation_ends_the_answer_and_not_the_conversation(terminal: Terminal) -> None:
    terminal.until("> ")
    terminal.type("Tell me a long story.\n")
    terminal.answers()
    terminal.child.send_signal(signal.SIGINT)
    terminal.until("(stopped)")
    terminal.until("> ")
    terminal.interrupt("Ctrl-D leaves")
    terminal.until("> ")
    terminal.type("/clear\n")
    terminal.until("> ")
    terminal.type("/exit\n")
    assert terminal.child.wait(timeout=PATIENCE) == 0


def test_ctrl_d_leaves_a_conversation(terminal: Terminal) -> None:
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.child.wait(timeout=PATIENCE) == 0
