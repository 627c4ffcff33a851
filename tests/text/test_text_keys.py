"""Keys of another type than a tokenizer or template needs are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import FileError
from opsin.text import ChatTemplate, Tokenizer
from opsin.text.keys import read_flag, read_int, read_numbers, read_texts

SOUND = {
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": [*"abcdefghijklmn"],
    "tokenizer.ggml.token_type": np.full(14, 1, np.int32), "tokenizer.ggml.merges": [],
}  # fmt: skip


def test_the_sound_keys_make_a_tokenizer() -> None:
    assert Tokenizer.from_metadata(SOUND).encode("cab") == [2, 0, 1]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", 3, "is 3, not a string"),
        ("pre", np.zeros(2), "is of the type ndarray, not a string"),
        ("tokens", "abc", "is 'abc', not a list of strings"),
        ("tokens", np.arange(3), "is of the type ndarray, not a list of strings"),
        ("tokens", [*"abc", "d\udcff"], "is not UTF-8"),
        ("merges", ["a b", "a \udcff"], "is not UTF-8"),
        ("merges", 7, "is 7, not a list of strings"),
        ("token_type", 1, "is 1, not a list of integers"),
        ("token_type", np.full(14, np.nan), "is of the type ndarray, not a list of integers"),
        ("token_type", ["1"] * 14, "is of the type list, not a list of integers"),
        ("scores", ["x"] * 14, "is of the type list, not a list of numbers"),
        ("bos_token_id", [1, 2], "is of the type list, not an integer"),
        ("eos_token_id", 1.5, "is 1.5, not an integer"),
        ("eot_token_id", True, "is True, not an integer"),
        ("add_bos_token", "yes", "is 'yes', not a boolean"),
    ],
)
def test_a_key_of_another_type_is_named(key: str, value: object, said: str) -> None:
    with pytest.raises(FileError, match=f"tokenizer.ggml.{key} {said}") as caught:
        Tokenizer.from_metadata({**SOUND, f"tokenizer.ggml.{key}": value})
    assert caught.value.hint


@pytest.mark.parametrize(
    "keys", [{"tokenizer.chat_template": 5}, {"tokenizer.chat_template.tool_use": [1]},
             {"tokenizer.chat_template": "x", "tokenizer.ggml.tokens": 3},
             {"tokenizer.chat_template": "x", "tokenizer.ggml.bos_token_id": "1"}],
)  # fmt: skip
def test_a_template_is_a_string_beside_sound_tokens(keys: dict[str, object]) -> None:
    with pytest.raises(FileError, match=f"{list(keys)[-1]} is "):
        ChatTemplate.from_metadata(keys)


def test_absent_keys_are_answered_with_what_stands_for_them() -> None:
    assert read_int({}, "x") is read_numbers({}, "x") is None
    assert read_flag({}, "x", True) is True
    assert read_flag({"x": 0}, "x", True) is False
    assert [*read_texts({"x": np.zeros(0)}, "x")] == [*read_texts({}, "x")] == []
    assert read_numbers({"x": np.zeros(0, np.float32)}, "x", whole=True) == []
