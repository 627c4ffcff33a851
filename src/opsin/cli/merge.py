"""`opsin merge`: a model and its mmproj file as one file."""

from __future__ import annotations

import argparse

from opsin.cli import options
from opsin.config import expanded


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("merge", help="join a model and its mmproj to one file", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("model", type=expanded, metavar="MODEL", help="GGUF file of the text part, or its first split")
    parser.add_argument("projector", type=expanded, metavar="MMPROJ", help="GGUF file of the part that sees or hears")
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Check, join, tell."""
    from opsin.convert.merge import merge
    from opsin.gguf import File

    merge(args.model, args.projector, args.output)
    with File.open(args.output) as file:
        size = sum(info.nbytes for info in file.tensors.values())
        print(f"{args.output} has {len(file.tensors)} tensors, {size / 1e6:.1f} MB")
    return 0
