"""whisper.cpp's file of a CTranslate2 folder: the same weights for its peer. Layout: its convert-pt-to-ggml.py."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from opsin.convert import speech
from opsin.convert.speech import open_checkpoint
from opsin.media.mel import mel_filters

_HEAD_WIDTH, _SPECIAL = 64, 50256  # ids from there on are no texts
_F32, _F16 = 0, 1


def write(folder: Path, target: Path) -> None:
    """Matrices of more than one dimension are f16, but positions and biases, as the converter leaves them."""
    theirs = {f"model.{ours}": name for name, ours in speech._GGML_WHOLE.items()}
    layers = {ours: name for name, ours in speech._GGML_NAMES.items()}
    with open_checkpoint(folder) as checkpoint, target.open("wb") as file:
        known = {name if name.startswith("model.") else f"model.{name}": name for name in checkpoint.names}
        vocabulary, width = checkpoint.stored(known["model.decoder.embed_tokens.weight"]).shape
        _, bands, _ = checkpoint.stored(known["model.encoder.conv1.weight"]).shape
        counts = [
            len({name.split(".")[3] for name in known if name.startswith(f"model.{part}.layers.")})
            for part in ("encoder", "decoder")
        ]
        heads = width // _HEAD_WIDTH
        sizes = [vocabulary, 1500, width, heads, counts[0], 448, width, heads, counts[1], bands, _F16]
        file.write(b"lmgg" + struct.pack("<11i", *sizes))
        file.write(struct.pack("<ii", bands, 201) + mel_filters(bands).T.astype("<f4").tobytes())
        words = list(_words(folder, 50256 if vocabulary == 51864 else 50257))
        file.write(struct.pack("<i", len(words)))
        for word in words:
            file.write(struct.pack("<i", len(word)) + word)
        for whole, name in known.items():
            own = _name(whole, theirs, layers)
            file.write(_tensor(own, checkpoint.read(name)))


def _name(whole: str, theirs: dict[str, str], layers: dict[str, str]) -> str:
    stem, _, end = whole.rpartition(".")
    if whole in theirs:
        return theirs[whole]
    if stem in theirs:
        return f"{theirs[stem]}.{end}"
    _, part, _, layer, rest = stem.split(".", 4)
    return f"{part}.blocks.{layer}.{layers[rest]}.{end}"


def _tensor(name: str, values: npt.NDArray[np.float32]) -> bytes:
    is_half = values.ndim > 1 and not name.endswith("positional_embedding")
    if "conv" in name and name.endswith("bias"):
        values = values.reshape(-1, 1)
    shape, kind = values.shape[::-1], _F16 if is_half else _F32
    head = struct.pack(f"<iii{len(shape)}i", len(shape), len(name), kind, *shape)
    return head + name.encode() + values.astype("<f2" if is_half else "<f4").tobytes()


def _words(folder: Path, count: int) -> Iterator[bytes]:
    """Texts as bytes: the letters of a BPE of bytes stand for one each (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for id in range(count):
        yield bytes(table[letter] for letter in tokenizer.id_to_token(id))
