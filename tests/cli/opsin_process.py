"""How the tests start the command as a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

COMMAND = (sys.executable, "-m", "opsin")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes; an empty text removes a variable."""
    merged: Mapping[str, str] = os.environ | {"PYTHONUTF8": "1"} | changes
    return {name: value for name, value in merged.items() if value}
