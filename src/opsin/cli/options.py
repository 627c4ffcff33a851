"""Options that several subcommands share, and the checks of their values."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model file and how it is loaded."""
    parser.add_argument("-m", "--model", type=Path, required=True, metavar="FILE", help="GGUF file, or its first split")
    parser.add_argument("-t", "--threads", type=positive, metavar="N", help="compute threads (default: all allowed)")
    parser.add_argument(
        "--cache-type", choices=("f16", "q8_0", "f32"), default="f16", help="number format of the KV cache"
    )


def add_mmproj(parser: argparse.ArgumentParser) -> None:
    """The file of the part for pictures."""
    parser.add_argument(
        "--mmproj", type=Path, metavar="FILE", help="the model's file for pictures (default: the one beside the model)"
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


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
