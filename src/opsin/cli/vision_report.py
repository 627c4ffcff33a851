"""What `opsin inspect` tells of the part of a file that sees."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from opsin.errors import FileError, OpsinError
from opsin.gguf import File
from opsin.gguf.roles import is_projector
from opsin.media.picture import Picture
from opsin.models import load_encoder
from opsin.nn.keys import positive_int
from opsin.nn.meta import MetaReader

_LARGEST = 4096  # pixels a side of the picture that is tried


@dataclass(frozen=True)
class VisionReport:
    """A vision part. Numbers that the file lacks are None; `problem` says why opsin cannot run it, if so.

    `width` is that of its own rows, `projection` that of the embeddings which it makes. `rows` are what a square
    picture of `image_size` pixels takes of a context, `memory_rows` what the largest picture has beside it, for layers
    of the text model that look at it there. Audio tensors count in neither bytes.
    """

    projector: str
    image_size: int | None
    patch_size: int | None
    layers: int | None
    width: int | None
    projection: int | None
    tensors: int
    file_bytes: int
    weight_bytes: int | None
    rows: int | None
    memory_rows: int | None
    problem: str | None


def find_vision(file: File) -> VisionReport | None:
    """The vision part of a file, if it has one."""
    if "clip.has_vision_encoder" not in file.metadata and "clip.vision.block_count" not in file.metadata:
        return None
    infos = [info for name, info in file.tensors.items() if is_projector(name) and not name.startswith(("a.", "mm.a."))]
    tried, size, problem = _try(file)
    return VisionReport(
        projector=text(file, "clip.vision.projector_type") or text(file, "clip.projector_type"),
        image_size=number(file, "vision.image_size"),
        patch_size=number(file, "vision.patch_size"),
        layers=number(file, "vision.block_count"),
        width=number(file, "vision.embedding_length"),
        projection=tried[2] if tried else number(file, "vision.projection_dim"),
        tensors=len(infos),
        file_bytes=sum(info.nbytes for info in infos),
        weight_bytes=size,
        rows=tried[0] if tried else None,
        memory_rows=tried[1] if tried else None,
        problem=problem,
    )


def _try(file: File) -> tuple[tuple[int, int, int] | None, int | None, str | None]:
    """Rows, also beside the text, and their width; bytes; found by building it from shapes alone, or why it cannot."""

    reader = MetaReader(file, vectors=True)
    try:
        encoder = load_encoder(file, reader)
        side = min(positive_int(file, "clip.vision.image_size"), _LARGEST)
        usual, largest = (
            encoder.layout(Picture(Image.new("RGB", (pixels, pixels)), None, bytes(16))) for pixels in (side, _LARGEST)
        )
        beside = sum(span.memory for span in largest.spans)
        return (usual.rows, beside, encoder.width), reader.bytes, None
    except OpsinError as error:
        return None, None, str(error)


def vision_lines(vision: VisionReport) -> list[str]:
    """Lines for a person."""
    unknown = "?"
    lines = [
        f"  projector {vision.projector!a}, {vision.tensors} tensors, {vision.file_bytes / 1e6:.1f} MB in the file",
        f"  pictures  {vision.image_size or unknown} pixels a side, patches of {vision.patch_size or unknown}",
        f"  network   {vision.layers or unknown} layers of width {vision.width or unknown}, "
        f"to embeddings of {vision.projection or unknown}",
    ]
    if vision.weight_bytes is None:
        return [*lines, f"  opsin cannot run this part: {vision.problem}"]
    return [
        *lines,
        f"  weights   {vision.weight_bytes / 1e6:.1f} MB",
        f"  tokens    {vision.rows} for a square picture",
        *([f"  beside    {vision.memory_rows} rows for the largest picture"] if vision.memory_rows else []),
    ]


def number(file: File, name: str) -> int | None:
    """Under this name in `clip`, where it is one."""
    value = file.metadata.get(f"clip.{name}")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(file: File, key: str) -> str:
    """Under this key; "" where there is none."""
    try:
        return file.get_str(key, "")
    except FileError:
        return ""
