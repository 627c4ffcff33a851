"""What can be said of the CPU before anything is compiled: for `opsin doctor`."""

from __future__ import annotations

import ast
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import opsin.ops.cpu.kernels as room
from opsin.config import Config
from opsin.errors import DeviceError
from opsin.ops.cpu.code import Store, source_key
from opsin.ops.cpu.isa import KNOWN, NAMES, Isa, choose
from opsin.ops.cpu.weight_cache import can_keep
from opsin.ops.cpu.weight_shelves import kept_models, remove, take_away
from opsin.ops.device import Findings, KeptWeights, KernelCache, Processor


def examine(config: Config) -> Findings:
    """Look at this machine; compiles nothing. Raises DeviceError as `choose`."""
    isa = choose(config)
    return Findings(_processor(config, isa), isa.rounds, _kernels(), _cache(config, isa), _weights(config))


def clear(config: Config, *, weights: bool, kernels: bool) -> int:
    """Take away what is kept on disk; how many bytes it had. What is not a cache's stays."""
    count = 0
    if weights and config.weights is not None:
        count += sum(remove(Path(kept.folder)) for kept in kept_models(config.weights))
    return count + (take_away((config.cache / "kernels").glob("*/*.o")) if kernels else 0)


def _weights(config: Config) -> KeptWeights:
    folder = config.weights if can_keep() else None
    return KeptWeights(
        None if folder is None else str(folder), config.weights_most, [] if folder is None else kept_models(folder)
    )


def _processor(config: Config, isa: Isa) -> Processor:
    wanted = {name for known in KNOWN for name in known.needs}
    return Processor(
        name=_processor_name() or isa.cpu,
        llvm_name=isa.cpu,
        features=sorted(f[1:] for f in isa.features.split(",") if f[:1] == "+" and f[1:] in wanted),
        instructions=isa.name,
        instructions_available=_instructions_available(config),
        vector_floats=isa.lanes,
        dot_product=f"{isa.dot}, of two rows {isa.block}" if isa.block else isa.dot,
    )


def _instructions_available(config: Config) -> list[str]:
    found = []
    for name in NAMES:
        with suppress(DeviceError):  # this CPU lacks something
            found.append(choose(replace(config, isa=name)).name)
    return found


def _processor_name() -> str:
    """What the system calls it: "" on Linux for ARM, whose /proc/cpuinfo has numbers only."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor()


def _kernels() -> dict[str, str]:
    """Each module of kernels, and the first line of what it says about itself."""
    found: dict[str, str] = {}
    for path in sorted(Path(room.__path__[0]).glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if text and "def make(" in path.read_text(encoding="utf-8"):
            found[path.stem] = text.splitlines()[0]
    return found


def _sizes(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError):  # somebody else took it away
            yield path.stat().st_size


def _cache(config: Config, isa: Isa) -> KernelCache:
    folder = Store(config.cache / "kernels" / source_key(isa)).folder
    ours = list(_sizes(folder.glob("*.o"))) if folder.is_dir() else []
    everything = sum(_sizes((config.cache / "kernels").rglob("*.o")))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    writable = there.is_dir() and os.access(there, os.W_OK)
    return KernelCache(str(folder), writable, len(ours), sum(ours), everything - sum(ours))
