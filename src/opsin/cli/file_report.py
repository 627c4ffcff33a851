"""What `opsin inspect` tells of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from opsin.api.memory_need import cache_bytes, cache_page_bytes
from opsin.api.notes import find_notes
from opsin.cli.audio_report import AudioReport, audio_lines, find_audio
from opsin.cli.options import CACHE_TYPES
from opsin.cli.vision_report import VisionReport, find_vision, vision_lines
from opsin.errors import OpsinError
from opsin.gguf import File
from opsin.gguf.roles import PROJECTOR, find_other
from opsin.models import is_known, load_decoder
from opsin.nn.batch import MEMORY
from opsin.nn.meta import MetaReader
from opsin.ops import PAGE
from opsin.quants import by_id
from opsin.text import ChatTemplate, Tokenizer

_SHOWN = 100  # characters of a value


@dataclass(frozen=True)
class Tensors:
    """The tensors of one type."""

    count: int
    parameters: int
    file_bytes: int


@dataclass(frozen=True)
class FileReport:
    """What a file holds. Memory is None where opsin cannot run the model, and `problem` says why.

    `active_parameters` are those that a token passes through: of experts, as many as it chooses. `metadata` has short
    values as they are and long ones cut or counted. `memory_row_bytes` is what the cache takes for a row of a picture
    that layers look at beside the text, by number format; None where no layers do. `state_bytes` are those of the
    recurrent states of one sequence, and `token_bytes` what the cache takes for each of its tokens, by number format.
    `next_token_bytes` are those in the file of layers that guess the token after the next, None where there are none;
    `guesses` says whether opsin has them guess.
    """

    path: str
    architecture: str
    name: str
    parameters: int
    active_parameters: int
    file_bytes: int
    tensors: dict[str, Tensors]
    metadata: dict[str, str | int | float | bool]
    context: int | None
    weight_bytes: int | None
    cache_bytes: dict[str, int] | None
    memory_row_bytes: dict[str, float] | None
    token_bytes: dict[str, float] | None
    state_bytes: int | None
    problem: str | None
    next_token_bytes: int | None = None
    guesses: bool = False
    vision: VisionReport | None = None
    audio: AudioReport | None = None
    notes: tuple[str, ...] = ()


def report_file(file: File, context: int | None = None) -> FileReport:
    """Count what a file holds. `context` is in tokens; None takes the model's own."""
    kinds: dict[str, Tensors] = {}
    for info in file.tensors.values():
        name = by_id(info.type).name
        before = kinds.get(name, Tensors(0, 0, 0))
        size = prod(info.shape)
        kinds[name] = Tensors(before.count + 1, before.parameters + size, before.file_bytes + info.nbytes)
    memory, problem = _memory(file, context)
    audio = find_audio(file)  # before notes, which tell of keys that nobody asked for
    writes = audio is not None and audio.writes
    notes, problem = _notes(file, hears=writes) if problem is None else ((), problem)
    return FileReport(
        path=str(file.path),
        architecture=file.get_str("general.architecture", ""),
        name=file.get_str("general.name", ""),
        parameters=sum(kind.parameters for kind in kinds.values()),
        active_parameters=_active_parameters(file),
        file_bytes=sum(kind.file_bytes for kind in kinds.values()),
        tensors=dict(sorted(kinds.items(), key=lambda item: -item[1].file_bytes)),
        metadata={key: _short(value) for key, value in file.metadata.items()},
        context=memory.context if memory else None,
        weight_bytes=memory.weights if memory else None,
        cache_bytes=memory.cache if memory else None,
        memory_row_bytes=memory.beside if memory else None,
        token_bytes=memory.token if memory else None,
        state_bytes=memory.states if memory else None,
        problem=problem,
        next_token_bytes=_next_token_bytes(file),
        guesses=memory is not None and memory.guesses,
        vision=find_vision(file),
        audio=audio,
        notes=notes,
    )


def _active_parameters(file: File) -> int:
    """Of experts, as many as a token chooses."""
    prefix = file.get_str("general.architecture", "")
    experts, used = (file.metadata.get(f"{prefix}.expert_{name}", 0) for name in ("count", "used_count"))
    share = Fraction(used, experts) if isinstance(experts, int) and isinstance(used, int) and 0 < used <= experts else 1
    sizes = ((prod(info.shape), "_exps." in info.name) for info in file.tensors.values())
    return sum(int(size * share) if of_experts else size for size, of_experts in sizes)


@dataclass(frozen=True)
class _Memory:
    context: int
    weights: int
    cache: dict[str, int]
    beside: dict[str, float] | None
    token: dict[str, float]
    states: int
    guesses: bool


def _memory(file: File, context: int | None) -> tuple[_Memory | None, str | None]:
    """What the model would take, found by building it from shapes alone; or why it cannot be built."""
    other = find_other(file, is_known=is_known(file))
    if other is not None:
        return None, f"it is {other[0]}; {other[1]}"
    if file.get_str("general.architecture", "") == PROJECTOR:
        return None, "it has no part for text; give it as --mmproj beside the model that it belongs to"
    reader = MetaReader(file, vectors=True)
    try:
        decoder = load_decoder(file, reader)
    except OpsinError as error:
        return None, str(error)
    rows = min(context or decoder.context, decoder.context)
    own = [shape for name, shape in decoder.groups.items() if name != MEMORY]
    beside, count = decoder.groups.get(MEMORY), -(-rows // PAGE)
    cache: dict[str, int] = {kind: cache_bytes(own, kind, count=count, sequences=1) for kind in CACHE_TYPES}
    return _Memory(
        rows,
        reader.bytes,
        cache,
        None if beside is None else {kind: cache_page_bytes([beside], kind) / PAGE for kind in CACHE_TYPES},
        {kind: size / (count * PAGE) for kind, size in cache.items()},
        sum(shape.bytes for shape in decoder.states.values()),
        decoder.guesses,
    ), None


def _next_token_bytes(file: File) -> int | None:
    """Of layers that guess (multi-token prediction)."""
    layers = {name.split(".nextn.")[0] for name in file.tensors if ".nextn." in name}
    sizes = [info.nbytes for name, info in file.tensors.items() if any(name.startswith(f"{la}.") for la in layers)]
    return sum(sizes) if layers else None


def _notes(file: File, *, hears: bool) -> tuple[tuple[str, ...], str | None]:
    """What the file lacks or says wrongly; or why its texts cannot be read. The decoder was built before."""
    try:
        tokenizer = Tokenizer.from_metadata(file.metadata)
        return tuple(find_notes(file, tokenizer, ChatTemplate.from_metadata(file.metadata), hears=hears)), None
    except OpsinError as error:
        return (), str(error)


def _short(value: object) -> str | int | float | bool:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"
    size = len(value) if hasattr(value, "__len__") else 0
    return f"{size} values"


def page(report: FileReport) -> str:
    lines = [
        f"{report.path}: {report.name!a}, architecture {report.architecture!a}",
        f"parameters  {report.parameters:,}{_active(report)}",
        f"weights     {report.file_bytes / 1e6:.1f} MB in the file",
        "",
        "tensors",
        *(
            f"  {name:8} {kind.count:5}  {kind.parameters:15,} parameters  {kind.file_bytes / 1e6:9.1f} MB"
            for name, kind in report.tensors.items()
        ),
        "",
        "memory",
        *_memory_lines(report),
        *([] if report.vision is None else ["", "vision", *vision_lines(report.vision)]),
        *([] if report.audio is None else ["", "audio", *audio_lines(report.audio)]),
        *(["", "notes", *(f"  {ascii(note)[1:-1]}" for note in report.notes)] if report.notes else []),
        "",
        "metadata",
        *_metadata_lines(report.metadata),
    ]
    return "\n".join(lines)


def _active(report: FileReport) -> str:
    fewer = report.active_parameters < report.parameters
    return f", of which a token passes through {report.active_parameters:,}" if fewer else ""


def _memory_lines(report: FileReport) -> list[str]:
    if report.weight_bytes is None or report.cache_bytes is None:
        return [f"  opsin cannot run this model: {report.problem}"]
    return [
        f"  weights   {report.weight_bytes / 1e6:9.1f} MB",
        *(
            f"  cache     {size / 1e6:9.1f} MB in {kind}, {report.context} tokens{_each(report, kind)}"
            for kind, size in report.cache_bytes.items()
        ),
        *([f"  states    {report.state_bytes / 1e6:9.1f} MB a sequence"] if report.state_bytes else []),
        *_guess_lines(report),
        *_picture_lines(report),
    ]


def _guess_lines(report: FileReport) -> list[str]:
    """What a layer that guesses the token after the next takes, of the weights above."""
    if report.next_token_bytes is None:
        return []
    use = "guesses tokens ahead" if report.guesses else "is left aside"
    return [f"  of them   {report.next_token_bytes / 1e6:9.1f} MB of a next-token layer (MTP), which {use}"]


def _each(report: FileReport, kind: str) -> str:
    return "" if report.token_bytes is None else f", {report.token_bytes[kind] / 1e3:.1f} kB each"


def _picture_lines(report: FileReport) -> list[str]:
    """What the largest picture takes, where layers look at pictures beside the text."""
    rows = report.vision.memory_rows if report.vision is not None else None
    if report.memory_row_bytes is None or not rows:
        return []
    return [
        f"  a picture {rows * size / 1e6:9.1f} MB in {kind} at most, {rows} rows beside the text"
        for kind, size in report.memory_row_bytes.items()
    ]


def _metadata_lines(metadata: Mapping[str, object]) -> list[str]:
    """Strings in quotes, so that nothing in them reaches the terminal as it is."""
    return [f"  {key}: {ascii(value) if isinstance(value, str) else value}" for key, value in metadata.items()]
