"""Compares the tokenizers with llama.cpp's own on generated text: every script, emoji, code, spaces, broken UTF-8.

    python tests/text/corpus.py LIBLLAMA FOLDER [--count 20000] [--record]

LIBLLAMA is a libllama.so of b11434 (its C structures are those of that version), FOLDER holds GGUF files with
vocabularies. Differences are counted by their causes. `--record` writes digests of llama.cpp's ids to corpus.json,
which the tests compare with.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from departures import Published, published

from opsin.gguf import File
from opsin.text import Tokenizer

RECORDED = Path(__file__).with_name("corpus.json")
BATCH = 100
# Here llama.cpp departs from the published tokenizers on sound text, too; how, stands in departures.py.
DEPARTING = ("bert-bge", "nomic-bert-moe", "deepseek-llm")
SCRIPTS = (
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA", "DEVANAGARI", "BENGALI",
    "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN",
    "MYANMAR", "GEORGIAN", "HANGUL", "ETHIOPIC", "CHEROKEE", "KHMER", "MONGOLIAN", "HIRAGANA", "KATAKANA",
    "CJK UNIFIED", "BRAILLE", "MATHEMATICAL", "COMBINING", "FULLWIDTH", "RUNIC", "GOTHIC",
)  # fmt: skip
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u3000", "\u2003", "\u2028", "\v", "\f"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵🇧🇷", "1️⃣", "❤️", "🧑🏿‍🚀", "☎", "✋🏻", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…“”«»—¿¡€£©™°×÷"
ENGLISH = [
    "the", "of", "and", "to", "in", "is", "you", "that", "it", "was", "for", "on", "are", "with", "his", "they", "I",
    "word", "but", "don't", "I'm", "you'll", "we've", "it's", "they're", "he'd", "CAN'T", "It'S", "WE'VE", "naïve",
    "café", "résumé", "coöperate", "SmolVLM2", "GPU", "iPhone",
]  # fmt: skip
CODE = [
    "def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}",
    "<div class=\"a\">&nbsp;</div>",
    "SELECT * FROM t WHERE a >= 3.14;", "x = {'k': [1, 2, None]}\n\n\n", "#include <stdio.h>\r\n", "a->b::c<d>(e)&&!f",
    "https://example.org/a?b=c&d=%20#e", "$\\frac{1}{2}\\sum_{i=0}^{n} x_i$", "/* comment */ // ---- ====",
]  # fmt: skip


@cache
def assigned() -> dict[str, list[str]]:
    """The characters of each script: those whose Unicode name begins with its name."""
    found: dict[str, list[str]] = {script: [] for script in SCRIPTS}
    for code in range(0x30000):
        name = unicodedata.name(chr(code), "")
        script = next((script for script in SCRIPTS if name.startswith(script)), None)
        if script:
            found[script].append(chr(code))
    return found


class Corpus:
    """Strings without end, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._scripts = list(assigned().values())
        self._all = [chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]

    def strings(self) -> Iterator[str]:
        kinds = (self._script, self._spaces, self._english, self._code, self._numbers, self._signs, self._emoji,
                 self._any)  # fmt: skip
        while True:
            yield "".join(self._random.choice(kinds)() for _ in range(self._random.randint(1, 6)))

    def broken(self) -> Iterator[str]:
        """Strings whose UTF-8 is damaged: the bytes that are none stand in them as lone surrogates.

        No byte of 0xF4 and above, for llama.cpp ends the process where they spell a number beyond Unicode.
        """
        for text in self.strings():
            raw = bytearray(text.encode("utf-8"))
            for _ in range(self._random.randint(1, 3)):
                raw[self._random.randrange(len(raw))] = self._random.randrange(0x80, 0xF4)
            yield raw.decode("utf-8", "surrogateescape")

    def _script(self) -> str:
        letters = self._random.choice(self._scripts)
        words = ["".join(self._random.choices(letters, k=self._random.randint(1, 8))) for _ in range(3)]
        return self._random.choice([" ", "", ", ", "\n"]).join(words)

    def _spaces(self) -> str:
        return "".join(self._random.choices(SPACES, k=self._random.randint(1, 6)))

    def _english(self) -> str:
        return self._random.choice([" ", " ", "  ", "-", "."]).join(self._random.choices(ENGLISH, k=6))

    def _code(self) -> str:
        return self._random.choice(CODE)

    def _numbers(self) -> str:
        digits = "".join(self._random.choices("0123456789", k=self._random.randint(1, 12)))
        return self._random.choice([digits, f" {digits}", f"{digits}.{digits}", f"-{digits},", "٣٤٥", "½²", "Ⅳ"])

    def _signs(self) -> str:
        return "".join(self._random.choices(SIGNS, k=self._random.randint(1, 8)))

    def _emoji(self) -> str:
        return "".join(self._random.choices(EMOJI, k=self._random.randint(1, 4)))

    def _any(self) -> str:
        return "".join(self._random.choices(self._all, k=self._random.randint(1, 5)))


class _ModelParameters(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_void_p) for name in ("devices", "tensor_buft_overrides")],
        *[(name, ctypes.c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")],
        *[(name, ctypes.c_void_p) for name in ("tensor_split", "callback", "callback_data", "kv_overrides")],
        *[
            (name, ctypes.c_bool)
            for name in ("vocab_only", "check_tensors", "extra_bufts", "no_host", "no_alloc", "mtp")
        ],
    )


class Oracle:
    """llama.cpp's tokenizer for one file."""

    def __init__(self, library: Path, path: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        self._c.llama_model_default_params.restype = _ModelParameters
        self._c.llama_model_load_from_file.restype = ctypes.c_void_p
        self._c.llama_model_load_from_file.argtypes = (ctypes.c_char_p, _ModelParameters)
        self._c.llama_model_get_vocab.restype = ctypes.c_void_p
        self._c.llama_model_get_vocab.argtypes = (ctypes.c_void_p,)
        self._c.llama_tokenize.argtypes = (
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool,
            ctypes.c_bool,
        )  # fmt: skip
        self._c.llama_vocab_is_eog.argtypes = (ctypes.c_void_p, ctypes.c_int32)
        self._c.llama_vocab_is_eog.restype = ctypes.c_bool
        self._c.llama_token_to_piece.argtypes = (
            ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_bool,
        )  # fmt: skip
        self._silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self._c.llama_log_set(self._silence, None)
        parameters = self._c.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self._c.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise OSError(f"llama.cpp cannot read {path}")
        self._vocab = self._c.llama_model_get_vocab(self._model)

    def encode(self, text: str, *, special: bool = False, add_special: bool = False) -> list[int]:
        raw = text.encode("utf-8", "surrogateescape")
        ids = (ctypes.c_int32 * (len(raw) * 2 + 16))()
        count = self._c.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), add_special, special)
        return list(ids[:count])

    def piece(self, id: int, *, special: bool) -> bytes:
        room = ctypes.create_string_buffer(4096)
        size = self._c.llama_token_to_piece(self._vocab, id, room, 4096, 0, special)
        return room.raw[:size]

    def ends(self, size: int) -> frozenset[int]:
        return frozenset(id for id in range(size) if self._c.llama_vocab_is_eog(self._vocab, id))


def digest(lists: Sequence[Sequence[int]]) -> str:
    return hashlib.sha256(repr([list(ids) for ids in lists]).encode()).hexdigest()[:12]


@cache
def batches(seed: int, count: int) -> list[list[str]]:
    strings = Corpus(seed).strings()
    return [list(islice(strings, BATCH)) for _ in range(count)]


def count_causes(
    tokenizer: Tokenizer, oracle: Oracle, source: Published, texts: Sequence[str], shown: int
) -> Counter[str]:
    """Differences by cause, a string once for each; the first without a known cause are printed."""
    causes: Counter[str] = Counter()
    for text in texts:
        ours, theirs = tokenizer.encode(text), oracle.encode(text)
        if ours == theirs:
            continue
        causes["differ"] += 1
        found = source.explain(text, theirs)
        causes.update(["UNKNOWN"] if found is None else found or ["ours is not the published one"])
        if found is None and causes["UNKNOWN"] <= shown:
            print(f"  {text!r}\n    ours   {ours}\n    theirs {theirs}")
    return causes


def check_pieces(tokenizer: Tokenizer, oracle: Oracle) -> int:
    wrong = 0
    for id in range(tokenizer.vocabulary_size):
        for special in (False, True):
            wrong += tokenizer.piece(id, special=special) != oracle.piece(id, special=special)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("library", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--shown", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    corpus = Corpus(1)
    texts = list(islice(corpus.strings(), options.count))
    broken = list(islice(corpus.broken(), options.count // 10))
    recorded = {}
    for path in sorted(options.folder.glob("ggml-vocab-*.gguf")):
        with File.open(path) as file:
            metadata = dict(file.metadata)
        tokenizer = Tokenizer.from_metadata(metadata)
        oracle = Oracle(options.library, path)
        if options.record and path.stem.removeprefix("ggml-vocab-") not in DEPARTING:
            recorded[path.stem] = [digest([oracle.encode(text) for text in batch]) for batch in batches(2, 10)]
        if options.record:
            continue
        source = published(metadata, tokenizer.encode)
        ends = tokenizer.end_ids == oracle.ends(tokenizer.vocabulary_size)
        pieces = check_pieces(tokenizer, oracle)
        print(f"{path.stem}: {pieces} pieces differ; ends {'equal' if ends else 'differ'}")
        for kind, some in (("sound", texts), ("damaged", broken)):
            causes = count_causes(tokenizer, oracle, source, some, options.shown)
            said = ", ".join(f"{cause} {count}" for cause, count in causes.most_common() if cause != "differ")
            print(f"  {causes['differ']} of {len(some)} {kind} ones differ: {said or 'none'}", flush=True)
    if options.record:
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
