"""The decoder of Mistral Small 3 and Ministral 3: files that say little, and mistakes in what the latter adds.

`test_decoders.py` holds it against transformers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import opsin
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.ops.cpu import Operations
from opsin.ops.reference import Reference

pytest.importorskip("torch")
pixtral_truth = pytest.importorskip("pixtral_truth", reason="needs transformers")

import checkpoints  # noqa: E402
from by_hand import Sequence, chunks_of, distance, open_decoder, score  # noqa: E402
from tiny import tiny_llama  # noqa: E402

IDS = np.random.default_rng(6).integers(7, checkpoints.VOCABULARY, 130).tolist()
OLD = checkpoints.YARN["original_max_position_embeddings"]


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("mistral3")


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, IDS)


@pytest.fixture
def ops(device):
    return device.eager()


def saved(folder, truth, **keys):
    return checkpoints.save(folder / "tiny.gguf", "mistral3", truth, **keys)


def test_logits_without_a_temperature_are_those_of_the_same_decoder(tmp_path):
    paths = [tiny_llama(tmp_path / "one.gguf"), pixtral_truth.write_text(tmp_path / "other.gguf")]
    found = []
    for path in paths:
        with opsin.load(path, threads=2) as model:
            found.append(model.logits(list(range(7, 90))))
    assert np.array_equal(*found)


def test_queries_grow_where_the_context_that_was_first_trained_ends(ops, tmp_path, truth):
    """The first steps of a file with a temperature have the bits of one without."""
    found = [
        score(ops, open_decoder(ops, saved(tmp_path, truth, attention__temperature_scale=scale)), Sequence(IDS))
        for scale in (0.4, None)
    ]
    same = (found[0] == found[1]).all(1)
    assert same[:OLD].all() and not same[OLD:].any()


def test_logits_equal_transformers_where_the_file_says_less(ops, tmp_path):
    """Without a context before the stretching, a step is as long as the whole context; YaRN's shares are 1 and 0."""
    rope = {name: value for name, value in checkpoints.YARN.items() if name not in ("mscale", "mscale_all_dim")}
    truth = checkpoints.make("mistral3", rope_parameters=rope)
    decoder = open_decoder(ops, saved(tmp_path, truth, rope__scaling__yarn_log_multiplier=None))
    assert distance(score(ops, decoder, Sequence(IDS)), checkpoints.logits(truth, IDS)) <= 1e-4
    alone = open_decoder(
        ops, saved(tmp_path, truth, rope__scaling__original_context_length=None, rope__scaling__type="none")
    )
    plain = open_decoder(ops, saved(tmp_path, truth, attention__temperature_scale=None, rope__scaling__type="none"))
    assert np.array_equal(score(ops, alone, Sequence(IDS)), score(ops, plain, Sequence(IDS)))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"attention__temperature_scale": -0.1}, "temperature_scale is -0.1"),
        ({"attention__temperature_scale": float("nan")}, "temperature_scale is nan"),
        ({"rope__scaling__original_context_length": 0}, "original_context_length is 0"),
        ({"rope__scaling__original_context_length": 1, "context_length": 1 << 20}, "original_context_length is 1, of"),
        ({"rope__dimension_count": checkpoints.HEAD // 2}, "temperature_scale with a rope of parts of a head"),
        ({"rope__scaling__yarn_log_multiplier": -1.0}, "yarn_log_multiplier is -1"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(tmp_path, truth, keys, told):
    with File.open(saved(tmp_path, truth, **keys)) as file, pytest.raises(ModelError, match=told):
        load_decoder(file, FileReader(file, Reference()))


def temperature(change):
    """A mutant of what queries are multiplied by, [steps]."""

    def apply(patch, decoder, ops):
        growth = ops.constant(change(decoder.temperature.growth.numpy().astype(np.float64)).astype(np.float32))
        return replace(decoder, temperature=replace(decoder.temperature, growth=growth))

    return apply


def every(count):
    return lambda patch, decoder, ops: replace(decoder, temperature=replace(decoder.temperature, every=count))


def scaled(by):
    return lambda patch, decoder, ops: replace(decoder, rope=replace(decoder.rope, scale=decoder.rope.scale * by))


def turning(change):
    def apply(patch, decoder, ops):
        return replace(decoder, frequencies=ops.constant(change(decoder.frequencies.numpy())))

    return apply


def _keys_grow(patch, decoder, ops):
    growth = decoder.temperature.growth
    right = Operations.rope_table
    patch.setattr(
        Operations, "rope_table",
        lambda self, places, turns, scale, **more: right(self, places, turns, scale, growth=growth, every=OLD),
    )  # fmt: skip
    return decoder


STEPS = np.arange(checkpoints.CONTEXT)
MUTANTS = {
    "no temperature": lambda patch, decoder, ops: replace(decoder, temperature=None),
    "keys grow as well": _keys_grow,
    "the logarithm begins one step early": temperature(lambda growth: np.append(growth[1:], growth[-1])),
    "queries grow with the step itself": temperature(lambda growth: 1 + 0.4 * np.arange(len(growth))),
    "queries shrink": temperature(lambda growth: 1 / growth),
    "a decimal logarithm": temperature(lambda growth: 1 + 0.4 * np.log10(1 + np.arange(len(growth)))),
    "steps of the stretched context": every(4 * OLD),
    "a step ends one position late": every(OLD + 1),
    "queries grow at each position": lambda patch, decoder, ops: replace(
        decoder, temperature=replace(
            decoder.temperature, every=1, growth=ops.constant((1 + 0.4 * np.log1p(STEPS / OLD)).astype(np.float32)))
    ),
    "the rope's strength leaves the second share out": scaled(1 + 0.06 * np.log(4)),
    "the rope has no strength": lambda patch, decoder, ops: replace(decoder, rope=replace(decoder.rope, scale=1.0)),
    "all frequencies are stretched": turning(lambda f: np.float32(1e4) ** np.float32(-np.arange(16) / 16) / 4),
    "no frequency is stretched": turning(lambda f: np.float32(1e4) ** np.float32(-np.arange(16) / 16)),
    "pairs are halves": lambda patch, decoder, ops: replace(decoder, pairing="halves"),
}  # fmt: skip


def test_nothing_is_seen_without_a_mistake(ops, tmp_path, truth, expected):
    decoder = open_decoder(ops, saved(tmp_path, truth))
    assert distance(score(ops, decoder, Sequence(IDS), chunks_of(len(IDS), 50)), expected) <= 1e-4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, tmp_path, truth, expected, mutant):
    decoder = MUTANTS[mutant](monkeypatch, open_decoder(ops, saved(tmp_path, truth)), ops)
    assert distance(score(ops, decoder, Sequence(IDS)), expected) > 1e-3
