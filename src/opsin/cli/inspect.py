"""`opsin inspect`: what a model file holds, and the memory that it needs. Reads no weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.config import expanded
from opsin.errors import OpsinError

if TYPE_CHECKING:
    from opsin.cli.vision import VisionReport
    from opsin.gguf import File
    from opsin.models import Decoder

_SHOWN = 100  # characters of a value


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("inspect", help="show what a model file holds", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("file", type=expanded, metavar="FILE", help="GGUF file, or the first of its splits")
    parser.add_argument("-c", "--context", type=options.positive, metavar="N", help="tokens to count memory for")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


@dataclass(frozen=True)
class Tensors:
    """The tensors of one type."""

    count: int
    parameters: int
    file_bytes: int


@dataclass(frozen=True)
class Contents:
    """What a file holds. Memory is None where opsin cannot run the model, and `problem` says why.

    `metadata` has short values as they are and long ones cut or counted.
    """

    path: str
    architecture: str
    name: str
    parameters: int
    file_bytes: int
    tensors: dict[str, Tensors]
    metadata: dict[str, str | int | float | bool]
    context: int | None
    weight_bytes: int | None
    cache_bytes: dict[str, int] | None
    problem: str | None
    vision: VisionReport | None = None
    notes: tuple[str, ...] = ()


def run(args: argparse.Namespace) -> int:
    """Open, look, print."""
    from opsin.gguf import File

    with File.open(args.file) as file:
        contents = look(file, args.context)
    print(json.dumps(asdict(contents)) if args.json else _page(contents))
    return 0


def look(file: File, context: int | None = None) -> Contents:
    """Count what a file holds. `context` is in tokens; None takes the model's own."""
    from opsin.cli.vision import find_vision
    from opsin.quants import by_id

    kinds: dict[str, Tensors] = {}
    for info in file.tensors.values():
        name = by_id(info.type).name
        before = kinds.get(name, Tensors(0, 0, 0))
        size = prod(info.shape)
        kinds[name] = Tensors(before.count + 1, before.parameters + size, before.file_bytes + info.nbytes)
    memory, problem = _memory(file, context)
    notes, problem = _notes(file) if problem is None else ((), problem)
    return Contents(
        path=str(file.path),
        architecture=file.get_str("general.architecture"),
        name=file.get_str("general.name", ""),
        parameters=sum(kind.parameters for kind in kinds.values()),
        file_bytes=sum(kind.file_bytes for kind in kinds.values()),
        tensors=dict(sorted(kinds.items(), key=lambda item: -item[1].file_bytes)),
        metadata={key: _short(value) for key, value in file.metadata.items()},
        context=memory.context if memory else None,
        weight_bytes=memory.weights if memory else None,
        cache_bytes=memory.cache if memory else None,
        problem=problem,
        vision=find_vision(file),
        notes=notes,
    )


@dataclass(frozen=True)
class _Memory:
    context: int
    weights: int
    cache: dict[str, int]


def _memory(file: File, context: int | None) -> tuple[_Memory | None, str | None]:
    """What the model would take, found by building it from shapes alone; or why it cannot be built."""
    from opsin.gguf.roles import PROJECTOR
    from opsin.models import load_decoder
    from opsin.nn.meta import MetaReader

    if file.get_str("general.architecture") == PROJECTOR:
        return None, "it has no part for text; give it as --mmproj beside the model that it belongs to"

    reader = MetaReader(file, vectors=True)
    try:
        decoder = load_decoder(file, reader)
    except OpsinError as error:
        return None, str(error)
    rows = min(context or decoder.context, decoder.context)
    return _Memory(rows, reader.bytes, _cache_bytes(decoder, rows)), None


def _notes(file: File) -> tuple[tuple[str, ...], str | None]:
    """What the file lacks or says wrongly; or why its texts cannot be read. The decoder was built before."""
    from opsin.api.notes import find_notes
    from opsin.text import ChatTemplate, Tokenizer

    try:
        tokenizer = Tokenizer.from_metadata(file.metadata)
        return tuple(find_notes(file, tokenizer, ChatTemplate.from_metadata(file.metadata))), None
    except OpsinError as error:
        return (), str(error)


def _cache_bytes(decoder: Decoder, rows: int) -> dict[str, int]:
    """Bytes of the KV cache of one sequence, by number format."""
    from opsin.ops import PAGE
    from opsin.ops.layout import page_bytes

    pages = -(-rows // PAGE)
    shapes = decoder.groups.values()
    return {
        kind: sum(2 * pages * s.layers * s.heads * page_bytes(s.width, kind) for s in shapes)
        for kind in ("f16", "q8_0", "f32")
    }


def _short(value: object) -> str | int | float | bool:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"
    size = len(value) if hasattr(value, "__len__") else 0
    return f"{size} values"


def _page(contents: Contents) -> str:
    lines = [
        f"{contents.path}: {contents.name!a}, architecture {contents.architecture!a}",
        f"parameters  {contents.parameters:,}",
        f"weights     {contents.file_bytes / 1e6:.1f} MB in the file",
        "",
        "tensors",
        *(
            f"  {name:8} {kind.count:5}  {kind.parameters:15,} parameters  {kind.file_bytes / 1e6:9.1f} MB"
            for name, kind in contents.tensors.items()
        ),
        "",
        "memory",
        *_memory_lines(contents),
        *_vision_lines(contents.vision),
        *(["", "notes", *(f"  {ascii(note)[1:-1]}" for note in contents.notes)] if contents.notes else []),
        "",
        "metadata",
        *_metadata_lines(contents.metadata),
    ]
    return "\n".join(lines)


def _memory_lines(contents: Contents) -> list[str]:
    if contents.weight_bytes is None or contents.cache_bytes is None:
        return [f"  opsin cannot run this model: {contents.problem}"]
    return [
        f"  weights   {contents.weight_bytes / 1e6:9.1f} MB",
        *(
            f"  cache     {size / 1e6:9.1f} MB in {kind}, {contents.context} tokens"
            for kind, size in contents.cache_bytes.items()
        ),
    ]


def _vision_lines(vision: VisionReport | None) -> list[str]:
    from opsin.cli.vision import vision_lines

    return [] if vision is None else ["", "vision", *vision_lines(vision)]


def _metadata_lines(metadata: Mapping[str, object]) -> list[str]:
    """Strings in quotes, so that nothing in them reaches the terminal as it is."""
    return [f"  {key}: {ascii(value) if isinstance(value, str) else value}" for key, value in metadata.items()]
