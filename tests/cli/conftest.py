"""The command as a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from opsin_process import environment
from ready_command import ReadyCommand

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def ready_command() -> Iterator[ReadyCommand]:
    made = ReadyCommand()
    yield made
    made.close()


@pytest.fixture
def run(ready_command: ReadyCommand) -> Run:
    """run("chat", ..., stdin="...", OPSIN_DEBUG="1") starts the command and waits."""

    def start(*arguments: object, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return ready_command.run([*map(str, arguments)], stdin, environment(**variables))

    return start


@pytest.fixture
def ends(run: Run) -> Callable[..., tuple[int, str]]:
    """ends("-m", ...) starts `opsin serve`, which must end by itself: its exit code, and the last line it said."""

    def start(*arguments: object) -> tuple[int, str]:
        done = run("serve", "--port", 0, *arguments)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        return done.returncode, done.stderr.splitlines()[-1]

    return start
