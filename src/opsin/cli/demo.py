"""`opsin demo`: draws your words as a picture and lets the bundled model read them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.progress import Progress
from opsin.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 384
QUESTION = "What does it say?"
_MOST = 40  # letters


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("demo", help="draw words and let the bundled model read them", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("words", nargs="?", default="HELLO 42", metavar="WORDS", help='default: "HELLO 42"')
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the pictures: FILE-1.png, FILE-2.png ...")
    parser.add_argument("-t", "--threads", type=options.positive, metavar="N", help="compute threads")


def run(args: argparse.Namespace) -> int:
    """Each word is drawn in a font that the model never saw, and read by itself."""
    words = args.words.split()
    if not words or len(args.words) > _MOST or not args.words.isprintable():
        raise RequestError(f"{args.words[:60]!r}", hint=f"give some letters and digits, at most {_MOST}")
    pictures = [draw(word) for word in words]
    if args.save is not None:
        for number, picture in enumerate(pictures, 1):
            picture.save(args.save.with_name(f"{args.save.stem}-{number}.png"))

    import opsin
    from opsin.hub.bundled import ABOUT, bundled

    print(f"opsin: {ABOUT}", file=sys.stderr)
    with Progress("loading") as progress:
        model = opsin.load(bundled(), threads=args.threads, sequences=1, notice=progress)
    with model:
        for word, picture in zip(words, pictures, strict=True):
            answer = model.chat([{"role": "user", "content": [picture, QUESTION]}], temperature=0.0, max_tokens=32)
            print(f"{word}: {answer.text.strip()}", flush=True)
    return 0


def draw(word: str) -> Image:
    """Dark letters on a light ground, as large as fit. The font is Pillow's own (Aileron, CC0)."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (SIDE, SIDE), (246, 244, 238))
    pen, most = ImageDraw.Draw(picture), SIDE * 5 // 6
    size = most
    while size > 8 and pen.textlength(word, ImageFont.load_default(size)) > most:
        size = size * 9 // 10
    pen.text((SIDE / 2, SIDE / 2), word, (30, 60, 150), ImageFont.load_default(min(size, SIDE // 3)), anchor="mm")
    return picture
