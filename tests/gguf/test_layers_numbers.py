"""Keys that hold a number for each layer where one is expected."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_llama

import opsin
from opsin.errors import FileError, ModelError
from opsin.gguf import File, write

KEYS = [
    "block_count", "context_length", "embedding_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count",
]  # fmt: skip
HI = [{"role": "user", "content": "Hi"}]


def answer(path):
    with opsin.load(path, threads=1, context=64) as model:
        return model.chat(HI, temperature=0.0, max_tokens=5, ignore_eos=True).text


@pytest.mark.parametrize("key", KEYS)
def test_equal_numbers_of_all_layers_are_that_number(tmp_path, tiny_file, key):
    with File.open(tiny_file()) as file:
        one = file.metadata[f"llama.{key}"]
    path = tiny_llama(tmp_path / "listed.gguf", metadata={f"llama.{key}": [one] * 3})
    with File.open(path) as file:
        assert isinstance(file.metadata[f"llama.{key}"], np.ndarray)
    assert answer(path) == answer(tiny_file())


@pytest.mark.parametrize("key", KEYS)
def test_numbers_that_differ_say_so(tmp_path, key):
    path = tiny_llama(tmp_path / "listed.gguf", metadata={f"llama.{key}": [2, 2, 1]})
    with pytest.raises(ModelError) as caught:
        opsin.load(path)
    assert f"llama.{key} holds different numbers (2, 2, 1)" in caught.value.message
    assert caught.value.hint == "layers that differ cannot be run; opsin takes one number for all"


def test_many_layers_are_told_in_a_line(tmp_path):
    path = tiny_llama(tmp_path / "listed.gguf", metadata={"llama.attention.head_count_kv": [*range(100)]})
    with pytest.raises(ModelError, match=r"\(0, 1, 2, 3, 4, 5, \.\.\.\)"):
        opsin.load(path)


@pytest.mark.parametrize("value", [["2", "2"], [True, True], [2.0, 2.0], [float("nan")] * 2])
def test_other_arrays_are_no_integer(tmp_path, value):
    path = tmp_path / "file.gguf"
    write(path, {"general.architecture": "llama", "key": value}, [])
    with File.open(path) as file, pytest.raises((FileError, ModelError), match=r"\bkey\b"):
        file.get_int("key")


@pytest.mark.parametrize("value", [[2, 2], [2.5, 2.5], [7]])
def test_an_array_of_one_number_is_a_number(tmp_path, value):
    path = tmp_path / "file.gguf"
    write(path, {"general.architecture": "llama", "key": value}, [])
    with File.open(path) as file:
        found = file.get_float("key")
    assert found == value[0]
    assert type(found) is float
