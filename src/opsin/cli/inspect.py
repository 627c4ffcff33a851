"""`opsin inspect`: what a model file holds, and the memory that it needs. Reads no weights."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from opsin.cli import options
from opsin.config import expanded


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("inspect", help="show what a model file holds", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("file", type=expanded, metavar="FILE", help="GGUF file, or the first of its splits")
    parser.add_argument("-c", "--context", type=options.positive, metavar="N", help="tokens to count memory for")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Open, look, print."""
    from opsin.cli.file_report import page, report_file
    from opsin.gguf import File

    with File.open(args.file) as file:
        report = report_file(file, args.context)
    print(json.dumps(asdict(report)) if args.json else page(report))
    return 0
