"""`opsin convert`: a checkpoint of transformers (safetensors) becomes GGUF: one file, or a model and its mmproj."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

_FORMATS = ("auto", "f32", "f16", "bf16", "q8_0")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("convert", help="make GGUF of a checkpoint of transformers", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds config.json and *.safetensors")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="GGUF file to write")
    parser.add_argument("--mmproj", type=Path, metavar="OUT", help="write the part for pictures to a file of its own")
    parser.add_argument(
        "--type", choices=_FORMATS, default="auto", help="of matrices (default: f16 or bf16, as they are)"
    )
    parser.add_argument("--no-vision", action="store_true", help="leave the part for pictures out")


def run(args: argparse.Namespace) -> int:
    """Convert, tell."""
    from opsin.convert.hf import convert

    start = time.perf_counter()
    made = convert(args.folder, args.output, mmproj=args.mmproj, format=args.type, vision=not args.no_vision)
    for note in made.notes:
        print(f"opsin: {ascii(note)[1:-1]}", file=sys.stderr)
    for path in made.paths:
        print(f"{path} has {path.stat().st_size / 1e6:.1f} MB")
    print(f"{time.perf_counter() - start:.1f} s")
    return 0
