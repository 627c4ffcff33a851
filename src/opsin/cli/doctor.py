"""`opsin doctor`: what this machine offers, what opsin makes of it, and where its caches are."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import metadata, version
from typing import TYPE_CHECKING

from opsin.cli.memory import available_bytes, machine_bytes
from opsin.cli.progress import Progress

if TYPE_CHECKING:
    from opsin.config import Config
    from opsin.ops.device import Findings, KeptWeights, KernelCache, Processor

_ON = {  # what is to be said of a system and its processors; the suite runs on the first
    ("Linux", "x86_64"): "",
    ("Linux", "aarch64"): "only emulated processors ran tests of operations and two models there; how fast is unknown",
}
_ELSEWHERE = "unproven: nobody has run opsin there; what such a system gives is pretended in tests"
_PYTHON = "Programming Language :: Python :: "  # classifiers of those that ran the suite
_OVERHEAD = 250 << 20  # the process itself
_TOLERATED = 1.15  # memory over file of a format that is worth no remark


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("doctor", help="show what this machine offers", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("--warm", action="store_true", help="compile the kernels of the usual formats now")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Warm up if asked, then report."""
    from opsin.config import from_environment

    config = from_environment()
    if args.warm:
        from opsin.cli.warm import warm

        with Progress("looking for compiled kernels") as progress:
            warm(config, progress)
    report = examine(config)
    print(json.dumps(asdict(report)) if args.json else _page(report))
    return 0


@dataclass(frozen=True)
class Format:
    """A number format of weights: how kernels see it, and bytes a weight in memory and in the file.

    `expanded`: it has no planes, and is decoded when it is loaded. `larger`: by how much memory exceeds the file.
    """

    name: str
    layout: str
    memory_bytes: float
    file_bytes: float
    expanded: bool
    larger: float


@dataclass(frozen=True)
class Report:
    """All that `opsin doctor` says."""

    versions: dict[str, str]
    platform: str
    processor: Processor
    threads: int
    processors: int
    memory_bytes: int
    memory_available_bytes: int
    kernels: dict[str, str]
    formats: list[Format]
    cache: KernelCache
    weights: KeptWeights
    limits: list[str]


def examine(config: Config) -> Report:
    """Look at this machine; compiles nothing."""
    from opsin.api.loading import examine_device
    from opsin.config import available_threads

    found = examine_device(config)
    packages = ("opsin", "numba", "llvmlite", "numpy")
    return Report(
        versions={"python": platform.python_version()} | {name: version(name) for name in packages},
        platform=f"{platform.system()} {platform.machine()}",
        processor=found.processor,
        threads=config.threads or available_threads(),
        processors=os.cpu_count() or 1,
        memory_bytes=machine_bytes(),
        memory_available_bytes=available_bytes(),
        kernels=found.kernels,
        formats=_formats(found.rounds),
        cache=found.cache,
        weights=found.weights,
        limits=_limits(found),
    )


def _formats(rounds: bool) -> list[Format]:
    from opsin.ops.layout import STRIP, layout_of
    from opsin.quants import TYPES

    width = 4096
    result = []
    for kind in TYPES.values():
        layout = layout_of(kind, rounded=rounds)
        expanded = kind.planes is None and layout_of(kind).name != kind.name.lower()
        memory = layout.strip_bytes(width) / (STRIP * width)
        stored = kind.bytes / kind.elements
        result.append(Format(kind.name, layout.name, memory, stored, expanded, round(memory / stored, 2)))
    return result


def _limits(found: Findings) -> list[str]:
    from opsin.engine.runner import Limits

    limits, free = Limits(), available_bytes()
    largest = max(0.0, (free - _OVERHEAD) / 1.15)
    said = [
        f"a model file may have about {largest / 1e9:.1f} GB with the memory now free, less its KV cache",
        f"a step computes at most {limits.rows} tokens, of at most {limits.sequences} sequences",
        f"a context is {limits.context} tokens unless more are asked for",
    ]
    here = platform.system(), platform.machine()
    if _ON.get(here) != "":
        said.append(f"{here[0]} on {here[1]}: {_ON.get(here, _ELSEWHERE)}")
    python = ".".join(platform.python_version().split(".")[:2])
    if python not in (proven := _proven_pythons()):
        said.append(f"Python {python}: unproven, the tests ran on {', '.join(proven)}")
    if found.processor.instructions == "portable":
        said.append("this CPU has none of the instruction sets that opsin is fast on")
    if not found.cache.writable:
        said.append(f"{found.cache.folder} cannot be written: kernels are compiled at every start (set OPSIN_CACHE)")
    return said


def _proven_pythons() -> list[str]:
    lines = metadata("opsin").get_all("Classifier", [])
    return [line.removeprefix(_PYTHON) for line in lines if line.startswith(f"{_PYTHON}3.")]


def _page(report: Report) -> str:
    p, cache, mega = report.processor, report.cache, 1e6
    lines = [
        ", ".join(f"{name} {text}" for name, text in report.versions.items()),
        f"system        {report.platform}",
        f"processor     {p.name} (LLVM: {p.llvm_name})",
        f"features      {' '.join(p.features)}",
        f"instructions  {p.instructions}: {p.vector_floats} floats a vector, dot product by {p.dot_product}",
        f"              this machine can: {', '.join(p.instructions_available)} (OPSIN_ISA chooses)",
        f"threads       {report.threads} of {report.processors} processors",
        f"memory        {report.memory_bytes / 1e9:.1f} GB, {report.memory_available_bytes / 1e9:.1f} GB of it free",
        f"cache         {cache.folder}",
        f"              {'' if cache.writable else 'not '}writable; {cache.kernels} kernels, "
        f"{cache.bytes / mega:.1f} MB; {cache.stale_bytes / mega:.1f} MB of other versions",
        f"kept weights  {_kept_line(report.weights)}",
        "",
        "kernels",
        *(f"  {name:13} {text}" for name, text in report.kernels.items()),
        "",
        f"weights       {'kept as':20} {'bytes in memory':>15} {'in the file':>12}",
        *(_format_line(kind) for kind in report.formats),
        "",
        "limits",
        *(f"  {line}" for line in report.limits),
    ]
    return "\n".join(lines)


def _kept_line(kept: KeptWeights) -> str:
    if kept.folder is None:
        return "none (OPSIN_WEIGHTS)"
    return f"{len(kept.models)} models, {sum(m.bytes for m in kept.models) / 1e9:.1f} GB (opsin cache lists them)"


def _format_line(kind: Format) -> str:
    note = "  expanded" if kind.expanded else ""
    if kind.larger > _TOLERATED:
        note += f"  {kind.larger} times its size in the file"
    return f"  {kind.name:11} {kind.layout:20} {kind.memory_bytes:15.3f} {kind.file_bytes:12.3f}{note}"
