"""`opsin key`: the key of requests, by which a gateway can send those about one picture to one server."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from opsin.errors import FileError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("key", help="tell the key of a request, for gateways", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="the body of a request, in JSON; - for stdin")


def run(args: argparse.Namespace) -> int:
    """One line: the key; an empty one where any server will do."""
    from opsin.serve.route_key import route_key

    try:
        data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
        body = json.loads(data)
    except OSError as error:
        raise FileError(f"{args.file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise FileError(f"{args.file} is no JSON", hint="give the body of a request") from None
    if not isinstance(body, dict):
        raise FileError(f"{args.file} holds no object", hint="give the body of a request")
    print(route_key(body))
    return 0
