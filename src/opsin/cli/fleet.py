"""`opsin serve --replicas N`: the same server as an application of Ray Serve, here or on a cluster."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.config import available_threads, tell_ray
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.serve.factory import Served

_INSTALL = "pip install 'opsin[ray]'"


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """The options of a server of several replicas."""
    fleet = parser.add_argument_group("several replicas of the model, by Ray Serve (docs/scale.md)")
    fleet.add_argument("--replicas", type=options.positive, metavar="N", help="processes with the model")
    fleet.add_argument("--max-replicas", type=options.positive, metavar="N", help="and up to so many where work waits")
    fleet.add_argument("--ray-address", metavar="ADDRESS", help="of a running cluster, as HOST:6379 or auto")


def is_fleet(args: argparse.Namespace) -> bool:
    """Whether replicas were asked for. Raises RequestError where they cannot be."""
    if args.replicas is None:
        for name in ("ray_address", "max_replicas"):
            if getattr(args, name) is not None:
                raise RequestError(f"--{name.replace('_', '-')} without --replicas", hint="say how many")
        return False
    for name in ("slot_save_path", "otlp_traces_endpoint"):
        if getattr(args, name):
            raise RequestError(f"--{name.replace('_', '-')} with --replicas", hint="leave one of them out")
    if args.autoload is False:
        raise RequestError("--no-models-autoload with --replicas", hint="each loads what it is asked for")
    if args.host and ("," in args.host or args.host.endswith(".sock")):
        raise RequestError(f"replicas behind {args.host}", hint="give one address to listen on")
    if importlib.util.find_spec("ray") is None:
        raise RequestError("--replicas needs Ray", hint=_INSTALL)
    return True


def share_threads(args: argparse.Namespace) -> None:
    """On one machine replicas share its processors, where nobody says how many each has."""
    if not args.threads and not args.ray_address:
        args.threads = max(1, available_threads() // int(args.max_replicas or args.replicas))


def lean(args: argparse.Namespace) -> argparse.Namespace:
    """What can be sent to a replica: without the command's own functions."""
    return argparse.Namespace(**{name: value for name, value in vars(args).items() if name != "run"})


def serve_fleet(args: argparse.Namespace, served: Served, told: Sequence[str]) -> int:
    """Serve until Ctrl-C. `told` is said when all replicas are there."""
    from opsin.serve.fleet_options import FleetOptions

    fleet = FleetOptions(
        replicas=args.replicas, most=args.max_replicas or 0, apart=args.ray_address is not None and not args.threads,
        cpus=args.threads or 1, ongoing=served.options.requests, queued=served.options.requests,
    )  # fmt: skip
    tell_ray(alone=args.ray_address is None)
    from opsin.serve.ray import Running

    ended = threading.Event()
    with Running(served, fleet, args.ray_address):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())  # now: Ray sets its own when it begins
        for line in told:
            print(line, file=sys.stderr, flush=True)
        ended.wait()
    return 0
