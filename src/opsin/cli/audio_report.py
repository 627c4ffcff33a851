"""What `opsin inspect` tells of the part of a file that hears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.cli.vision_report import number, text
from opsin.errors import OpsinError
from opsin.gguf import File
from opsin.media.mel import FRAMES
from opsin.media.sound import RATE, Waveform
from opsin.models import hearers, load_audio_encoder, load_hearer
from opsin.nn.meta import MetaReader
from opsin.spans import MediaSpan

_TRIED = 30  # seconds of sound


@dataclass(frozen=True)
class AudioReport:
    """A part that hears. Numbers that the file lacks are None; `problem` says why opsin cannot run it, if so.

    `width` is that of its own rows, `projection` that of the embeddings which it makes. `seconds` are those that it
    hears at once, `token_rate` what a second takes of a context, and `memory_rows` what a window has beside it, for
    layers of the text model that look at it there: each None where there is none. `writes`: it writes down what was
    said, and is not talked to.
    """

    projector: str
    bands: int | None
    layers: int | None
    width: int | None
    projection: int | None
    tensors: int
    file_bytes: int
    weight_bytes: int | None
    seconds: float | None
    token_rate: float | None
    memory_rows: int | None
    writes: bool
    problem: str | None


def find_audio(file: File) -> AudioReport | None:
    """The part of a file that hears, if it has one."""
    if "clip.has_audio_encoder" not in file.metadata and "clip.audio.block_count" not in file.metadata:
        return None
    infos = [info for name, info in file.tensors.items() if name.startswith(("a.", "mm.a."))]
    projector = text(file, "clip.audio.projector_type") or text(file, "clip.projector_type")
    reader, spans, problem = MetaReader(file, vectors=True), list[MediaSpan](), None
    try:
        spans = _spans(file, reader, projector)
    except OpsinError as error:
        problem = str(error)
    longest = max((span.features.shape[0] for span in spans if span.features is not None), default=0)
    rows, beside = sum(span.rows for span in spans), max((span.memory for span in spans), default=0)
    return AudioReport(
        projector=projector,
        bands=number(file, "audio.num_mel_bins"),
        layers=number(file, "audio.block_count"),
        width=number(file, "audio.embedding_length"),
        projection=number(file, "audio.projection_dim"),
        tensors=len(infos),
        file_bytes=sum(info.nbytes for info in infos),
        weight_bytes=reader.bytes if problem is None else None,
        seconds=longest / FRAMES if longest else None,
        token_rate=round(rows / _TRIED, 2) if rows else None,
        memory_rows=beside or None,
        writes=projector in hearers(),
        problem=problem,
    )


def _spans(file: File, reader: MetaReader, projector: str) -> list[MediaSpan]:
    """What half a minute becomes, by an encoder built from shapes alone."""
    if projector in hearers():
        hearer = load_hearer(file, reader)
        return [hearer.span(np.zeros((hearer.frames, hearer.bands), np.float32))]
    silence = Waveform(np.zeros(_TRIED * RATE, np.float32))
    spans = load_audio_encoder(file, reader).layout(silence).spans
    return [span for span in spans if isinstance(span, MediaSpan)]


def audio_lines(audio: AudioReport) -> list[str]:
    """Lines for a person."""
    unknown = "?"
    lines = [
        f"  projector {audio.projector!a}, {audio.tensors} tensors, {audio.file_bytes / 1e6:.1f} MB in the file",
        f"  network   {audio.layers or unknown} layers of width {audio.width or unknown}, "
        f"to embeddings of {audio.projection or unknown}",
    ]
    if audio.problem is not None or audio.weight_bytes is None:
        return [*lines, f"  opsin cannot run this part: {audio.problem}"]
    bands = f" in {audio.bands} mel bands" if audio.bands else ""
    return [
        *lines,
        f"  weights   {audio.weight_bytes / 1e6:.1f} MB",
        *([f"  sounds    {audio.seconds:g} seconds at once{bands}"] if audio.seconds else []),
        *([f"  tokens    {audio.token_rate:g} a second"] if audio.token_rate else []),
        *([f"  beside    {audio.memory_rows} rows for a window"] if audio.memory_rows else []),
    ]
