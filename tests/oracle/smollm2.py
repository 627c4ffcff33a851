"""The real model of the tests: nearly 5,000 varied tokens in its own vocabulary.

The ids come from the `tokenizers` library over the file's vocabulary, so they do not depend on opsin's tokenizer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

PASSAGES = Path(__file__).parent / "passages"


@cache
def metadata(path: Path) -> dict[str, Any]:
    """Every metadata value of the file, as gguf-py reads it."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def sequences(path: Path) -> dict[str, list[int]]:
    """Ids of each passage, by name: English prose, many languages, code, and a mixture."""
    tokenizer = _tokenizer(path)
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(PASSAGES.glob("*.txt"))}
    return {name: tokenizer.encode(text).ids for name, text in texts.items()}


@cache
def _tokenizer(path: Path) -> Tokenizer:
    """Byte-level BPE, digits one by one, control tokens found in the text."""
    values = metadata(path)
    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # as ggml numbers token types
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == control])
    return tokenizer
