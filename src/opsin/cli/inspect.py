"""`opsin inspect`: what a model file holds, and the memory that it needs. Reads no weights."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.progress import FirstLines

if TYPE_CHECKING:
    from opsin.cli.file_report import FileReport


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("inspect", help="show what a model file holds", description=__doc__)
    parser.set_defaults(run=run)
    what = "GGUF file, its first split, a folder of GGUF or safetensors, ollama:NAME or hf:REPO"
    options.add_place(parser, "FILE", what)
    options.add_verify(parser)
    parser.add_argument("-c", "--context", type=options.positive, metavar="N", help="tokens to count memory for")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Open, look, print."""
    from opsin.cli.file_report import page

    report = _report(options.named(args), args.context, verify=args.verify)
    print(json.dumps(asdict(report)) if args.json else page(report))
    return 0


def _report(place: str | Path, context: int | None, *, verify: bool) -> FileReport:
    """A file, or what a store has under a name: then with the part for pictures and what stands beside them."""
    from opsin.api.files import Files, find
    from opsin.cli.audio_report import find_audio
    from opsin.cli.file_report import report_file
    from opsin.cli.vision_report import find_vision
    from opsin.models import open_model

    alone = isinstance(place, Path) and not place.is_dir() and not verify
    vision = isinstance(place, str)  # a path is looked at by itself
    files = Files(Path(place)) if alone else find(place, None, vision=vision, verify=verify, notice=FirstLines())
    file, notes = files.open()
    with file:
        report = report_file(file, context)
    for path in files.vision:
        with open_model(path) as projector:
            report = replace(
                report, vision=report.vision or find_vision(projector), audio=report.audio or find_audio(projector)
            )
        notes = (*notes, f"its file for pictures is {path}")
    return replace(report, notes=(*notes, *report.notes))
