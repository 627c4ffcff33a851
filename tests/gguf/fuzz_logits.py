"""Feeds damaged models to `opsin.load`: each runs to first logits and an answer, or is refused with a reason.

    python tests/gguf/fuzz_logits.py --opened 5000 --seed 1

A worker takes mutant after mutant, so that a crash ends it alone: the driver notes the mutant and starts another. A
mutant that takes too long, or more memory than MOST_BYTES, counts as a crash.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import MIXED, Shape, metadata, weights

from opsin.errors import DeviceError, OpsinError
from opsin.gguf import TENSOR_TYPES, File, NewTensor, Typed, ValueType, write
from opsin.gguf.value import SCALAR_CODES, find_type
from opsin.quants import BY_NAME, TYPES

MOST_BYTES = 1 << 31  # beyond what the interpreter and its libraries take
STUCK_SECONDS = 120
ODD = [0, 1, -1, 2, 3, 5, 7, 8, 31, 33, 63, 64, 65, 127, 128, 255, 256, 257, 1000, 4096, 8192, 65535, 65536, 2**20]
ODD += [2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63), 10**9]
ODD_FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 0.5, 1e6, 1e30, 3e38, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    "",
    "\x00",
    "a",
    "\udcff\udcfe",
    "漢字",
    "🙂" * 9,
    "x" * 5000,
    "gpt2",
    "llama",
    "bert",
    "t5",
    "plamo2",
    "default",
]
TEXTS += ["{{ 1/0 }}", "{% for i in range(99999999) %}x{% endfor %}", "{{ messages[9].content }}", "{%", "{{ x.y.z }}"]
TEXTS += ["{{ raise_exception('no') }}", "{% set x = 'a' * 99999999 %}{{ x * 99 }}", "qwen2", "gemma3", "qwen3", "yarn"]


@dataclass
class Mutant:
    """A model's file in memory, to be changed."""

    keys: dict[str, Typed]
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        tensors = [NewTensor(n, s, t, np.frombuffer(d, np.uint8)) for n, (s, t, d) in self.tensors.items()]
        write(path, self.keys, tensors)


def make_seeds() -> list[Mutant]:
    """Sound files: formats, biases, fused matrices, rope factors, and two kinds of tokenizers."""
    shapes = [
        Shape(layers=2, width=32, heads=2, kv_heads=1, head=16, ffn=32, context=64, types=MIXED),
        Shape(layers=1, width=32, heads=2, kv_heads=2, head=16, ffn=64, context=200, untied=True, biases=True),
        Shape(
            layers=1, width=256, heads=4, kv_heads=2, head=64, ffn=256, context=64, types={"blk": "Q4_K"}, fused=True
        ),
        Shape(layers=1, width=32, heads=2, kv_heads=1, head=16, ffn=32, context=64, factors=(1.0,) * 8),
    ]
    made = []
    for shape in shapes:
        mutant = Mutant({key: find_type(value) for key, value in metadata(shape).items()})
        for name, values in weights(shape).items():
            kind = BY_NAME[next((shape.types[p] for p in shape.types if p in name and values.ndim == 2), "F32")]
            data = kind.encode(values.reshape(-1, kind.elements)) if kind.encode else values
            mutant.tensors[name] = (values.shape, kind.id, np.ascontiguousarray(data).tobytes())
        made.append(mutant)
    made[3].keys |= _pieces(len(made[3].keys["tokenizer.ggml.tokens"].value))
    return made


def _pieces(count: int) -> dict[str, Typed]:
    """A vocabulary of scored pieces."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "th", "▁th", "e"]
    texts += [f"piece{i}" for i in range(count - len(texts))]
    return {
        "tokenizer.ggml.model": Typed(ValueType.STRING, "llama"),
        "tokenizer.ggml.tokens": Typed(ValueType.STRING, texts[:count]),
        "tokenizer.ggml.scores": Typed(ValueType.FLOAT32, [-float(i) for i in range(count)]),
        "tokenizer.ggml.token_type": Typed(ValueType.INT32, ([2, 3, 3] + [6] * 256 + [1] * count)[:count]),
    }


def mutate(seed: Mutant, dice: random.Random) -> Mutant:
    """A copy with one to three changes."""
    mutant = Mutant(dict(seed.keys), dict(seed.tensors))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        change = dice.choice((_change_key, _change_key, _change_key, _change_data, _change_data, _change_tensor))
        change(mutant, dice)
    return mutant


def _change_key(mutant: Mutant, dice: random.Random) -> None:
    key = dice.choice(list(mutant.keys))
    if key.startswith("general.") and dice.random() < 0.7:
        key = dice.choice([other for other in mutant.keys if other.startswith(("llama.", "tokenizer."))] or [key])
    old, how = mutant.keys[key], dice.randrange(10)
    if how == 0:
        del mutant.keys[key]
    elif how == 1:
        mutant.keys[key] = mutant.keys[dice.choice(list(mutant.keys))]
    elif how == 2 and key.startswith("llama."):
        mutant.keys[key] = Typed(ValueType.UINT64, dice.choice([n for n in ODD if n >= 0]))
    elif isinstance(old.value, str):
        mutant.keys[key] = Typed(ValueType.STRING, _odd_text(old.value, dice))
    elif isinstance(old.value, int | float):
        mutant.keys[key] = _odd_number(old, dice)
    else:
        mutant.keys[key] = _odd_array(old, dice)


def _odd_text(old: str, dice: random.Random) -> str:
    place = dice.randrange(len(old) + 1)
    return dice.choice((dice.choice(TEXTS), old[:place], old[:place] + dice.choice(TEXTS) + old[place:], old * 2))


def _odd_number(old: Typed, dice: random.Random) -> Typed:
    if old.type is ValueType.BOOL:
        return Typed(ValueType.BOOL, not old.value)
    if old.type in (ValueType.FLOAT32, ValueType.FLOAT64):
        return Typed(old.type, dice.choice(ODD_FLOATS))
    limits = np.iinfo(SCALAR_CODES[old.type])
    assert isinstance(old.value, int)
    number = dice.choice((dice.choice(ODD), dice.choice(ODD), old.value + dice.choice((-1, 1)), old.value * 2))
    return Typed(old.type, max(limits.min, min(limits.max, number)))


def _odd_array(old: Typed, dice: random.Random) -> Typed:
    values = list(old.value)  # type: ignore[arg-type]
    for _ in range(dice.choice((1, 1, 5, 50))):
        place, how = dice.randrange(len(values) or 1), dice.randrange(6)
        if not values or how == 0:
            values = values[:place] + values[place + 1 :]
        elif how == 1:
            values.append(values[place])
        elif how == 2:
            values = values[:place]
        elif isinstance(values[place], str):
            values[place] = _odd_text(values[place], dice)
        else:
            values[place] = _odd_number(Typed(old.type, values[place]), dice).value
    return Typed(old.type, values)


def _change_data(mutant: Mutant, dice: random.Random) -> None:
    """Other bytes in a tensor: noise, zeros, ones, or a few bits."""
    name = dice.choice(list(mutant.tensors))
    shape, kind, data = mutant.tensors[name]
    how = dice.randrange(4)
    if how < 2:
        changed = bytearray(data)
        for _ in range(dice.choice((1, 9, 200))):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        mutant.tensors[name] = (shape, kind, bytes(changed))
    else:
        mutant.tensors[name] = (shape, kind, dice.randbytes(len(data)) if how == 2 else b"\xff\x7f" * (len(data) // 2))
        _refit(mutant, name, shape, kind, dice)


def _change_tensor(mutant: Mutant, dice: random.Random) -> None:
    """Another shape or format, another name, or none."""
    name = dice.choice(list(mutant.tensors))
    shape, kind, data = mutant.tensors[name]
    how = dice.randrange(6)
    if how == 0:
        del mutant.tensors[name]
    elif how == 1:
        other = dice.choice([*mutant.tensors, "output.weight", "blk.1.attn_q.bias", "blk.99.attn_q.weight", "x"])
        mutant.tensors[other] = mutant.tensors.pop(name)
    elif how == 2:
        mutant.tensors[name] = mutant.tensors[dice.choice(list(mutant.tensors))]
    elif how == 3:
        sizes = list(shape)
        sizes[dice.randrange(len(sizes))] = dice.choice((1, 2, 16, 31, 32, 33, 64, 96, 256, 1000))
        _refit(mutant, name, tuple(sizes), kind, dice)
    elif how == 4:
        _refit(mutant, name, dice.choice((shape[::-1], (1, *shape), (*shape, 1), shape[:1], ())), kind, dice)
    else:
        _refit(mutant, name, shape, dice.choice(list(TENSOR_TYPES if dice.random() < 0.1 else TYPES)), dice)


def _refit(mutant: Mutant, name: str, shape: tuple[int, ...], kind: int, dice: random.Random) -> None:
    """A shape and a format, and as many bytes as they take; nothing where they do not go together."""
    row = shape[-1] if shape else 1
    if row % TENSOR_TYPES[kind].block_elements:
        return
    size, data = TENSOR_TYPES[kind].bytes_of(shape), mutant.tensors[name][2]
    if size < 1 << 22:
        mutant.tensors[name] = (shape, kind, (data * (size // (len(data) or 1) + 1))[:size] or dice.randbytes(size))


def write_mutant(seeds: list[Mutant], seed: int, number: int, path: Path) -> None:
    """Mutant `number`: it depends on nothing else but the seed. One in five also has damaged bytes."""
    dice = random.Random(f"{seed}/{number}")
    try:
        mutate(dice.choice(seeds), dice).save(path)
    except OpsinError:  # not even a file
        dice.choice(seeds).save(path)
    if dice.random() < 0.2:
        data = bytearray(path.read_bytes())
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)


def examine(path: Path) -> str:
    """Load it, ask for logits, chat. Gives "closed", "refused", "unanswered" or "answered"; lets nothing else pass."""
    import opsin

    try:
        File.open(path).close()
    except OpsinError:
        return "closed"
    try:
        model = opsin.load(path, threads=1, sequences=2)
    except OpsinError as error:
        assert str(error).isprintable() or "\n" in str(error), ascii(str(error))
        return f"refused: {type(error).__name__}"
    with model:
        try:
            ids = [1, *model.tokenize("The th 漢字 a\n")][: model.context - 3]
            rows = model.logits(ids)
            assert rows.shape == (len(ids), model.runner.decoder.vocabulary)
            text = model.chat([{"role": "user", "content": "Hi"}], max_tokens=3, seed=1).text
            assert isinstance(text, str)
        except OpsinError as error:
            check_cause(error)
            return f"unanswered: {type(error).__name__}"
    return "answered" if np.isfinite(rows).all() else "answered, not finite"


def check_cause(error: OpsinError) -> None:
    """Raise what the engine did not expect, which it hides behind an error of ours."""
    if isinstance(error, DeviceError) and error.__cause__ is not None:
        raise error.__cause__


def work(seed: int, first: int, rounds: int, folder: Path) -> None:
    """The worker: one line of JSON a mutant."""
    seeds, path = make_seeds(), folder / "mutant.gguf"
    seeds[0].save(path)
    examine(path)  # what the interpreter and its libraries take is taken now
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_BYTES, taken + MOST_BYTES))
    for number in range(first, first + rounds):
        print(json.dumps({"number": number}), flush=True)
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        write_mutant(seeds, seed, number, path)
        start = time.process_time()
        try:
            outcome = examine(path)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
            outcome = f"BUG {type(error).__name__}: {error}"[:300]
        seconds = round(time.process_time() - start, 2)
        gc.collect()  # closed models are cycles, and the limit is for one
        print(json.dumps({"number": number, "outcome": outcome, "seconds": seconds}), flush=True)
    faulthandler.cancel_dump_traceback_later()


def run(seed: int, rounds: int, folder: Path, *, first: int = 0) -> Iterator[tuple[int, str, float]]:
    """Number, outcome and seconds of each mutant. A worker that died gave the outcome "BUG worker ..."."""
    last = first + rounds
    while first < last:
        command = [sys.executable, __file__, "--worker", str(folder), "--seed", str(seed)]
        command += ["--first", str(first), "--rounds", str(last - first)]
        with (
            (folder / "stderr").open("w") as complaints,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as worker,
        ):
            assert worker.stdout is not None
            begun = None
            for line in worker.stdout:
                said = json.loads(line)
                begun = said["number"]
                if "outcome" in said:
                    begun = None
                    first = said["number"] + 1
                    yield said["number"], said["outcome"], said["seconds"]
        if begun is not None:
            yield begun, f"BUG worker ended with {worker.returncode}: {_tail(folder / 'stderr')}", 0.0
            first = begun + 1
        elif first < last:
            raise RuntimeError(f"the worker ended with {worker.returncode}: {_tail(folder / 'stderr')}")


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-1500:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opened", type=int, default=5000, help="stop after so many mutants that open")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1 << 30)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.seed, options.first, options.rounds, options.worker)
        sys.stdout.flush()
        os._exit(0)
    outcomes: Counter[str] = Counter()
    slowest, opened = (0.0, -1), 0
    with tempfile.TemporaryDirectory() as folder:
        for number, outcome, seconds in run(options.seed, options.rounds, Path(folder), first=options.first):
            slowest = max(slowest, (seconds, number))
            if outcome.startswith("BUG"):
                print(f"mutant {number}: {outcome}", flush=True)
                outcome = "BUG"
            outcomes[outcome] += 1
            opened += outcome != "closed"
            if sum(outcomes.values()) % 500 == 0:
                print(dict(outcomes), f"slowest {slowest[0]} s (mutant {slowest[1]})", flush=True)
            if opened >= options.opened:
                break
    print(f"{opened} opened of {sum(outcomes.values())}: {dict(outcomes)}; slowest {slowest[0]} s: mutant {slowest[1]}")


if __name__ == "__main__":
    main()
