"""What containers made for llama-server say in their environment, taken where `opsin serve` has the thing.

The command line wins, as there. What would have guarded or placed the server is taken or refused, never left aside in
silence; the names of all else that is set and not read are told.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opsin.cli import options
from opsin.errors import RequestError


@dataclass(frozen=True)
class _Variable:
    """The option that a variable sets. `auto` is a value that means what is so without it."""

    option: str
    read: Callable[[str], object] = str
    auto: str = ""


def _one(text: str) -> list[object]:
    return [text]


def _file(text: str) -> list[object]:
    return [Path(text)]


KEYS = ("LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "OPSIN_API_KEY", "VLLM_API_KEY")
_READ = {
    "LLAMA_ARG_MODEL": _Variable("model", options.place),
    "LLAMA_ARG_HF_REPO": _Variable("model", options.repository),
    "LLAMA_ARG_HF_FILE": _Variable("hf_file"),
    "LLAMA_ARG_MMPROJ": _Variable("mmproj", Path),
    "LLAMA_ARG_ALIAS": _Variable("alias"),
    "LLAMA_ARG_CTX_SIZE": _Variable("context", options.positive, auto="0"),
    "LLAMA_ARG_N_PARALLEL": _Variable("parallel", options.positive, auto="-1"),
    "LLAMA_ARG_IMAGE_MIN_TOKENS": _Variable("min_image_tokens", options.positive, auto="-1"),
    "LLAMA_ARG_IMAGE_MAX_TOKENS": _Variable("max_image_tokens", options.positive, auto="-1"),
    "LLAMA_ARG_THREADS": _Variable("threads", options.positive, auto="-1"),
    "LLAMA_ARG_HOST": _Variable("host"),
    "LLAMA_ARG_PORT": _Variable("port", options.natural),
    "LLAMA_ARG_API_KEY_FILE": _Variable("api_key_file", _file),
    **dict.fromkeys(KEYS, _Variable("api_key", _one)),
}
_NO_TLS = "put a proxy that speaks TLS before it, and unset this"


def fill(args: argparse.Namespace, variables: Mapping[str, str]) -> list[str]:
    """Set what the command line left open; what a person should know of it, in lines.

    Raises RequestError for a value that cannot be taken, and for a guard that there is not. No key is in it.
    """
    tls = next((name for name in variables if name.startswith("LLAMA_ARG_SSL_")), None)
    if tls is not None:
        raise RequestError(f"{tls} is set, and this server speaks no TLS", hint=_NO_TLS)
    given = {variable.option for variable in _READ.values() if getattr(args, variable.option) not in (None, [])}
    given |= {"hf_file"} if "model" in given else set()  # it is a file of another repository
    taken, aside = [], []
    for name, variable in _READ.items():
        value = variables.get(name)
        if value is None or (name not in KEYS and value.strip() in ("", variable.auto)):
            continue
        if variable.option in given:
            aside.append(name)
            continue
        made = _read(name, variable, value)
        before = getattr(args, variable.option)
        setattr(args, variable.option, before + made if isinstance(made, list) else made)
        taken.append(name)
    unread = [name for name in sorted(variables) if name not in _READ]
    return list(_lines(taken, aside, unread))


def _read(name: str, variable: _Variable, value: str) -> object:
    if name in KEYS and not value.strip():
        raise RequestError(f"{name} is set and empty", hint="give a key, or unset it")
    try:
        return variable.read(value)
    except argparse.ArgumentTypeError as error:
        raise RequestError(f"{name}: {error}") from None


def _lines(taken: list[str], aside: list[str], unread: list[str]) -> Iterator[str]:
    if taken:
        yield f"from the environment: {', '.join(taken)}"
    if aside:
        yield f"left aside, since the command line wins: {', '.join(aside)}"
    if unread:
        yield f"set in the environment, and not read by this server: {', '.join(unread)}"
