"""What a model will take in memory, found from headers before anything is taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from opsin.api.files import find
from opsin.api.loading import cache_rows, check_is_model
from opsin.engine.states import count_slots
from opsin.engine.windows import count_places, is_near, widest
from opsin.errors import ModelError
from opsin.gguf.roles import PROJECTOR, is_projector
from opsin.models import load_decoder, open_model
from opsin.nn.batch import MEMORY, GroupShape
from opsin.nn.meta import MetaReader
from opsin.ops import PAGE, PageType
from opsin.ops.layout import page_bytes

_STEP_ROWS: Final = 512  # of a step's values
_WIDTHS: Final = 24  # values of a row, in widths of the model, that a step holds at once: about


def memory_need(
    path: str | Path, mmproj: str | Path | None = None, *, vision: bool = True, context: int | None = None,
    pages: PageType = "f16", sequences: int = 32, states: int | None = None,
) -> int:  # fmt: skip
    """Bytes that `load` with these options will take: weights, cache, states and a step's values.

    The parts for pictures and sound, which are read when the first of them comes, are counted whole.
    Raises what `load` raises for what headers say.
    """
    files = find(path, mmproj, vision=vision)
    file, _ = files.open(vision=vision and not files.chosen)
    with file:
        check_is_model(file)
        if file.get_str("general.architecture", "") == PROJECTOR:
            raise ModelError(f"{file.path} holds no text model", hint="give it as mmproj, and the model that it is of")
        reader = MetaReader(file, vectors=True)
        decoder = load_decoder(file, reader)
        usual = files.found.context if files.found is not None else None
        rows = cache_rows(decoder, context, usual, sequences)
        count = -(-rows // PAGE) + sequences
        own = [shape for name, shape in decoder.groups.items() if name != MEMORY]
        slots = count_slots(decoder.states, states, sequences=sequences, pages=count)
        others = [name for name in reader.unread() if vision or not is_projector(name)]
        beside = sum(file.tensors[name].nbytes for name in others)
        step = 4 * _STEP_ROWS * _WIDTHS * decoder.width + 4 * max(64, sequences) * decoder.vocabulary
    if vision and files.vision:
        with open_model(files.vision[0]) as tower:
            beside += sum(info.nbytes for name, info in tower.tensors.items() if is_projector(name))
    state_bytes = slots * sum(shape.bytes for shape in decoder.states.values())
    cache = cache_bytes(own, pages, count=count, sequences=sequences)
    return reader.bytes + cache + state_bytes + beside + step


def cache_bytes(shapes: Sequence[GroupShape], kind: PageType, *, count: int, sequences: int) -> int:
    """Bytes of `count` pages of these groups, of which those with a window keep as many as so many sequences need."""
    places = count_places(widest(shapes), sequences=sequences, rows=max(_STEP_ROWS, sequences), pages=count)
    return sum((places if is_near(shape) else count) * cache_page_bytes([shape], kind) for shape in shapes)


def cache_page_bytes(shapes: Iterable[GroupShape], kind: PageType) -> int:
    """Bytes of a page of all these groups of the KV cache."""
    return sum(2 * shape.layers * shape.heads * page_bytes(shape.width, kind) for shape in shapes)
