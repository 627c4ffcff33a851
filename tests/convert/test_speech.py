"""Models of speech of other programs become the file that transformers' folder becomes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from opsin.convert.hf import convert, open_folder
from opsin.convert.speech_vocabulary import LANGUAGES, SpeechTokens
from opsin.errors import OpsinError
from opsin.gguf import File

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speech_files import ctranslate2, ggml  # noqa: E402
from tiny_speech import (  # noqa: E402
    BANDS,
    CONTEXT,
    HEADS,
    HEARING,
    NORMAL,
    ROWS,
    TEXTS,
    WIDTH,
    WRITING,
    metadata,
    published,
    save,
    write_by_hand,
)  # fmt: skip

NUMBERS = [len(TEXTS), ROWS, WIDTH, HEADS, HEARING, CONTEXT, WIDTH, HEADS, WRITING, BANDS, 0]


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    made = tmp_path_factory.mktemp("speech")
    save(theirs, made / "hf")
    write_by_hand(made / "hand.gguf", theirs)
    return made


def words():
    """What whisper.cpp's files hold: the bytes of each word."""
    from opsin.text.bpe import byte_table

    letters = {letter: byte for byte, letter in byte_table().items()}
    return [bytes(letters[letter] for letter in text) for text in NORMAL]


def assert_same(path, folder, *, but=()):
    with File.open(folder / "hand.gguf") as hand, File.open(path) as file:
        assert file.tensors.keys() == hand.tensors.keys()
        for name in hand.tensors:
            assert np.array_equal(file.read(name), hand.read(name)), name
        for key in metadata():
            if key not in but:
                assert np.array_equal(file.metadata[key], hand.metadata[key]), key


def test_a_folder_of_ctranslate2_becomes_the_same_file(theirs, folder, tmp_path):
    ctranslate2(tmp_path / "ct2", theirs, folder / "hf", HEADS)
    assert_same(convert(tmp_path / "ct2", tmp_path / "made.gguf", format="f32").paths[0], folder)


def test_a_file_of_whisper_cpp_becomes_the_same_file(theirs, folder, tmp_path):
    ggml(tmp_path / "ggml-tiny.bin", theirs, words(), NUMBERS)
    made = convert(tmp_path / "ggml-tiny.bin", tmp_path / "made.gguf", format="f32").paths[0]
    lost = ("whisper.begin_suppress_tokens", "tokenizer.ggml.suppress_tokens")
    assert_same(made, folder, but=(*lost, "tokenizer.ggml.tokens"))  # its languages are the first of all
    with File.open(made) as file:
        texts = file.metadata["tokenizer.ggml.tokens"]
        assert [*texts][len(NORMAL) + 2 : len(NORMAL) + 5] == [f"<|{code}|>" for code in LANGUAGES[:3]]


def test_a_quantised_one_is_refused_with_what_to_do(theirs, folder, tmp_path):
    ctranslate2(tmp_path / "ct2", theirs, folder / "hf", HEADS, np.int8, 1)
    with pytest.raises(OpsinError, match="quantised") as raised:
        convert(tmp_path / "ct2", tmp_path / "made.gguf")
    assert "float16" in str(raised.value.hint)
    ggml(tmp_path / "ggml.bin", theirs, words(), [*NUMBERS[:10], 2008])
    with pytest.raises(OpsinError, match="quantised"):
        convert(tmp_path / "ggml.bin", tmp_path / "made.gguf")


@pytest.mark.parametrize("kind", ["ct2", "ggml"])
def test_damaged_ones_are_one_message(theirs, folder, tmp_path, kind):
    if kind == "ct2":
        data, path = ctranslate2(tmp_path, theirs, folder / "hf", HEADS), tmp_path / "model.bin"
    else:
        path = tmp_path / "ggml.bin"
        data = ggml(path, theirs, words(), NUMBERS)
    chance, refused = random.Random(kind), 0
    for _ in range(60):
        made = bytearray(data)
        at = chance.choice([chance.randrange(4, 120), chance.randrange(4, len(made) - 4)])
        if chance.random() < 0.3:
            del made[at:]
        else:
            made[at : at + 4] = chance.choice([0, 1, 255, 1 << 20, (1 << 32) - 1]).to_bytes(4, "little")
        path.write_bytes(made)
        try:
            file, _ = open_folder(tmp_path if kind == "ct2" else path)
            file.close()
        except OpsinError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_merges_are_found_from_the_words_alone():
    tokens = SpeechTokens.of_words("a file", words(), len(TEXTS))
    assert list(tokens.merges) == metadata()["tokenizer.ggml.merges"]
