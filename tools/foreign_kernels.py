"""Compiles kernels for another machine: a line of JSON in for each, one out. The guest of emulate_arm.py starts it."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.compiler import foreign_object
from opsin.ops.cpu.isa import Isa


def main() -> None:
    """Until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        isa = Isa(**{**asked["isa"], "needs": tuple(asked["isa"]["needs"])})
        symbol, code = foreign_object(Kernel.of(asked["module"], **asked["options"]), isa)
        print(json.dumps([symbol, base64.b64encode(code).decode()]), flush=True)


if __name__ == "__main__":
    main()
