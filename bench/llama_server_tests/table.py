"""The table of llama-server's tests: what passes, what differs by decision, what fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/llama-server-tests.md"
HEAD = """# llama-server's own tests

llama.cpp's server comes with tests (b11434). They run here against `opsin serve` unmodified, behind a start script that
puts models which are at hand in the place of theirs (SmolLM2-135M, opsin-nano). Counted are the tests that llama-server
itself passes with the same models. This page is written by `bench/llama_server_tests/run.py`.
"""


def decisions() -> dict[str, str]:
    """Names of tests (a * at the end: all that begin so), and why opsin differs there."""
    lines = Path(__file__).with_name("decisions.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(" | ") for line in lines if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in pairs}


@dataclass(frozen=True)
class Report:
    """What came of the tests that llama-server passes, by name."""

    passed: tuple[str, ...]
    decided: Mapping[str, str]  # with the reason
    failed: Mapping[str, str]  # with the failure's first line

    @classmethod
    def of(cls, theirs: Mapping[str, str], ours: Mapping[str, str], reasons: Mapping[str, str]) -> Report:
        """Compare the two runs."""
        counted = {name: ours.get(name, "not run") for name, outcome in theirs.items() if outcome == "passed"}
        bad = {name: outcome for name, outcome in counted.items() if outcome != "passed"}
        found = {name: [reason for key, reason in reasons.items() if _is_meant(name, key)] for name in bad}
        return cls(
            tuple(name for name in counted if name not in bad),
            {name: why[0] for name, why in found.items() if why},
            {name: outcome for name, outcome in bad.items() if not found[name]},
        )

    @property
    def counted(self) -> int:
        """How many tests are asked of opsin."""
        return len(self.passed) + len(self.decided) + len(self.failed)

    def summary(self) -> str:
        """One line."""
        good = len(self.passed) + len(self.decided)
        return (
            f"{self.counted} tests: {len(self.passed)} pass, {len(self.decided)} differ by decision, "
            f"{len(self.failed)} fail ({100 * good / max(1, self.counted):.1f} % are good)"
        )

    def page(self) -> str:
        """The document."""
        files = dict.fromkeys(name.partition("::")[0] for name in (*self.passed, *self.decided, *self.failed))
        rows = [
            f"| {file} | {_count(self.passed, file)} | {_count(self.decided, file)} | {_count(self.failed, file)} |"
            for file in sorted(files)
        ]
        parts = [HEAD, f"{self.summary()}.\n", "| file | pass | by decision | fail |\n|---|---:|---:|---:|", *rows]
        parts += _list("Differ by decision", "why", self.decided) + _list("Fail", "how", self.failed)
        return "\n".join(parts) + "\n"


def _is_meant(name: str, key: str) -> bool:
    return name.startswith(key[:-1]) if key.endswith("*") else name == key


def _count(names: Mapping[str, str] | tuple[str, ...], file: str) -> int:
    return sum(name.startswith(f"{file}::") for name in names)


def _list(title: str, column: str, rows: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    lines = [f"| `{_plain(name)}` | {_plain(text)} |" for name, text in rows.items()]
    return [f"\n## {title}\n", f"| test | {column} |\n|---|---|", *lines]


def _plain(text: str) -> str:
    """A cell of a table: short, on one line, without what would end it."""
    return text.replace("|", "/").replace("\n", " ").replace("`", "'")[:160]
