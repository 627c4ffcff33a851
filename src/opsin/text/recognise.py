"""Which of GGUF's tokenizers a published tokenizer.json is: the kind of vocabulary, and how text is cut before merging.

It asks the Rust `tokenizers` library to do what the file says, and looks for the entry of `pretokenizers` that does the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import TypeVar

import regex
import tokenizers

from opsin.errors import FileError, ModelError
from opsin.text.bpe import cut
from opsin.text.fingerprints import NAMES, SAMPLE
from opsin.text.pretokenizers import PRE_TOKENIZERS

T = TypeVar("T")

SENTENCEPIECE = "llama"  # what `tokenizer.ggml.model` calls them
BYTE_PAIRS = "gpt2"
# More than the sample holds: capitals within words, scripts, signs that stick to words, long runs.
_MORE = (
    "HTMLParser camelCase IT'S we'll\n\n\n  x=1;\r\n\r\nif(a>=b){\treturn 'd'}  12345678 ab12cd 3,456.78 "
    "안녕하세요 漢字かなカナ עִבְרִית café e\u0301 Ünïcode naïve ١٢٣ ½ ²  …—“q” //**/ __init__ a_b $5 #tag @me ½x "
    "    deep\n    er\t\ttabs \u00a0 nbsp \u3000 wide ok?! !!\n"
)
# Where several names cut alike, the best known one.
SLOW_CLASSES = {"Qwen2Tokenizer": "qwen2", "GPT2Tokenizer": "gpt-2"}  # whose tokenizer.json may be missing
_PREFERRED = ("llama-bpe", "qwen2", "gpt-2", "smollm", "tekken", "gpt-4o", "deepseek-v3", "falcon", "bloom")


def find_pre(source: str, *, ignore_merges: bool) -> str:
    """The `tokenizer.ggml.pre` of a tokenizer.json with byte pairs. Raises FileError, or ModelError for none known."""
    made = _run(lambda: tokenizers.Tokenizer.from_str(source))
    ids: list[int] = _run(lambda: made.encode(SAMPLE).ids)
    known = NAMES.get(sha256(str(ids).encode()).hexdigest())
    if known:
        return known
    before = made.pre_tokenizer
    if before is None:
        raise ModelError("the tokenizer does not cut text before it merges", hint="no GGUF name is known for that")
    text = SAMPLE + _MORE
    wanted = _starts(_run(partial(before.pre_tokenize_str, text)))
    patterns = {entry.patterns for entry in PRE_TOKENIZERS.values() if _cuts(entry.patterns, text) == wanted}
    fitting = [name for name, entry in PRE_TOKENIZERS.items() if entry.byte_encoded and entry.patterns in patterns]
    fitting = [name for name in fitting if PRE_TOKENIZERS[name].ignore_merges == ignore_merges] or fitting
    if not fitting:
        raise ModelError("the tokenizer cuts text as no known one does", hint="no GGUF name is known for that")
    return next((name for name in _PREFERRED if name in fitting), fitting[0])


def _starts(pieces: list[tuple[str, tuple[int, int]]]) -> list[int]:
    return [start for _, (start, end) in pieces if start < end]


def _cuts(patterns: tuple[str, ...], text: str) -> list[int]:
    """Where the pieces begin."""
    compiled = [regex.compile(f"({pattern})", regex.V1) for pattern in patterns]
    starts, at = [], 0
    for piece in cut(compiled, text):
        starts.append(at)
        at += len(piece)
    return starts


def _run(work: Callable[[], T]) -> T:
    """What the library gives. It panics on some files, which Python sees as no ordinary exception."""
    try:
        return work()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        hint = "tokenizer.json is damaged, or newer than this opsin"
        raise FileError(f"the tokenizer cannot be read: {error!s:.100}", hint=hint) from error
