"""llama-server's flags for chats: another template, its variables, and what holds of thoughts where nobody says."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from opsin.config import expanded
from opsin.errors import RequestError

_THINKS: Final = {"on": True, "off": False, "auto": None}


def variables(text: str) -> dict[str, Any]:
    """Variables of a template, as a JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no JSON object")
    return found


def thinks(text: str) -> str:
    """on, off or auto."""
    if text not in _THINKS:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is none of {', '.join(_THINKS)}")
    return text


def tokens(text: str) -> int:
    """Of thoughts; -1 for no limit."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a whole number") from None


def add_chat_flags(parser: argparse.ArgumentParser) -> None:
    """Options for all of them."""
    group = parser.add_argument_group("how chats are written and read")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--chat-template", metavar="JINJA", help="the template, or llama.cpp's name of one (default: the file's)"
    )
    source.add_argument("--chat-template-file", type=expanded, metavar="FILE", help="the same, in a file")
    group.add_argument("--chat-template-kwargs", type=variables, metavar="JSON", help="variables of the template")
    group.add_argument("-rea", "--reasoning", type=thinks, metavar="on|off|auto", help="whether to think")
    group.add_argument("--reasoning-effort", metavar="WORD", help="how hard: low, medium, high, or the template's own")
    group.add_argument("--reasoning-budget", type=tokens, metavar="N", help="tokens of thoughts; -1: no limit")
    group.add_argument("--reasoning-budget-message", metavar="TEXT", help="what thoughts end with that became too long")
    group.add_argument(
        "--prefill-assistant", dest="prefill", action="store_true", default=None, help="go on with the assistant's last"
    )
    group.add_argument(
        "--no-prefill-assistant", dest="prefill", action="store_false", default=None, help="begin a new one behind it"
    )
    group.add_argument("--reasoning-format", metavar="FORM", help="where they are told: auto, none, deepseek")


def template_of(args: argparse.Namespace) -> str | None:
    """The template that was given. Raises RequestError for a name that none has, and for a file that cannot be read."""
    from opsin.text.named_templates import NAMED_TEMPLATES

    given: str | None = args.chat_template
    if given and "{" not in given:
        if given.strip() not in NAMED_TEMPLATES:
            hint = f"give it in Jinja, as --chat-template-file, or one of {', '.join(NAMED_TEMPLATES)}"
            raise RequestError(f"--chat-template {given!r:.80} is no template", hint=hint)
        return NAMED_TEMPLATES[given.strip()]
    path = args.chat_template_file
    if given or path is None:
        return given or None
    try:
        text: str = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot read the template {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"the template {path} is no text", hint="write it as UTF-8") from None
    return text


def chat_defaults(args: argparse.Namespace) -> dict[str, Any]:
    """What is said of thoughts and variables, as fields of a conversation."""
    effort = args.reasoning_effort
    said = {
        "chat_template_kwargs": args.chat_template_kwargs or None,
        "enable_thinking": _THINKS[args.reasoning or "auto"],
        "reasoning_effort": None if effort == "default" else effort,
        "thinking_budget_tokens": None if args.reasoning_budget == -1 else args.reasoning_budget,
        "reasoning_budget_message": args.reasoning_budget_message or None,
        "reasoning_format": args.reasoning_format,
    }
    return {name: value for name, value in said.items() if value is not None}
