"""Options that several subcommands share, and the checks of their values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.api import Model
    from opsin.gguf import File
    from opsin.media.budget import PictureBudget

from opsin.config import expanded, tell_hub

CacheType = Literal["f16", "q8_0", "q4_0", "f32"]
CACHE_TYPES: tuple[CacheType, ...] = ("f16", "q8_0", "q4_0", "f32")


def add_model(parser: argparse.ArgumentParser, *, bundled: bool = False) -> None:
    """The model file and how it is loaded. `bundled`: without a file, the model that comes with opsin is taken."""
    what = "GGUF file, its first split, a folder of GGUF or safetensors, ollama:NAME or hf:REPO" + (
        " (default: the bundled opsin-nano)" if bundled else ""
    )
    given = parser.add_mutually_exclusive_group(required=not bundled)
    given.add_argument("-m", "--model", type=place, metavar="FILE", help=what)
    _add_hf(given, "model")
    parser.add_argument("-hff", "--hf-file", metavar="FILE", help="a file of --hf-repo, in place of a quant")
    _add_hub(parser)
    add_verify(parser)
    parser.add_argument("-t", "--threads", type=or_auto, metavar="N", help="compute threads (default: all allowed)")
    parser.add_argument("--cache-type", choices=CACHE_TYPES, default="f16", help="number format of the KV cache")
    parser.add_argument(
        "--state-memory", type=positive, metavar="MB", help="for recurrent states, of models that have any (1024)"
    )


def add_guesses(parser: argparse.ArgumentParser) -> None:
    """What is guessed ahead."""
    parser.add_argument(
        "--guesses", "--spec-draft-n-max", type=natural, metavar="N",
        help="tokens guessed ahead at most, where that pays (15); 0: none. Answers are the same",
    )  # fmt: skip
    parser.add_argument(
        "-md", "--draft", "--model-draft", "--spec-draft-model", type=place, metavar="FILE",
        help="a smaller model with the same vocabulary, which guesses, too",
    )  # fmt: skip


def guesses(args: argparse.Namespace) -> int:
    """How many are guessed ahead at most."""
    from opsin.engine.guessing import GUESSES

    return GUESSES if args.guesses is None else cast("int", args.guesses)


def add_place(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """A place without an option before it, or -hf; `named` gives which."""
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("place", type=place, nargs="?", metavar=metavar, help=what)
    _add_hf(given, "repository")
    _add_hub(parser)


def named(args: argparse.Namespace) -> str | Path:
    """What `add_place` has read."""
    tell_hub(token=args.hf_token, offline=bool(args.offline))
    return cast("str | Path", args.repository or args.place)


def _add_hf(given: argparse._MutuallyExclusiveGroup, name: str) -> None:
    given.add_argument(
        "-hf", "-hfr", "--hf-repo", dest=name, type=repository, metavar="REPO",
        help="owner/repo[:quant] on Hugging Face's hub, fetched once",
    )  # fmt: skip


def _add_hub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-hft", "--hf-token", metavar="TOKEN", help="of the hub; HF_TOKEN in the environment is seen by fewer"
    )
    parser.add_argument("--offline", action="store_true", default=None, help="fetch nothing: what was fetched is there")


def add_mmproj(parser: argparse.ArgumentParser, what: str = "pictures", *, optional: bool = True) -> None:
    """The file of the part for pictures and sound, or that there shall be none."""
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "-mm",
        "--mmproj",
        type=expanded,
        metavar="FILE",
        help=f"the model's file for {what} (default: one beside the model)",
    )
    if optional:
        given.add_argument(
            "--no-vision",
            "--no-mmproj",
            "--no-mmproj-auto",
            dest="vision",
            action="store_false",
            help="leave the part for pictures out",
        )


def add_pictures(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How finely pictures are looked at."""
    group = parser.add_argument_group("pictures")
    group.add_argument("--detail", choices=("low", "high", "auto"), default="auto", help="how finely to look at them")
    for word, what in (("min", "least"), ("max", "most")):
        group.add_argument(f"--{word}-pixels", type=positive, metavar="N", help=f"{what} pixels of one, as processed")
        group.add_argument(
            f"--{word}-image-tokens", f"--image-{word}-tokens", type=positive, metavar="N", help=f"{what} tokens of one"
        )
    return group


def picture_budget(args: argparse.Namespace) -> PictureBudget:
    """How finely pictures are looked at. Raises RequestError for numbers that contradict each other."""
    from opsin.media.budget import WORDS, PictureBudget

    return PictureBudget(**{word: getattr(args, word) for word in WORDS})


def add_verify(parser: argparse.ArgumentParser) -> None:
    """The check of digests."""
    parser.add_argument(
        "--verify", action="store_true", help="compare files of a store with their digests; reads them whole"
    )


def add_output(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The file to write, by the same name everywhere."""
    parser.add_argument("-o", "--output", type=expanded, required=required, metavar="OUT", help="GGUF file to write")


def place(text: str) -> str | Path:
    """Where a model is: a path, or a name in a store."""
    from opsin.hub.locate import is_place

    return text if is_place(text) else expanded(text)


def repository(text: str) -> str:
    """A name on Hugging Face's hub as a place."""
    return f"hf:{text.removeprefix('hf:')}"


def model_file(args: argparse.Namespace) -> str | Path:
    """What was named, or the bundled file; then a line on stderr says what that is good for."""
    tell_hub(token=args.hf_token, offline=bool(args.offline))
    if args.hf_file is not None:
        return _file_of(args.model, args.hf_file)
    if args.model is not None:
        return cast("str | Path", args.model)
    from opsin.hub.bundled import ABOUT, LARGER, bundled

    path = bundled()
    print(f"opsin: {ABOUT} ({LARGER})", file=sys.stderr, flush=True)
    return path


def _file_of(repo: object, file: str) -> str:
    """A file of a repository; its quant does not count then, as in llama-server."""
    if not isinstance(repo, str) or not repo.startswith("hf:"):
        raise RequestError(f"--hf-file {file} needs the repository that it is in", hint="give -hf owner/repo")
    name = repo.removeprefix("hf:").partition(":")[0]
    return f"hf:{name}/{file}"


def state_bytes(args: argparse.Namespace) -> int | None:
    """Bytes for recurrent states; None for the usual."""
    return None if args.state_memory is None else cast("int", args.state_memory) << 20


def open_model(place: str | Path) -> File:
    """The file of a model at a place, or the one that would be made of a checkpoint; what a store says is told."""
    from opsin.api.files import find
    from opsin.cli.progress import FirstLines

    file, notes = find(place, None, vision=False, notice=FirstLines()).open()
    tell_notes(notes)
    return file


def tell(model: Model) -> None:
    """What loading found out, on stderr."""
    tell_notes(model.notes)


def tell_notes(notes: Iterable[str]) -> None:
    """Notes on stderr. Nothing in them reaches a terminal as it is: files come from strangers."""
    for note in notes:
        line = "".join(c if c.isprintable() else "?" for c in note)
        print(f"opsin: {line}", file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def or_auto(text: str) -> int | None:
    """A whole number from 1 on, or -1 for what is so by itself."""
    return None if text.strip() == "-1" else positive(text)


def or_own(text: str) -> int | None:
    """A whole number from 1 on, or 0 for what is so by itself."""
    return None if text.strip() == "0" else positive(text)


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return value
