"""Functions of `transformers` that templates may call."""

from __future__ import annotations

import json
from datetime import datetime

from opsin.text.origin import derived


def write_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None,
    separators: tuple[str, str] | None = None, sort_keys: bool = False,
) -> str:  # fmt: skip
    """JSON as `transformers` writes it for templates: no HTML escapes, letters as they are."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def write_time(pattern: str) -> str:
    """The time now, by a pattern of `strftime`."""
    return derived(datetime.now().strftime(pattern), pattern)
