"""Server-sent events: values, comments, and the mark at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PING, DONE = b":\n\n", b"data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> bytes:
    """One event with JSON in it."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
