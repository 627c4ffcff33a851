"""`opsin cache`: what is kept on disk so that starts are quick, and its clearing.

Kernels are compiled again, and weights packed again, when they are needed. Processes that use what is cleared keep it
until they end.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsin.ops.device import KeptWeights, KernelCache

_KINDS = ("weights", "kernels", "all")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("cache", help="show or clear kernels and weights kept on disk", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("--clear", choices=_KINDS, help="take these away")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Clear what is asked for, and show the rest."""
    from opsin.api.loading import clear_caches, examine_device
    from opsin.config import from_environment

    config = from_environment()
    cleared = 0
    if args.clear:
        cleared = clear_caches(config, weights=args.clear != "kernels", kernels=args.clear != "weights")
    found = examine_device(config)
    if args.json:
        told = {"cleared_bytes": cleared, "kernels": asdict(found.cache), "weights": asdict(found.weights)}
        print(json.dumps(told))
        return 0
    lines = [f"cleared  {cleared / 1e6:.1f} MB"] if args.clear else []
    print("\n".join([*lines, kernel_line(found.cache), *weight_lines(found.weights)]))
    return 0


def kernel_line(cache: KernelCache) -> str:
    """Of compiled kernels."""
    return (
        f"kernels  {cache.kernels}, {cache.bytes / 1e6:.1f} MB; {cache.stale_bytes / 1e6:.1f} MB of other versions "
        f"({cache.folder})"
    )


def weight_lines(kept: KeptWeights) -> list[str]:
    """Of packed weights: a summary, and each model, the longest unused first."""
    if kept.folder is None:
        return ["weights  none are kept (OPSIN_WEIGHTS)"]
    whole = sum(model.bytes for model in kept.models)
    room = f"{whole / 1e9:.1f} of at most {kept.most / 1e9:.0f} GB"
    summary = f"weights  {len(kept.models)}, {room} ({kept.folder})"
    return [summary, *(f"  {m.bytes / 1e6:9.1f} MB  {_day(m.used)}  {m.label}" for m in kept.models)]


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
