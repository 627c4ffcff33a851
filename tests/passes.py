"""Which tests `tools/test` runs with guards around the device's memory (OPSIN_CHECK=1), and which without.

Guards are for what runs kernels. How these are compiled and kept, other instruction sets (which run in processes of
their own), how ids are drawn from logits, what pictures become before a tower, files that say the same otherwise, and
mutants of families (each differs from sound code in its numbers) have nothing more to show with them. What families
compute is tried with guards alone: that shows all that it shows without them, and takes minutes. Operations and the
engine run both ways.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOMS = ("ops", "models", "engine")
UNGUARDED_FILES = {
    *("ops/cpu/test_code_cache.py", "ops/cpu/test_emission.py", "ops/cpu/test_other_isas.py"),
    *("engine/test_sampling.py", "engine/test_samplers.py", "engine/test_draws.py"),
    *("models/test_picture_budgets.py", "models/test_layouts.py", "models/test_dialects.py"),
}
UNGUARDED_WORDS = ("mutant", "processors", "budget")


def add_option(parser: pytest.Parser) -> None:
    """`--pass`: a half of the tests, as `tools/test` runs them."""
    parser.addoption("--pass", dest="half", choices=["guarded", "rest"], help="half of the tests (tests/passes.py)")


def is_guarded(item: pytest.Item) -> bool:
    """Whether a test runs in the pass with guards."""
    path = item.path.relative_to(TESTS).as_posix()
    is_left = path in UNGUARDED_FILES or any(word in item.nodeid.lower() for word in UNGUARDED_WORDS)
    return path.split("/")[0] in ROOMS and not is_left


def is_in(half: str, item: pytest.Item) -> bool:
    """Whether a test belongs to a half of the tests."""
    if half == "guarded":
        return is_guarded(item)
    return not (is_guarded(item) and item.path.is_relative_to(TESTS / "models"))


def select(half: str | None, items: list[pytest.Item]) -> None:
    """Keep those of one half, when one was asked for."""
    if half is not None:
        items[:] = [item for item in items if is_in(half, item)]
