"""Rules of normalising that a file brings: what is wrong with them is found before the library follows them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from opsin.errors import FileError
from opsin.gguf import File
from opsin.text.charsmap import Charsmap


def read_rules(folder: Path) -> bytes:
    with File.open(folder / "ggml-vocab-nomic-bert-moe.gguf") as file:
        raw = file.metadata["tokenizer.ggml.precompiled_charsmap"]
    return np.asarray(raw).astype(np.uint8).tobytes()


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Cut off, with other numbers in many places, in its first units, in its size, or altogether noise."""
    changed, how = bytearray(raw), chance.randrange(6)
    if how == 0:
        return raw[: chance.randrange(len(raw))]
    if how == 1:
        changed[:4] = chance.randbytes(4)
    elif how == 2:
        changed[4:2000] = chance.randbytes(1996)
    elif how == 3:
        return chance.randbytes(chance.randrange(2000))
    elif how == 4:
        changed[:4] = (len(raw) // 8 * 4).to_bytes(4, "little")
    for _ in range(chance.choice((1, 3, 300))):
        changed[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(changed)


def test_damaged_rules_are_refused_or_harmless(sources: Path) -> None:
    """The library would end the thread."""
    raw = read_rules(sources)
    chance, refused = random.Random(6), 0
    text = "".join(map(chr, chance.sample([*range(0xD800), *range(0xE000, 0x2FA20)], 3000)))
    for _ in range(300):
        try:
            assert len(Charsmap(damaged(raw, chance)).normalize(text)) < 100_000
        except FileError:
            refused += 1
    assert 100 < refused < 300


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"", "0 units in 0 bytes"), (b"\4\0\0\0", "1 units in 4 bytes"), (bytes(4), "0 units in 4 bytes"),
        (b"\4\0\0\0" + bytes(4), "lead out of it"), (b"\0\4\0\0\0\4" + bytes(1022), None),
        (b"\0\4\0\0" + b"\xff" * 1024, "lead out of it"),
        (b"\0\4\0\0" + (1 << 10).to_bytes(4, "little") + bytes(1020), None),
        (b"\0\4\0\0" + (256 << 10).to_bytes(4, "little") + bytes(1020), "lead out of it"),
        (b"\0\4\0\0" + (1 << 8).to_bytes(4, "little") + bytes(1020), "lead out of its texts"),
        (b"\0\4\0\0" + (1 << 8).to_bytes(4, "little") + bytes(1276) + b"a" * 255, None),
        (b"\0\4\0\0" + (1 << 8).to_bytes(4, "little") + bytes(1276) + b"a" * 256, "more than 255 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_rules_is_said(raw: bytes, wrong: str | None) -> None:
    if wrong is None:
        assert Charsmap(raw).normalize("x\n")
    else:
        with pytest.raises(FileError, match=f"charsmap is damaged: .*{wrong}"):
            Charsmap(raw)
