"""Models of one server: those of a folder, or those that a file of TOML names, or an INI of llama-server's.

In such a file each section is a model, and its keys are the flags of `opsin serve` without their dashes; what stands
before all sections holds for each of them.
"""

from __future__ import annotations

import argparse
import copy
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsin.cli.presets import preset_sections
from opsin.convert.checkpoint import is_checkpoint
from opsin.errors import FileError, RequestError
from opsin.hub.file_names import is_beside, is_later_split, is_vision


@dataclass(frozen=True)
class ListedModel:
    """A model by its name, and the options that it is loaded with."""

    name: str
    args: argparse.Namespace


def models_of(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[ListedModel]:
    """What --models-dir and --models name. Raises FileError and RequestError."""
    listed: dict[str, ListedModel] = {}
    if args.models_dir is not None:
        for path in _in_folder(args.models_dir):
            name = path.name if path.is_dir() else path.name.removesuffix(".gguf")
            listed[name] = ListedModel(name, _with(args, model=path))
    if args.models is not None:
        is_preset = args.models.suffix.lower() == ".ini"
        for name, words in preset_sections(args.models) if is_preset else _sections(args.models):
            listed[name] = ListedModel(name, _parsed(args, parser, words, f"{args.models}: [{name}]"))
    if not listed:
        raise FileError(f"{args.models_dir or args.models} holds no models", hint="give GGUF files, or a folder each")
    return list(listed.values())


def _with(args: argparse.Namespace, **changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), **changes})


def _in_folder(folder: Path) -> Iterator[Path]:
    """GGUF files, without later splits and parts for pictures, and folders of one model."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(f"{folder} cannot be listed: {error.strerror}") from None
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if is_checkpoint(path) or any(file.suffix.lower() == ".gguf" for file in path.iterdir()):
                yield path
        elif path.suffix.lower() == ".gguf" and not (
            is_vision(path.name) or is_later_split(path.name) or is_beside(path.name)
        ):
            yield path


def _sections(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The name of each model, and its part of a command line."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path} is no TOML: {error}", hint='write [name] and below it model = "file.gguf"') from None
    usual = {key: value for key, value in read.items() if not isinstance(value, Mapping)}
    for name, own in read.items():
        if isinstance(own, Mapping):
            yield name, [word for key, value in {**usual, **own}.items() for word in _words(path, name, key, value)]


def _words(path: Path, name: str, key: str, value: Any) -> Sequence[str]:
    """A key as it stands on a command line. A model's file is looked for beside the list."""
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    if not isinstance(value, str | int | float):
        raise RequestError(f"{path}: [{name}]: {key} is no text and no number", hint="write one flag a line")
    text = str(value)
    if key in ("model", "mmproj") and (path.parent / text).exists():
        text = str(path.parent / text)
    return [f"--{key}={text}"]


def _parsed(
    args: argparse.Namespace, parser: argparse.ArgumentParser, words: list[str], where: str
) -> argparse.Namespace:
    """The options of one model: those of the server, and over them its own."""
    try:
        own: argparse.Namespace = parser.parse_args(words, copy.copy(args))
    except SystemExit:  # argparse has said what is wrong
        raise RequestError(f"{where} cannot be read", hint="its keys are flags of opsin serve") from None
    if own.model is None:
        raise RequestError(f"{where} names no model", hint='add model = "file.gguf", or hf-repo = "owner/repo"')
    return own
