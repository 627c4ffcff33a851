"""Weights that are no numbers, or too large, are the file's fault; embeddings that somebody gives are their own."""

from __future__ import annotations

import numpy as np
import pytest
from rows_of_logits import candidates_of
from tiny import MIXED, Shape, tiny_llama, weights, write_llama
from tiny_sight import tiny_pair, tower_metadata, tower_tensors, write_tower

import opsin
from opsin import Embeddings
from opsin.errors import FileError, RequestError

PICTURE = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
HI = [{"role": "user", "content": "Hi"}]
SEEN = [{"role": "user", "content": [PICTURE, "?"]}]
KNOBS = [
    {"temperature": 0.0}, {"temperature": 1.0, "seed": 1, "top_k": 0}, {"temperature": 0.0, "logprobs": 3},
]  # fmt: skip
WRONG = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "extreme": 3e38}
PLACES = ["token_embd", "output_norm", "blk.0.attn_norm", "blk.1.attn_q", "blk.1.attn_v", "blk.2.ffn_down"]


def answer(model, messages=HI, **knobs):
    return model.chat(messages, max_tokens=4, ignore_eos=True, **(knobs or KNOBS[0])).text


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", PLACES)
def test_weights_that_are_no_numbers_are_the_files_fault(tmp_path, place, wrong):
    if (place, wrong) == ("token_embd", "extreme"):
        return  # a norm makes zeros of it, and they are answered
    values = weights(Shape())
    values[f"{place}.weight"][...] = WRONG[wrong]
    with opsin.load(write_llama(tmp_path / "bad.gguf", Shape(), values), threads=2, context=64) as model:
        for knobs in KNOBS:
            with pytest.raises(FileError, match="logits that are no numbers .*the file is damaged, or overflows"):
                answer(model, **knobs)


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "F16", "BF16", "F32"])
def test_extreme_scales_answer_or_are_the_files_fault(tmp_path, format):
    path = tiny_llama(tmp_path / "model.gguf", types=dict.fromkeys(MIXED, format))
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(3)
    for place in random.integers(len(data) * 2 // 3, len(data) - 4, 400):
        data[place : place + 2] = b"\xff\x7b"  # the largest float16
    path.write_bytes(data)
    with opsin.load(path, threads=2, context=64) as model:
        try:
            assert isinstance(answer(model), str)
        except FileError as error:
            assert "no numbers" in error.message


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["v.patch_embd.weight", "v.position_embd.weight", "v.blk.1.attn_v.weight",
                                  "v.post_ln.weight", "mm.input_projection.weight"])  # fmt: skip
def test_a_tower_whose_weights_are_no_numbers_is_the_files_fault(tmp_path, name, wrong):
    text, mmproj = tiny_pair(tmp_path)
    tensors = tower_tensors("gemma3")
    tensors[name][...] = WRONG[wrong]
    write_tower(mmproj, tower_metadata("gemma3"), tensors)
    with opsin.load(text, threads=2, context=256) as model, opsin.load(mmproj, threads=2) as tower:
        expected = answer(model)
        for ask in (lambda: answer(model, SEEN), lambda: model.encode(PICTURE), lambda: tower.encode(PICTURE),
                    lambda: model.logits(model.question(SEEN).prompt)):  # fmt: skip
            with pytest.raises(FileError, match="embeddings that are no numbers .*its file is damaged"):
                ask()
        assert answer(model) == expected


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with opsin.load(tiny_pair(tmp_path_factory.mktemp("pair"))[0], threads=2, context=256) as made:
        yield made


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_embeddings_that_somebody_gives_are_their_own_fault(model, value):
    embeddings, expected = model.encode(PICTURE), answer(model)
    values = np.full(embeddings.shape, value)
    with np.errstate(over="ignore"), pytest.raises(RequestError):
        answer(model, [{"role": "user", "content": [Embeddings(values, embeddings.patches), "?"]}])
    assert answer(model) == expected
    assert answer(model, SEEN)


def test_edits_that_are_no_numbers_are_seen_and_stay_where_they_are(model):
    expected = answer(model)
    with np.errstate(all="ignore"):
        seen = model.trace([1, 2, 3], ["logits"], {"blk.0.out": lambda values: values * np.nan})
    assert np.isnan(seen["logits"]).all()
    assert np.isfinite(model.trace([1, 2, 3], ["logits"])["logits"]).all()
    assert answer(model) == expected


def test_logits_of_given_embeddings_that_overflow_are_the_requests_fault(model, monkeypatch):
    """A row that no norm makes small: the file alone is not to blame."""
    embeddings, step = model.encode(PICTURE), model.runner.step

    def overflowing(plan):
        return candidates_of(np.full_like(step(plan).whole(), np.nan))

    monkeypatch.setattr(model.runner, "step", overflowing)
    with pytest.raises(RequestError, match="no numbers .*embeddings that were given are too large"):
        answer(model, [{"role": "user", "content": [embeddings, "?"]}])
    with pytest.raises(FileError, match="no numbers"):
        answer(model, SEEN)
