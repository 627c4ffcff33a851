"""Reads tokenizer.model, the protocol buffer of SentencePiece: pieces with their scores and kinds.

The message is ModelProto of sentencepiece_model.proto; only what GGUF keeps is read. Files come from strangers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from opsin.errors import FileError, ModelError

MAX_BYTES = 64 << 20
_PIECES, _TRAINER, _NORMALISER = 1, 2, 3  # fields of ModelProto
_TEXT, _SCORE, _KIND = 1, 2, 3  # of a piece
_MODEL_TYPE, _BPE = 3, 2  # of the trainer
_DUMMY_PREFIX = 3  # of the normaliser


@dataclass
class Pieces:
    """Tokens in the order of their ids. Kinds have GGUF's numbers, which are SentencePiece's own."""

    texts: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    space_prefix: bool = True


def read_pieces(path: Path) -> Pieces:
    """Raises FileError for what is no such file, ModelError for another kind of model than byte pairs."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path} has {path.stat().st_size} bytes", hint="it is no tokenizer of SentencePiece")
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", hint="is the download complete?") from error
    found, model_type = Pieces(), 1
    try:
        for number, value in _fields(data):
            if number == _PIECES and isinstance(value, bytes):
                _add(found, value)
            elif number == _TRAINER and isinstance(value, bytes):
                model_type = next((int(v) for n, v in _fields(value) if n == _MODEL_TYPE and isinstance(v, int)), 1)
            elif number == _NORMALISER and isinstance(value, bytes):
                prefix = [v for n, v in _fields(value) if n == _DUMMY_PREFIX]
                found.space_prefix = bool(prefix[-1]) if prefix else True
    except (ValueError, IndexError, struct.error) as error:
        raise FileError(f"{path} is no tokenizer of SentencePiece", hint="download it again") from error
    if not found.texts:
        raise FileError(f"{path} is no tokenizer of SentencePiece", hint="it holds no pieces")
    if model_type != _BPE:
        raise ModelError(f"{path} is of SentencePiece's kind {model_type}", hint="only byte pairs (2) are converted")
    return found


def _add(found: Pieces, data: bytes) -> None:
    text, score, kind = "", 0.0, 1
    for number, value in _fields(data):
        if number == _TEXT and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == _SCORE and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == _KIND and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6:
        raise ValueError(f"a piece of kind {kind}")
    found.texts.append(text)
    found.scores.append(score)
    found.kinds.append(kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields: integers, or bytes (also of fixed width)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("a field ends behind the data")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has too many bytes")
