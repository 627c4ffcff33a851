"""Text as a stranger might put it into a file, to do something to the terminal that shows it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

from opsin_process import COMMAND, environment
from tiny import tiny_llama

EVIL = "a\x1b]0;owned\x07\x1b[2J\r\x9b31mb\u202ecod\u2066\u2028\x7f\x08"
REDRAW = "\r\x1b[K"  # ours: the line of a terminal that changes


def evil_model(folder: Path) -> Path:
    """A model that answers, whose names and texts are all hostile."""
    folder.mkdir(exist_ok=True)
    metadata = {"general.name": EVIL, f"evil.{EVIL}": EVIL, "evil.number": 3, "general.license": [EVIL]}
    return tiny_llama(folder / f"{EVIL}.gguf", metadata=metadata)


def on_terminal(*arguments: object, keys: str = "", end: str = "", **variables: str) -> tuple[int, str]:
    """Exit code and all that a terminal got of the command. It is ended when it has said `end`."""
    near, far = pty.openpty()
    command = [*COMMAND, *map(str, arguments)]
    child = subprocess.Popen(
        command, stdin=far, stdout=far, stderr=far, env=environment(TERM="dumb", **variables), start_new_session=True
    )
    os.close(far)
    os.write(near, keys.encode())
    seen, deadline = b"", time.monotonic() + 300
    try:
        while time.monotonic() < deadline:
            if select.select([near], [], [], 1)[0]:
                try:
                    piece = os.read(near, 65536)
                except OSError:  # the other side is closed
                    break
                seen += piece
            if end and end.encode() in seen:
                child.terminate()
            if not select.select([near], [], [], 0)[0] and child.poll() is not None:
                break
        return child.wait(60), seen.decode(errors="replace")
    finally:
        child.kill()
        child.wait()
        os.close(near)


def controls(said: str) -> list[str]:
    """What of it controls a terminal, or hides."""
    rest = said.replace(REDRAW, "").replace("\r\n", "\n")
    return [c for c in rest if c not in "\n\t" and not c.isprintable()]
