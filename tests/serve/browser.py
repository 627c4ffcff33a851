"""A headless Chromium, spoken to over a pipe in its DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path


def find_chromium() -> str | None:
    """A Chromium or Chrome of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One page. `run` evaluates JavaScript in it, promises awaited."""

    def __init__(self, program: str, folder: Path, *more: str) -> None:
        read, to_browser = os.pipe()
        from_browser, write = os.pipe()
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            *more,
        ]
        # The protocol's pipe is descriptors 3 and 4 of the browser.
        shell = f"exec 3<&{read} 4>&{write}; exec {program} {' '.join([*options, *more])} --remote-debugging-pipe "
        self._process = subprocess.Popen(
            ["bash", "-c", shell + f"--user-data-dir={folder} about:blank"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._out, self._in = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._number, self._session = 0, None
        self.problems: list[str] = []  # what scripts threw and what the page's policy forbade
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable")
        self.call("Log.enable")

    def call(self, method: str, **parameters: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            reply = json.loads(self._read())
            self._note(reply.get("method"), reply.get("params", {}))
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]

    def _note(self, method: str | None, told: dict) -> None:
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and told["entry"]["source"] in ("security", "violation", "javascript"):
            self.problems.append(told["entry"]["text"])

    def _read(self) -> bytes:
        data = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        return bytes(data)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, code: str) -> object:
        reply = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, code: str, seconds: float = 120.0) -> object:
        """What `code` gives once it gives something true."""
        end = time.monotonic() + seconds
        while not (value := self.run(code)):
            assert time.monotonic() < end, f"never: {code}"
            time.sleep(0.05)
        return value

    def close(self) -> None:
        self._out.close()
        self._in.close()
        self._process.terminate()
        self._process.wait(120)
