"""`opsin merge`: a model and its mmproj file as one file."""

from __future__ import annotations

import argparse

from opsin.cli import options
from opsin.cli.progress import FirstLines
from opsin.config import expanded
from opsin.errors import RequestError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("merge", help="join a model and its mmproj to one file", description=__doc__)
    parser.set_defaults(run=run)
    options.add_place(parser, "MODEL", "GGUF file of the text part, its first split, ollama:NAME or hf:REPO")
    parser.add_argument(
        "projector", type=expanded, nargs="?", metavar="MMPROJ",
        help="GGUF file of the part that sees or hears (default: what the store has, or the one beside the model)",
    )  # fmt: skip
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Check, join, tell."""
    from opsin.api.files import find
    from opsin.convert.merge import merge
    from opsin.gguf import File

    model = options.named(args)
    files = find(model, args.projector, vision=True, notice=FirstLines())
    if files.text.is_dir():
        raise RequestError(f"{files.text} holds safetensors", hint=f"opsin convert {model} -o {args.output}")
    file, notes = files.open()
    with file:
        if len(files.vision) != 1:
            names = ", ".join(path.name for path in files.vision)
            hint = f"name one: {names}" if names else "give it behind the model"
            raise RequestError(f"{model} has {len(files.vision) or 'no'} files for pictures beside it", hint=hint)
        options.tell_notes(notes)
        merge(file, files.vision[0], args.output)
    with File.open(args.output) as file:
        size = sum(info.nbytes for info in file.tensors.values())
        print(f"{args.output} has {len(file.tensors)} tensors, {size / 1e6:.1f} MB")
    return 0
