"""A registry of several models out of a command line: what each is made of, and the memory that there is for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.memory import available_bytes
from opsin.config import expanded
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.api import Model
    from opsin.cli.model_lists import ListedModel
    from opsin.serve.factory import ServedModels
    from opsin.serve.options import Options
    from opsin.serve.registry import ModelRegistry, ModelSource

_MOST = 4  # models in memory at once, as llama-server has it
# What may differ from model to model; the rest is the server's.
_OWN = ("name", "tags", "defaults", "chat_defaults", "grammar", "media_marker", "prefill", "pooling")

SettingsOf = Callable[[argparse.Namespace], "Options"]
Load = Callable[[str | Path, argparse.Namespace], "Model"]
NeedOf = Callable[[str | Path, argparse.Namespace], int]


def add_several(parser: argparse.ArgumentParser) -> None:
    """The options of a server of several models."""
    several = parser.add_argument_group("several models, each in memory while it is wanted")
    several.add_argument("--models-dir", type=expanded, metavar="DIR", help="its GGUF files, and folders of one")
    several.add_argument(
        "--models", "--models-preset", type=expanded, metavar="FILE",
        help="TOML, or INI by its name: a section a model, its keys flags of this command",
    )  # fmt: skip
    several.add_argument("--models-max", type=options.positive, metavar="N", help=f"models in memory at once ({_MOST})")
    several.add_argument(
        "--models-memory", type=options.positive, metavar="MB", help="for all of them (what the machine has free)"
    )
    several.add_argument(
        "--models-autoload", dest="autoload", action="store_true", default=None, help=argparse.SUPPRESS
    )
    several.add_argument(
        "--no-models-autoload", dest="autoload", action="store_false", default=None,
        help="load a model only when /models/load says so",
    )  # fmt: skip


def are_several(args: argparse.Namespace) -> bool:
    """Whether several models were named. Raises RequestError where one is named beside them."""
    if args.models_dir is None and args.models is None:
        return False
    for name in ("model", "mmproj", "hf_file"):
        if getattr(args, name) is not None:
            raise RequestError(
                f"--{name.replace('_', '-')} beside several models", hint="leave it out, or name it in --models FILE"
            )
    return True


def registry_of(
    args: argparse.Namespace, parser: argparse.ArgumentParser, *, settings_of: SettingsOf, load: Load, need: NeedOf
) -> ModelRegistry:
    """All models that a command line names. Raises RequestError and FileError for lists that cannot be read."""
    from opsin.cli.model_lists import models_of
    from opsin.serve.registry import ModelRegistry

    settings = replace(settings_of(args), name=None)

    def sources() -> list[ModelSource]:
        return [_source(listed, settings, settings_of(listed.args), load, need) for listed in models_of(args, parser)]

    return ModelRegistry(
        settings, sources, most=args.models_max or _MOST, free=partial(_free, args.models_memory),
        autoload=args.autoload is not False,
    )  # fmt: skip


def models_of_replicas(
    args: argparse.Namespace, parser: argparse.ArgumentParser, *, settings_of: SettingsOf, load: Load, need: NeedOf
) -> ServedModels:
    """The same as it is sent to replicas, which have what was there when they were started. Raises as `registry_of`."""
    from opsin.cli.fleet import lean
    from opsin.cli.model_lists import ListedModel, models_of
    from opsin.serve.factory import ServedModels

    settings = replace(settings_of(args), name=None)
    listed = [ListedModel(one.name, lean(one.args)) for one in models_of(args, parser)]
    sources = tuple(_source(one, settings, settings_of(one.args), load, need) for one in listed)
    return ServedModels(settings, sources, args.models_max or _MOST, partial(_free, args.models_memory))


def _source(listed: ListedModel, server: Options, own: Options, load: Load, need: NeedOf) -> ModelSource:
    from opsin.serve.registry import ModelSource

    mine = replace(server, **{name: getattr(own, name) for name in _OWN})
    if mine != own:
        raise RequestError(f"[{listed.name}] sets what is the whole server's", hint="write it on the command line")
    where = options.model_file(listed.args)
    path = where if isinstance(where, Path) else None
    return ModelSource(
        listed.name, mine, {name: value for name, value in vars(listed.args).items() if name != "said_of_flags"}, path,
        partial(load, where, listed.args), partial(need, where, listed.args),
    )  # fmt: skip


def _free(budget: int | None, taken: int) -> int:
    """Bytes for another model: of the budget in MB what the loaded ones leave, else what the machine has."""
    return available_bytes() if budget is None else (budget << 20) - taken
