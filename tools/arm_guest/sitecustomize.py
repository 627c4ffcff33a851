"""Read at each start of Python in the guest of emulate_arm.py: the machine below compiles its kernels, unemulated.

They are the instructions that the guest would compile itself, in seconds where it takes a minute. Tests of compiling
and of the cache of kernels (test_compiler.py, test_code_cache.py) mean a compiler of their own, and some fail.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import subprocess
import sys
import threading
import types
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opsin.ops.cpu.code import Kernel
    from opsin.ops.cpu.isa import Isa

NAME = "opsin.ops.cpu.compiler"
ROOT = Path(__file__).parents[2]
_LOCK = threading.Lock()


class CompilerBelow(types.ModuleType):
    """Stands for NAME, which is imported when more is asked of it. One process below compiles, until this one ends."""

    def __init__(self, python: str) -> None:
        super().__init__(NAME)
        self.python, self.below, self.own = python, None, None

    def compile_object(self, kernel: Kernel, isa: Isa) -> tuple[str, bytes]:
        """Symbol and object, by the process below; of kernels that tests invent, by this one."""
        if not (ROOT / f"src/opsin/ops/cpu/kernels/{kernel.module}.py").exists():
            return self.real().compile_object(kernel, isa)
        asked = {"module": kernel.module, "options": dict(kernel.options), "isa": asdict(isa)}
        with _LOCK:
            self.below = self.below or _start(self.python)
            print(json.dumps(asked), file=self.below.stdin, flush=True)
            symbol, code = json.loads(self.below.stdout.readline())
        return symbol, base64.b64decode(code)

    def real(self) -> types.ModuleType:
        """The module that this one stands for."""
        if self.own is None:
            del sys.modules[NAME]
            self.own = importlib.import_module(NAME)
            sys.modules[NAME] = sys.modules["opsin.ops.cpu"].compiler = self
        return self.own

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who only looks through modules
            raise AttributeError(name)
        return getattr(self.real(), name)


def _start(python: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words, pipe = [python, ROOT / "tools/foreign_kernels.py"], subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, env=environment, text=True)


if "PYTHON_BELOW" in os.environ:
    sys.modules[NAME] = CompilerBelow(os.environ["PYTHON_BELOW"])
