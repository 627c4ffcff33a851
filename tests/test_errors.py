"""Files that cannot be used: what is wrong, where, and what to do."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tiny import Shape, metadata, weights, write_llama

import opsin
from opsin.errors import BusyError, DeviceError, FileError, ModelError, OpsinError, OutOfMemoryError, RequestError

NEEDED = ["token_embd.weight", "output_norm.weight"] + [
    f"blk.1.{part}.weight"
    for part in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
]


def refusal(path, **options):
    """The error of loading, which must leave no thread behind."""
    before = set(threading.enumerate())
    with pytest.raises(OpsinError) as caught:
        opsin.load(path, **options)
    assert not set(threading.enumerate()) - before
    return caught.value


def write(folder, values=None, shape=None):
    shape = shape or Shape()
    return write_llama(folder / "made.gguf", shape, weights(shape) if values is None else values)


@pytest.mark.parametrize("content", [b"", b"GG", b"not a model at all, but a text", b"GGUF" + bytes(99)])
def test_a_file_that_is_no_gguf(tmp_path, content):
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    error = refusal(path)
    assert isinstance(error, FileError)
    assert str(path) in error.message


def test_a_file_that_is_not_there(tmp_path):
    error = refusal(tmp_path / "none.gguf")
    assert isinstance(error, FileError)
    assert "none.gguf" in error.message


def test_a_folder(tmp_path):
    assert isinstance(refusal(tmp_path), FileError)


def test_a_file_that_was_cut_off(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    assert isinstance(refusal(path), FileError)


def test_an_architecture_that_nobody_knows(tmp_path):
    error = refusal(write(tmp_path, shape=Shape(metadata={"general.architecture": "gpt-12"})))
    assert isinstance(error, ModelError)
    assert "'gpt-12'" in error.message
    assert "llama" in error.hint


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_tensor_is_named(tmp_path, name):
    values = weights(Shape())
    del values[name]
    error = refusal(write(tmp_path, values))
    assert isinstance(error, ModelError)
    assert name in str(error)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_missing_layer_is_missed(tmp_path, layer):
    values = {name: value for name, value in weights(Shape()).items() if not name.startswith(f"blk.{layer}.")}
    error = refusal(write(tmp_path, values))
    assert isinstance(error, ModelError)
    assert f"{layer} of its 3 layers" in error.message


@pytest.mark.parametrize("name", [*NEEDED, "output.weight"])
def test_a_tensor_of_another_shape_is_refused(tmp_path, name):
    values = weights(Shape(untied=True))
    for wrong in (np.concatenate([values[name]] * 2), values[name][: len(values[name]) // 2]):
        error = refusal(write(tmp_path, {**values, name: wrong}, Shape(untied=True)))
        assert isinstance(error, ModelError)


@pytest.mark.parametrize("name", [f"blk.1.{part}.bias" for part in ("attn_q", "attn_output", "ffn_down")])
def test_a_bias_of_another_size_is_refused(tmp_path, name):
    values = weights(Shape(biases=True))
    values[name] = values[name][:-1]
    error = refusal(write(tmp_path, values))
    assert f"{name} has {len(values[name])} values, where {len(values[name]) + 1} are needed" in error.message


def test_too_few_rope_factors_are_refused(tmp_path):
    error = refusal(write(tmp_path, shape=Shape(factors=(1.0,) * 15)))
    assert "rope_freqs.weight has 15 values, where 16 are needed" in error.message


@pytest.mark.parametrize("name", [name for name in NEEDED if "norm" not in name])
def test_a_tensor_of_another_width_is_refused(tmp_path, name):
    values = weights(Shape())
    values[name] = np.concatenate([values[name], values[name]], axis=1)
    assert isinstance(refusal(write(tmp_path, values)), ModelError)


@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count", "llama.context_length", "llama.embedding_length", "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
    ],
)  # fmt: skip
def test_a_missing_key_is_named(tmp_path, monkeypatch, key):
    monkeypatch.setattr("tiny.metadata", lambda shape: {k: v for k, v in metadata(shape).items() if k != key})
    error = refusal(write(tmp_path))
    assert isinstance(error, FileError | ModelError)
    assert key in str(error) or "vocabular" in str(error)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}, "longrope"),
        ({"llama.rope.dimension_count": 31}, "dimension_count is 31"),
        ({"llama.rope.dimension_count": 34}, "dimension_count is 34"),
        ({"llama.attention.head_count": 0}, "head_count"),
        ({"llama.attention.head_count_kv": 0}, "head_count_kv"),
        ({"llama.attention.head_count_kv": 3}, "head_count_kv"),
        ({"llama.attention.key_length": 0}, "key_length"),
        ({"llama.context_length": 0}, "context_length"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon"),
        ({"llama.rope.freq_base": 0.0}, "freq_base"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": -1.0}, "factor is -1"),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 0,
            },
            "original_context_length",
        ),
    ],
)
def test_an_impossible_value_is_named(tmp_path, keys, said):
    error = refusal(write(tmp_path, shape=Shape(metadata=keys)))
    assert isinstance(error, ModelError | FileError)
    assert said in str(error)


def test_more_tokens_than_rows_of_the_table(tmp_path):
    values = weights(Shape())
    values["token_embd.weight"] = values["token_embd.weight"][:100]
    assert "the tokenizer has 265 tokens, the model 100" in str(refusal(write(tmp_path, values)))


def test_pages_of_eight_bits_need_wide_heads(tmp_path):
    assert "heads of a multiple of 16, not 8" in str(refusal(write(tmp_path, shape=Shape(head=8)), pages="q8_0"))


def test_each_error_has_its_status_and_exit_code():
    kinds = [FileError, ModelError, RequestError, DeviceError, BusyError, OutOfMemoryError]
    assert [kind.status for kind in kinds] == [500, 500, 400, 500, 503, 503]
    assert len({kind.exit_code for kind in kinds}) == 6
    assert 0 not in {kind.exit_code for kind in kinds}


def test_a_hint_follows_the_message():
    assert str(ModelError("no", hint="do this")) == "no (do this)"
    assert str(ModelError("no")) == "no"
