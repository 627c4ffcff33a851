"""`opsin transcribe`: what was said in recordings, as text, subtitles or JSON."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.progress import Progress
from opsin.cli.streams import draw
from opsin.config import expanded
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.api import Model
    from opsin.api.speech.transcript import Transcript

_FORMATS = ("txt", "srt", "vtt", "json")
_TIMED = ("srt", "vtt")
_AT_ONCE = 8
_LOOK_SECONDS = 0.2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("transcribe", help="write down what was said in recordings", description=__doc__)
    parser.set_defaults(run=run)
    options.add_model(parser)
    options.add_mmproj(parser, "sound", optional=False)
    what = "a recording: WAV, FLAC, OGG, Opus, MP3, M4A, MP4 or WebM; or - for one from stdin"
    parser.add_argument("sounds", nargs="+", metavar="SOUND", help=what)
    parser.add_argument("-f", "--format", choices=_FORMATS, default="txt", help="of what is written (txt)")
    parser.add_argument(
        "-d", "--output-dir", type=expanded, metavar="DIR", help="write a file for each sound (default: to stdout)"
    )
    parser.add_argument("-l", "--language", metavar="CODE", help="what is spoken, as de (default: it is heard)")
    parser.add_argument(
        "--task", choices=("transcribe", "translate"), default="transcribe", help="translate: to English"
    )
    parser.add_argument(
        "-p", "--prompt", default="", metavar="TEXT", help="names and words that may come, as they are spelt"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="of drawing (default: 0, higher where it reads badly)"
    )
    parser.add_argument("--words", action="store_true", help="tell times of words, in JSON")
    parser.add_argument("--seed", type=options.natural, default=0, metavar="N", help="of drawing")


def run(args: argparse.Namespace) -> int:
    """Transcribe, some at once; what is written comes in the order of the command line."""
    if args.words and args.format != "json":
        raise RequestError(f"--words with --format {args.format}", hint="give --format json")
    targets = _targets(args)
    import opsin

    with Progress("loading") as progress:
        model = opsin.load(
            options.model_file(args), mmproj=args.mmproj, threads=args.threads, pages=args.cache_type,
            notice=progress, sequences=_AT_ONCE,
        )  # fmt: skip
    options.tell(model)
    with model:
        if len(args.sounds) == 1:
            _tell(args, _begin(model, args, args.sounds[0]), targets[0])
            return 0
        begun: list[Transcript] = []
        start = time.perf_counter()
        with ThreadPoolExecutor(_AT_ONCE) as workers:
            done = [workers.submit(_whole, model, args, sound, begun) for sound in args.sounds]
            try:
                for one, target in zip(done, targets, strict=True):
                    _await(one, begun, len(done), start)
                    _tell(args, one.result(), target)
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                model.close()  # ends those that run
                raise
    return 0


def _targets(args: argparse.Namespace) -> list[Path | None]:
    """The files to write. Raises RequestError where two would be one."""
    if args.output_dir is None:
        return [None] * len(args.sounds)
    if not args.output_dir.is_dir():
        raise RequestError(f"{args.output_dir} is no folder", hint="make it first")
    names = [f"{'stdin' if sound == '-' else Path(sound).stem}.{args.format}" for sound in args.sounds]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"two sounds would be written to {twice}", hint="give them other names")
    return [args.output_dir / name for name in names]


def _begin(model: Model, args: argparse.Namespace, sound: str) -> Transcript:
    source: str | bytes = sys.stdin.buffer.read() if sound == "-" else sound
    return model.transcribe(
        source, language=args.language, task=args.task, prompt=args.prompt, temperature=args.temperature,
        seed=args.seed, timed=True if args.format in _TIMED else None, words=args.words,
        name="stdin" if sound == "-" else None,
    )  # fmt: skip


def _whole(model: Model, args: argparse.Namespace, sound: str, begun: list[Transcript]) -> Transcript:
    made = _begin(model, args, sound)
    begun.append(made)
    list(made)
    return made


def _await(one: Future[Transcript], begun: list[Transcript], count: int, start: float) -> None:
    """Tell how far all of `count` are, until one is done."""
    while not wait([one], _LOOK_SECONDS).done:
        _draw(sum(made.done for made in begun) / count, f"{count} sounds", start)
    draw("")


def _tell(args: argparse.Namespace, made: Transcript, target: Path | None) -> None:
    from opsin.api.speech import formats

    start, of = time.perf_counter(), f"{made.seconds:.0f} s of sound"
    if args.format == "txt" and target is None:  # as it comes
        for segment in made:
            draw("")
            print(" ".join(segment.text.split()), flush=True)
            _draw(made.done, of, start)
        draw("")
        return
    for _ in made:
        _draw(made.done, of, start)
    draw("")
    if args.format == "json":
        text = formats.as_json(made, task=args.task, language=made.language, seconds=made.seconds, timed=made.timed)
    else:
        text = {"txt": formats.plain, "srt": formats.subrip, "vtt": formats.webvtt}[args.format](made)
    if target is None:
        print(text, end="", flush=True)
    else:
        target.write_text(text, encoding="utf-8")
        print(target)


def _draw(done: float, of: str, start: float) -> None:
    """How far it is, from 0 to 1, and how long the rest takes."""
    if done > 0 and sys.stderr.isatty():
        left = (time.perf_counter() - start) * (1 - done) / done
        draw(f"{done:.0%} of {of}, {left:.0f} s left")
