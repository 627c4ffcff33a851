"""A checkpoint's chat templates as GGUF's keys, out of the source that transformers takes.

For text, files named *.jinja come before tokenizer_config.json. Of models that see, transformers asks the processor,
for which chat_template.json comes before all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from opsin.convert.checkpoint import read_json
from opsin.errors import FileError
from opsin.gguf.writer import Writable
from opsin.text.generator import MAX_SOURCE

_KEY = "tokenizer.chat_template"
_JINJA, _MORE, _LEGACY, _CONFIG = (
    "chat_template.jinja", "additional_chat_templates", "chat_template.json", "tokenizer_config.json",
)  # fmt: skip


def template_keys(folder: Path, *, has_vision: bool) -> tuple[dict[str, Writable], list[str]]:
    """Keys and notes: the ordinary template, and others by name. Raises FileError."""
    legacy = _named(folder, read_json(folder / _LEGACY, optional=True).get("chat_template"))
    files = _files(folder)
    told = _named(folder, read_json(folder / _CONFIG, optional=True).get("chat_template"))
    sources = {_JINJA: files, _CONFIG: told, _LEGACY: legacy}
    order = (_LEGACY, _JINJA, _CONFIG) if has_vision else (_JINJA, _CONFIG, _LEGACY)
    taken = next((name for name in order if sources[name]), None)
    if taken is None:
        return {}, ["there is no chat template: conversations will be joined by line ends, without roles"]
    texts = dict(sources[taken])
    long = next((name for name, text in texts.items() if len(text) > MAX_SOURCE), None)
    if long is not None:
        raise FileError(
            f"{folder}: the chat template {long!r:.40} has {len(texts[long])} characters, more than {MAX_SOURCE}",
            hint="nobody's template is so long: download it again",
        )
    notes = [
        f"{name} holds another chat template than {taken}, which transformers takes: it is left out"
        for name in order if sources[name] and sources[name].get("default") not in (None, texts.get("default"))
    ]  # fmt: skip
    ordinary = texts.pop("default", None)
    if ordinary is None:
        notes.append(f"{taken}: of the templates {', '.join(sorted(texts))} none is the ordinary one")
    found: dict[str, Writable] = {f"{_KEY}.{name}": text for name, text in texts.items()}
    if texts:
        found["tokenizer.chat_templates"] = sorted(texts)
    return {**({_KEY: ordinary} if ordinary is not None else {}), **found}, notes


def _files(folder: Path) -> dict[str, str]:
    paths = {"default": folder / _JINJA} if (folder / _JINJA).is_file() else {}
    paths |= {path.stem: path for path in sorted((folder / _MORE).glob("*.jinja")) if path.is_file()}
    try:
        return {name: path.read_text("utf-8") for name, path in paths.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{folder}: a chat template cannot be read: {error}", hint="download it again") from error


def _named(folder: Path, told: object) -> dict[str, str]:
    """Templates by name; a text alone is the ordinary one."""
    if told is None or isinstance(told, str):
        return {"default": told} if told else {}
    entries = [{"name": name, "template": text} for name, text in told.items()] if isinstance(told, dict) else told
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise FileError(f"{folder}: chat_template is {told!r:.60}, no template", hint="download it again")
    found = {str(entry.get("name")): entry.get("template") for entry in entries}
    return {name: text for name, text in found.items() if isinstance(text, str)}
