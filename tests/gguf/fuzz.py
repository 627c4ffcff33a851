"""Feeds damaged GGUF files to the reader: it must answer each with a view or a FileError, soon and in little memory.

python tests/gguf/fuzz.py --rounds 200000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import signal
import struct
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
from raw_gguf import ARRAY, STRING, Field, RawFile, RawTensor, every_value, f32

from opsin.errors import FileError, ModelError
from opsin.gguf import File, write

NUMBERS = {"version", "tensor_count", "key_count", "length", "value_type", "count", "dimensions", "size", "tensor_type"}
NUMBERS |= {"offset", "value"}
ODD = [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 31, 32, 33, 63, 64, 127, 128, 255, 256, 65535, 65536, 2**20, 2**30, 2**31 - 1]
ODD += [2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 8, 2**64 - 1]
TEXTS = [
    b"",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"general.alignment",
    b"split.count",
    b"a",
    b"A" * 70,
]
SPARE_BYTES = 1 << 18
SLOW_SECONDS = 10.0
STUCK_SECONDS = 20
REPORT_ROUNDS = 10_000


def make_seeds() -> list[list[Field]]:
    """Sound files of both byte orders, with every value type and tensors of several types."""
    tensors = [f32(b"token_embd.weight", 0, 4), RawTensor(b"blk.0.q", [256, 2], 12, 128, bytes(288))]
    tensors += [RawTensor(b"blk.0.k", [32, 2, 2, 1], 2, 416, bytes(72)), RawTensor(b"scalar", [], 30, 512, b"\x01\x02")]
    words = [b"word%d" % number for number in range(200)]
    vocabulary = [
        (b"general.architecture", STRING, b"llama"),
        (b"general.alignment", 4, 32),
        (b"tokenizer.ggml.tokens", ARRAY, (STRING, words)),
        (b"tokenizer.ggml.scores", ARRAY, (6, [0.5] * 200)),
    ]
    split = [(b"split.no", 2, 0), (b"split.count", 2, 1), (b"split.tensors.count", 5, 1)]
    files = [RawFile(metadata, tensors, order) for order in "<>" for metadata in (every_value(), vocabulary)]
    return [each.fields() for each in [*files, RawFile(split, [f32()]), RawFile(version=2)]]


def mutate(fields: list[Field], dice: random.Random) -> bytes:
    """A damaged copy: one to three fields changed, and now and then bytes flipped, cut off or added."""
    mutant = [Field(each.role, each.data) for each in fields]
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        _change_field(mutant, dice)
    data = bytearray(b"".join(each.data for each in mutant))
    how = dice.randrange(10)
    if how == 0 and data:
        del data[dice.randrange(len(data)) :]
    elif how == 1:
        data += dice.randbytes(dice.randrange(64))
    elif how <= 4 and data:
        header = len(data) - len(mutant[-1].data) or 1
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(min(header, len(data)))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _change_field(fields: list[Field], dice: random.Random) -> None:
    place = dice.randrange(len(fields))
    chosen = fields[place]
    how = dice.randrange(12)
    if how == 0:
        del fields[place]
    elif how == 1:
        fields.insert(place, fields[dice.randrange(len(fields))])
    elif how == 2:
        other = dice.randrange(len(fields))
        fields[place], fields[other] = fields[other], fields[place]
    elif chosen.role in NUMBERS:
        chosen.data = _change_number(chosen.data, dice)
    elif chosen.role == "text":
        _change_text(fields, place, dice)
    else:
        chosen.data = (
            dice.randbytes(len(chosen.data)) if how < 8 else chosen.data[: dice.randrange(len(chosen.data) + 1)]
        )
    if not fields:
        fields.append(Field("data", b""))


def _change_number(data: bytes, dice: random.Random) -> bytes:
    width = len(data)
    order = dice.choice(("little", "little", "big"))
    number = int.from_bytes(data, order)
    new = dice.choice(
        (dice.choice(ODD), number + dice.choice((-8, -1, 1, 8, 32)), dice.getrandbits(8 * width), number << 1)
    )
    return (new % (1 << 8 * width)).to_bytes(width, order)


def _change_text(fields: list[Field], place: int, dice: random.Random) -> None:
    text = dice.choice(
        (dice.choice(TEXTS), dice.randbytes(dice.randrange(80)), fields[dice.randrange(len(fields))].data)
    )
    fields[place].data = text
    if place and len(fields[place - 1].data) == 8 and dice.random() < 0.8:
        fields[place - 1].data = struct.pack(dice.choice("<<<>") + "Q", len(text))


def examine(path: Path, *, again: Path | None = None) -> str:
    """Open the file and use all of it; `again` is where to write a copy that must say the same. Gives the outcome."""
    size = path.stat().st_size
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    start = time.process_time()  # not the clock on the wall: the machine may be busy
    try:
        file = File.open(path)
    except (FileError, ModelError) as error:
        outcome = type(error).__name__
        assert str(path) in error.message and error.hint, f"an error that names no file or no way out: {error}"
    else:
        outcome = "sound"
        with file:
            use(file, size)
            check_peak(before, size)
            if again is not None:
                copy(file, again)
    check_peak(before, size if again is None else 8 * size)
    seconds = time.process_time() - start
    assert seconds < SLOW_SECONDS, f"took {seconds:.1f} s"
    return outcome


def check_peak(before: int, size: int) -> None:
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak <= 2 * size + SPARE_BYTES, f"took {peak} bytes of memory for a file of {size}"


def use(file: File, size: int) -> None:
    """Ask for everything that the file offers."""
    for key, value in file.metadata.items():
        for getter in (file.get_int, file.get_float, file.get_bool, file.get_str):
            try:
                getter(key)
            except (FileError, ModelError) as error:
                assert key[:50] in error.message or not key.isprintable(), error
        if not isinstance(value, str | int | float):
            assert len(value) <= size and all(True for _ in value)
    for name, info in file.tensors.items():
        assert 0 <= info.offset <= info.offset + info.nbytes <= size
        blocks = file.read(name)
        assert blocks.nbytes == info.nbytes
        part = np.empty(blocks.nbytes // 2, np.uint8)
        file.read_into(name, part, 1)
        assert np.array_equal(part, blocks[1 : 1 + part.nbytes])


def copy(file: File, path: Path) -> None:
    """Write what was read and read it again."""
    try:
        write(path, file.typed, [file.copy_tensor(name) for name in file.tensors])
    except (FileError, ModelError) as error:
        assert "general.alignment" in error.message, error  # a reader takes more alignments than the writer makes
        return
    with File.open(path) as second:
        kept = [key for key in file.metadata if key not in ("split.no", "split.count", "split.tensors.count")]
        assert list(second.metadata) == kept
        assert all(repr(second.metadata[key]) == repr(file.metadata[key]) for key in kept)
        assert all(np.array_equal(second.read(name), file.read(name)) for name in file.tensors)


def stop(*_: object) -> None:
    """What the watchdog calls when one mutant has taken its seconds of work: waiting for the processor is free."""
    raise TimeoutError(f"stuck for {STUCK_SECONDS} s")


def run(rounds: int, seed: int, folder: Path, *, first: int = 0) -> Counter[str]:
    """Examine so many mutants; each depends only on the seed and its number. Raises what should not happen."""
    seeds = make_seeds()
    path = folder / "mutant.gguf"
    outcomes: Counter[str] = Counter()
    watched = hasattr(signal, "setitimer")  # not on Windows
    if watched:
        signal.signal(signal.SIGVTALRM, stop)
    tracemalloc.start()
    try:
        for number in range(first, first + rounds):
            dice = random.Random(f"{seed}/{number}")
            path.write_bytes(mutate(dice.choice(seeds), dice))
            if watched:
                signal.setitimer(signal.ITIMER_VIRTUAL, STUCK_SECONDS)
            try:
                outcomes[examine(path, again=folder / "copy.gguf" if number % 8 == 0 else None)] += 1
            except Exception as error:
                raise AssertionError(f"mutant {number} of seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        if watched:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        tracemalloc.stop()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes: Counter[str] = Counter()
        for first in range(0, options.rounds, REPORT_ROUNDS):
            rounds = min(REPORT_ROUNDS, options.rounds - first)
            outcomes += run(rounds, options.seed, Path(folder), first=first)
            print(f"{first + rounds} mutants", flush=True)
    print(f"{options.rounds} mutants in {time.perf_counter() - start:.0f} s: {dict(outcomes)}")


if __name__ == "__main__":
    main()
