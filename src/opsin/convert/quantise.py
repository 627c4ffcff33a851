"""Quantises a model file: reads it piece by piece, rounds the pieces on several threads, writes them in order.

What becomes what is decided in `mix`; how numbers are rounded, in `quants`. Neither the file nor a tensor is ever in
memory as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.convert.mix import Choice, find_mix, plan
from opsin.errors import ModelError, RequestError
from opsin.gguf import File, NewTensor, Typed, ValueType, check_target, write
from opsin.models import opened
from opsin.quants import BY_NAME, QuantType, by_id

QUANTISATION_VERSION = 2  # of the block formats, as ggml counts
_PIECE = 1 << 18  # weights rounded at a time by one thread: larger arrays leave the cache and take twice as long
_AHEAD = 4  # pieces a thread that may wait for their turn

Told = Callable[[Choice, int], None]


@dataclass(frozen=True)
class Quantised:
    """What was done: the choice for each tensor, and bytes of all tensors before and after."""

    choices: list[Choice]
    bytes_before: int
    bytes_after: int
    weights: int

    @property
    def bits(self) -> float:
        """Bits a weight, over all tensors."""
        return self.bytes_after * 8 / max(1, self.weights)

    @property
    def fallbacks(self) -> list[Choice]:
        """Tensors whose rows did not fill the blocks of the format that the mix wanted."""
        return [choice for choice in self.choices if choice.wanted is not None]


def preview(source: str | Path | File, mix: str, *, allow_requantise: bool = False) -> Quantised:
    """What `quantise` would do, without writing or reading a weight. Raises as it does."""
    with opened(source) as file:
        return _decide(file, mix, allow_requantise)


def quantise(
    source: str | Path | File, target: str | Path, mix: str, *,
    threads: int = 1, allow_requantise: bool = False, told: Told | None = None,
) -> Quantised:  # fmt: skip
    """Write `source` to `target` with its weights in other number formats. The target appears when it is whole.

    Args:
        source: a GGUF file or the first of its splits; a model, a projector, or both in one. It is not changed. One
            that is open stays open.
        target: the file to write. It may exist already, but may not be (a part of) the source.
        mix: a name of `mix.MIXES`, such as Q8_0 or Q4_K_M.
        threads: how many round at once.
        allow_requantise: take weights that are in blocks already, although each rounding loses something.
        told: called with each tensor and its number when its turn comes.

    Raises FileError, ModelError (naming the tensor) or RequestError.
    """
    with opened(source) as file:
        check_target(Path(target), file.paths)
        work = _decide(file, mix, allow_requantise)
        metadata = file.typed | {
            "general.quantization_version": Typed(ValueType.UINT32, QUANTISATION_VERSION),
            "general.file_type": Typed(ValueType.UINT32, find_mix(mix).file_type),
        }
        pool = ThreadPoolExecutor(threads, thread_name_prefix="quantise")
        try:
            tensors = [_make(file, pool, choice, place, threads, told) for place, choice in enumerate(work.choices)]
            write(target, metadata, tensors)
        finally:
            pool.shutdown(cancel_futures=True)
    return work


def _decide(file: File, mix: str, allow_requantise: bool) -> Quantised:
    choices = plan(file, find_mix(mix))
    for choice in choices:
        if choice.kind == choice.before:
            continue
        if by_id(choice.info.type).elements > 1 and not allow_requantise:
            raise RequestError(
                f"{file.path}: tensor {choice.info.name} is {choice.before} already; to round it again would lose more",
                hint="take the file in F16 or BF16, or say --allow-requantize",
            )
    return Quantised(
        choices=choices,
        bytes_before=sum(choice.info.nbytes for choice in choices),
        bytes_after=sum(choice.nbytes for choice in choices),
        weights=sum(choice.info.elements for choice in choices),
    )


def _make(
    file: File, pool: ThreadPoolExecutor, choice: Choice, place: int, threads: int, told: Told | None
) -> NewTensor:
    """A tensor to write, which is made when its turn comes."""
    info = choice.info
    kept = choice.kind == choice.before
    source = by_id(info.type) if not kept else None

    def pieces() -> Iterator[npt.NDArray[np.uint8]]:
        if told is not None:
            told(choice, place)
        if source is None:
            yield from _copy(file, choice)
        else:
            yield from _round(file, pool, choice, source, threads)

    return NewTensor(info.name, info.shape, info.type if kept else BY_NAME[choice.kind].id, pieces)


def _copy(file: File, choice: Choice) -> Iterator[npt.NDArray[np.uint8]]:
    info = choice.info
    step = _PIECE // info.kind.block_elements * info.kind.block_bytes
    for first in range(0, info.nbytes, step):
        piece = np.empty(min(step, info.nbytes - first), np.uint8)
        file.read_into(info.name, piece, first)
        yield piece


def _round(
    file: File, pool: ThreadPoolExecutor, choice: Choice, source: QuantType, threads: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Pieces in their order, a few of them under way at once."""
    under_way: deque[Future[npt.NDArray[np.uint8]]] = deque()
    target, info = BY_NAME[choice.kind], choice.info
    for first in range(0, info.elements, _PIECE):
        count = min(_PIECE, info.elements - first)
        under_way.append(pool.submit(_round_piece, file, info.name, source, target, first, count))
        if len(under_way) >= _AHEAD * threads:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _round_piece(
    file: File, name: str, source: QuantType, target: QuantType, first: int, count: int
) -> npt.NDArray[np.uint8]:
    """`count` weights of a tensor from `first` on: read, decoded, rounded."""
    assert target.encode is not None
    blocks = np.empty((count // source.elements, source.bytes), np.uint8)
    file.read_into(name, blocks, first // source.elements * source.bytes)
    try:
        encoded = target.encode(source.decode(blocks).reshape(-1, target.elements))
    except ModelError as error:
        raise ModelError(f"{file.path}: tensor {name} as {target.name}: {error.message}", hint=error.hint) from error
    return np.ascontiguousarray(encoded).reshape(-1).view(np.uint8)
