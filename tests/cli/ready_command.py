"""The command in processes that are split off one that has imported everything: each would import for a second.

What runs is a process like any other: its own arguments, environment, folder and streams, ended by `opsin.cli.main`.
Only what is imported, and when, differs; tests of that start the command themselves.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from opsin_process import COMMAND

MESSAGE = 1 << 16  # bytes that a request may have
AT_IMPORT = ("NUMBA_", "OPENBLAS_", "OMP_", "PYTHON")  # variables that are read when something is imported
PATIENCE = 800.0  # seconds


class ReadyCommand:
    """A process that waits to become the command, again and again."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        with theirs:
            command = [sys.executable, "-X", "utf8", __file__, str(theirs.fileno())]
            environment = {**os.environ, "PYTHONUTF8": "1"}
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )

    def run(self, arguments: Sequence[str], stdin: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """The command's end, and what it said."""
        asked = json.dumps([list(arguments), dict(env), str(Path.cwd())]).encode()
        if len(asked) > MESSAGE or self._wants_imports(env):
            return subprocess.run(
                [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, encoding="utf-8", env=env,
                timeout=PATIENCE, check=False,
            )  # fmt: skip
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode("utf-8"))
            given.seek(0)
            socket.send_fds(self._control, [asked], [file.fileno() for file in (given, out, err)])
            code = json.loads(self._control.recv(MESSAGE))
            for file in (out, err):
                file.seek(0)
            said, complained = (file.read().decode("utf-8") for file in (out, err))
        return subprocess.CompletedProcess([*COMMAND, *arguments], code, said, complained)

    def _wants_imports(self, env: Mapping[str, str]) -> bool:
        mine = {**os.environ, "PYTHONUTF8": "1"}
        return any(name.startswith(AT_IMPORT) and env.get(name) != mine.get(name) for name in {*env, *mine})

    def close(self) -> None:
        self._control.close()
        self._process.wait(PATIENCE)


def wait_for_requests(control: socket.socket) -> None:
    """Become the command once a request, one after another, until the other side is gone."""
    while True:
        asked, streams, _, _ = socket.recv_fds(control, MESSAGE, 3)
        if not asked:
            return
        child = os.fork()
        if child == 0:
            control.close()
            _become(streams, *json.loads(asked))
        for stream in streams:
            os.close(stream)
        control.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _become(streams: Sequence[int], arguments: Sequence[str], env: Mapping[str, str], folder: str) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["opsin", *arguments]
    try:
        importlib.import_module("opsin.cli.main").main()
    except BaseException:  # noqa: BLE001 - as Python ends
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)


def _import_everything() -> None:
    import opsin

    for found in pkgutil.walk_packages(opsin.__path__, "opsin."):
        if not found.name.endswith("__main__"):
            with suppress(ImportError):  # an extra that is not installed
                importlib.import_module(found.name)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _import_everything()
    wait_for_requests(socket.socket(fileno=int(sys.argv[1])))
