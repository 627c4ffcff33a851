"""`opsin convert`: a checkpoint of transformers (safetensors) becomes GGUF: one file, or a model and its mmproj."""

from __future__ import annotations

import argparse
import time

from opsin.cli import options
from opsin.cli.progress import FirstLines
from opsin.config import expanded
from opsin.errors import RequestError

_FORMATS = ("auto", "f32", "f16", "bf16", "q8_0")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("convert", help="make GGUF of a checkpoint of transformers", description=__doc__)
    parser.set_defaults(run=run)
    what = "holds config.json and *.safetensors; or hf:REPO, which is fetched"
    options.add_place(parser, "FOLDER", what)
    options.add_output(parser)
    parser.add_argument("--mmproj", type=expanded, metavar="OUT", help="a file of its own for the part for pictures")
    parser.add_argument(
        "--type", choices=_FORMATS, default="auto", help="of matrices (default: f16 or bf16, as they are)"
    )
    parser.add_argument("--no-vision", action="store_true", help="leave the part for pictures out")


def run(args: argparse.Namespace) -> int:
    """Convert, tell."""
    from opsin.convert.hf import check_folder, convert
    from opsin.hub.locate import locate

    folder = options.named(args)
    if isinstance(folder, str):
        folder = locate(folder, notice=FirstLines(), checkpoint=True, check=check_folder).text
    start = time.perf_counter()
    for target in filter(None, (args.output, args.mmproj)):
        if target.is_file() and any(target.samefile(path) for path in folder.glob("*") if path.suffix != ".gguf"):
            raise RequestError(f"{target} is a file to read", hint="give another name for the result")
    made = convert(folder, args.output, mmproj=args.mmproj, format=args.type, vision=not args.no_vision)
    options.tell_notes(made.notes)
    for path in made.paths:
        print(f"{path} has {path.stat().st_size / 1e6:.1f} MB")
    print(f"{time.perf_counter() - start:.1f} s")
    return 0
