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
from opsin.cli.chat_flags import thinks, tokens, variables
from opsin.cli.request_flags import REQUEST_FLAGS
from opsin.cli.start_lines import OFF, ON, leave_variables, spoken
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


def _switch(text: str) -> bool:
    """As llama.cpp reads yes and no."""
    if text.strip().lower() not in (*ON, *OFF):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text.strip().lower() in ON


def _no(text: str) -> bool:
    """A variable that is called NO_something says so, whatever its value is."""
    return False


KEYS = ("LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "OPSIN_API_KEY", "VLLM_API_KEY")
_GUARDS = (*KEYS, "LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE")  # never left aside, not even empty
_READ = {
    "LLAMA_ARG_MODEL": _Variable("model", options.place),
    "LLAMA_ARG_HF_REPO": _Variable("model", options.repository),
    "LLAMA_ARG_HF_FILE": _Variable("hf_file"),
    "LLAMA_ARG_MMPROJ": _Variable("mmproj", Path),
    "LLAMA_ARG_MMPROJ_AUTO": _Variable("vision", _switch),
    "LLAMA_ARG_NO_MMPROJ_AUTO": _Variable("vision", _no),
    "LLAMA_ARG_ALIAS": _Variable("alias"),
    "LLAMA_ARG_TAGS": _Variable("tags"),
    "LLAMA_ARG_POOLING": _Variable("pooling"),
    "LLAMA_ARG_CTX_SIZE": _Variable("context", options.positive, auto="0"),
    "LLAMA_ARG_N_PARALLEL": _Variable("parallel", options.positive, auto="-1"),
    "LLAMA_ARG_CACHE_TYPE_K": _Variable("cache_type_k"),
    "LLAMA_ARG_CACHE_TYPE_V": _Variable("cache_type_v"),
    "LLAMA_ARG_IMAGE_MIN_TOKENS": _Variable("min_image_tokens", options.positive, auto="-1"),
    "LLAMA_ARG_IMAGE_MAX_TOKENS": _Variable("max_image_tokens", options.positive, auto="-1"),
    "LLAMA_ARG_MODELS_DIR": _Variable("models_dir", Path),
    "LLAMA_ARG_MODELS_PRESET": _Variable("models", Path),
    "LLAMA_ARG_MODELS_MAX": _Variable("models_max", options.positive),
    "LLAMA_ARG_MODELS_AUTOLOAD": _Variable("autoload", _switch),
    "LLAMA_ARG_NO_MODELS_AUTOLOAD": _Variable("autoload", _no),
    "LLAMA_ARG_SPEC_DRAFT_N_MAX": _Variable("guesses", options.natural),
    "LLAMA_ARG_SPEC_DRAFT_MODEL": _Variable("draft", options.place),
    "LLAMA_ARG_THREADS": _Variable("threads", options.positive, auto="-1"),
    "LLAMA_ARG_HOST": _Variable("host"),
    "LLAMA_ARG_PORT": _Variable("port", options.natural),
    "LLAMA_ARG_SSL_KEY_FILE": _Variable("ssl_key_file", Path),
    "LLAMA_ARG_SSL_CERT_FILE": _Variable("ssl_cert_file", Path),
    "LLAMA_ARG_API_PREFIX": _Variable("api_prefix"),
    "LLAMA_ARG_REUSE_PORT": _Variable("reuse_port", _switch),
    "LLAMA_ARG_TIMEOUT": _Variable("timeout", options.positive),
    "LLAMA_ARG_SSE_PING_INTERVAL": _Variable("sse_ping_interval", int),
    "LLAMA_ARG_CORS_ORIGINS": _Variable("allow_origin", _one),
    "LLAMA_ARG_ENDPOINT_METRICS": _Variable("metrics", _switch),
    "LLAMA_ARG_ENDPOINT_SLOTS": _Variable("slots", _switch),
    "LLAMA_ARG_NO_ENDPOINT_SLOTS": _Variable("slots", _no),
    "LLAMA_ARG_UI": _Variable("page", _switch),
    "LLAMA_ARG_NO_UI": _Variable("page", _no),
    "LLAMA_ARG_CHAT_TEMPLATE": _Variable("chat_template"),
    "LLAMA_ARG_CHAT_TEMPLATE_FILE": _Variable("chat_template_file", Path),
    "LLAMA_ARG_CHAT_TEMPLATE_KWARGS": _Variable("chat_template_kwargs", variables),
    "LLAMA_CHAT_TEMPLATE_KWARGS": _Variable("chat_template_kwargs", variables),
    "LLAMA_ARG_THINK": _Variable("reasoning_format"),
    "LLAMA_ARG_REASONING": _Variable("reasoning", thinks),
    "LLAMA_ARG_REASONING_EFFORT": _Variable("reasoning_effort"),
    "LLAMA_ARG_THINK_BUDGET": _Variable("reasoning_budget", tokens),
    "LLAMA_ARG_THINK_BUDGET_MESSAGE": _Variable("reasoning_budget_message"),
    "LLAMA_ARG_PREFILL_ASSISTANT": _Variable("prefill", _switch),
    "LLAMA_ARG_NO_PREFILL_ASSISTANT": _Variable("prefill", _no),
    "LLAMA_ARG_OFFLINE": _Variable("offline", _switch),
    "LLAMA_MEDIA_MARKER": _Variable("media_marker"),
    "LLAMA_ARG_API_KEY_FILE": _Variable("api_key_file", _file),
    **{
        f"LLAMA_ARG_{flag.variable}": _Variable(flag.option, flag.read)
        for flag in REQUEST_FLAGS
        if flag.variable and flag.read
    },
    **dict.fromkeys(KEYS, _Variable("api_key", _one)),
}


def fill(args: argparse.Namespace, variables: Mapping[str, str]) -> list[str]:
    """Set what the command line left open; what a person should know of it, in lines.

    Raises RequestError for a value that cannot be taken, and for a guard that there is not. No key is in it.
    """
    given = {variable.option for variable in _READ.values() if _is_given(getattr(args, variable.option))}
    given |= {"hf_file"} if "model" in given else set()  # it is a file of another repository
    taken, aside = [], []
    for name, variable in _READ.items():
        value = variables.get(name)
        if value is None or (name not in _GUARDS and value.strip() in ("", variable.auto)):
            continue
        if variable.option in given:
            aside.append(name)
            continue
        made = _read(name, variable, value)
        before = getattr(args, variable.option)
        setattr(args, variable.option, before + made if isinstance(made, list) else made)
        taken.append(name)
    left, unread = leave_variables({name: value for name, value in variables.items() if name not in _READ})
    return [*_lines(taken, aside, unread), *spoken(left)]


def _is_given(value: object) -> bool:
    return not (value is None or value is True or value == [])


def _read(name: str, variable: _Variable, value: str) -> object:
    if name in _GUARDS and not value.strip():
        raise RequestError(f"{name} is set and empty", hint="give a value, or unset it")
    try:
        return variable.read(value)
    except ValueError:
        raise RequestError(f"{name}: {value!r:.80} cannot be taken") from None
    except argparse.ArgumentTypeError as error:
        raise RequestError(f"{name}: {error}") from None


def _lines(taken: list[str], aside: list[str], unread: list[str]) -> Iterator[str]:
    if taken:
        yield f"from the environment: {', '.join(taken)}"
    if aside:
        yield f"left aside, since the command line wins: {', '.join(aside)}"
    if unread:
        yield f"set in the environment, and not read by this server: {', '.join(unread)}"
