"""The command as a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from opsin_process import COMMAND, environment

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """run("chat", ..., stdin="...", OPSIN_DEBUG="1") starts the command and waits."""

    def start(*arguments: object, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, encoding="utf-8",
            env=environment(**variables), timeout=800, check=False,
        )  # fmt: skip

    return start
