"""The llama family against transformers' class with the same float32 weights, and float32 pages."""

from __future__ import annotations

import numpy as np
import pytest
from figures import note
from tiny import Shape

import opsin

torch = pytest.importorskip("torch")
llama_truth = pytest.importorskip("llama_truth", reason="needs transformers")

TOLERANCE = 1e-4  # of the largest value


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, Shape().vocabulary, count).tolist()


def assert_close(ours, theirs, tolerance=TOLERANCE):
    assert ours.shape == theirs.shape
    worst = note(np.abs(ours - theirs).max() / np.abs(theirs).max())
    assert worst <= tolerance, worst


@pytest.fixture(scope="module")
def truth():
    return llama_truth.llama_truth(Shape())


@pytest.fixture(scope="module")
def model(tiny_file):
    with opsin.load(tiny_file(), threads=2, pages="f32") as made:
        yield made


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 130, 512, 513, 700, 1023])
def test_logits_equal_transformers(model, truth, rows):
    ids = ids_of(rows, seed=rows)
    assert_close(model.logits(ids), llama_truth.logits(truth, ids))


def test_attention_of_the_tiny_model_is_peaked(truth):
    weights = llama_truth.run(truth, ids_of(200), output_attentions=True).attentions
    assert np.mean([float(w[..., 100:, :].amax(-1).mean()) for w in weights]) > 0.2


def test_hidden_states_equal_transformers(model, truth):
    ids = ids_of(130)
    theirs = llama_truth.run(truth, ids, output_hidden_states=True).hidden_states
    ours = model.trace(ids, ["embed", "blk.*.out", "norm"])
    assert list(ours) == ["embed", "blk.0.out", "blk.1.out", "blk.2.out", "norm"]
    for name, hidden in zip(["embed", "blk.0.out", "blk.1.out", "norm"], theirs, strict=True):
        assert_close(ours[name], hidden[0].numpy())  # transformers gives the last one after its norm


def test_attention_weights_equal_transformers(model, truth):
    ids = ids_of(130)
    theirs = llama_truth.run(truth, ids, output_attentions=True).attentions
    ours = model.trace(ids, ["blk.*.attn.weights"])
    assert len(ours) == len(theirs) == 3
    for layer, weights in enumerate(theirs):
        assert_close(ours[f"blk.{layer}.attn.weights"], weights[0].numpy().transpose(1, 0, 2))


def test_trace_names_everything_it_can_show(model):
    names = [f"blk.{layer}.{part}" for layer in range(3) for part in ("attn.weights", "attn.sum", "out")]
    assert list(model.trace(ids_of(5))) == ["embed", *names, "norm", "logits"]


def test_logits_of_trace_equal_those_of_the_recorded_program(model):
    ids = ids_of(100)
    assert_close(model.trace(ids, ["logits"])["logits"], model.logits(ids), 1e-5)


def test_a_hidden_state_of_other_ids_gives_the_other_ids_logits(model, truth):
    ids, other = ids_of(70), ids_of(70, seed=9)
    hidden = llama_truth.run(truth, other, output_hidden_states=True).hidden_states[2][0].numpy()
    ours = model.trace(ids, ["logits"], edits={"blk.1.out": lambda now: hidden})["logits"]
    assert_close(ours, llama_truth.logits(truth, other))
    assert np.abs(ours - model.logits(ids)).max() > 0.1


def test_a_silenced_head_equals_the_same_in_transformers(model, truth):
    ids, head = ids_of(70), 2

    def silence(weights):
        weights[:, head] = 0
        return weights

    def hook(module, args):
        args[0][..., head * 32 : (head + 1) * 32] = 0

    handle = truth.model.layers[1].self_attn.o_proj.register_forward_pre_hook(hook)
    theirs = llama_truth.logits(truth, ids)
    handle.remove()
    assert_close(model.trace(ids, ["logits"], edits={"blk.1.attn.weights": silence})["logits"], theirs)
    assert np.abs(theirs - llama_truth.logits(truth, ids)).max() > 0.1


def test_edited_values_are_what_the_tap_shows(model):
    seen = model.trace(ids_of(4), ["embed"], edits={"embed": lambda x: x * 0 + 3})
    assert np.array_equal(seen["embed"], np.full((4, 64), 3, np.float32))


def test_an_edit_of_another_shape_is_refused(model):
    with pytest.raises(opsin.OpsinError, match=r"blk\.0\.out gave shape \(3, 64\), not \(4, 64\)"):
        model.trace(ids_of(4), edits={"blk.0.out": lambda x: x[1:]})


@pytest.mark.parametrize("names", [{"taps": ["blk.7.out"]}, {"taps": [], "edits": {"blk.7.out": lambda x: x}}])
def test_a_name_that_does_not_exist_is_refused(model, names):
    with pytest.raises(opsin.OpsinError, match=r"blk\.7\.out"):
        model.trace(ids_of(4), **names)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 128}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 32.0,
        "beta_slow": 1.0}  # fmt: skip


def llama3_factors(width=32, base=10000.0, factor=8.0, low=1.0, high=4.0, old=128):
    """What converters write as rope_freqs.weight for Llama 3.1's scaling."""
    factors = []
    for i in range(width // 2):
        wave = 2 * np.pi * base ** (2 * i / width)
        smooth = (old / wave - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1.0 if wave < old / high else factor if wave > old / low else between)
    return tuple(float(f) for f in factors)


def scaling(kind, factor, **more):
    keys = {"type": kind, "factor": factor, **more}
    return {f"llama.rope.scaling.{key}": value for key, value in keys.items()}


VARIANTS = {
    "biases": ({"biases": True}, {}),
    "fused q, k and v": ({"fused": True}, {}),
    "fused q, k and v with biases": ({"fused": True, "biases": True}, {}),
    "output of its own": ({"untied": True}, {}),
    "scale of its own": ({"metadata": {"llama.attention.scale": 0.25}}, {"scale": 0.25}),
    "one KV head": ({"kv_heads": 1}, {}),
    "as many KV heads as heads": ({"kv_heads": 4}, {}),
    "another base": ({"base": 500.0}, {}),
    "linear": ({"metadata": scaling("linear", 4.0)}, {"rope": {"rope_type": "linear", "factor": 4.0}}),
    "linear by its old key": (
        {"metadata": {"llama.rope.scale_linear": 4.0}}, {"rope": {"rope_type": "linear", "factor": 4.0}}
    ),
    "none": ({"metadata": scaling("none", 4.0)}, {}),
    "llama3": ({"factors": llama3_factors()}, {"rope": LLAMA3}),
    "yarn": ({"metadata": scaling("yarn", 4.0, original_context_length=128)}, {"rope": YARN}),
    "yarn of the context that it was trained for": (
        {"context": 1200, "metadata": scaling("yarn", 4.0)},
        {"rope": {**YARN, "original_max_position_embeddings": 1200}},
    ),
    "yarn with its own ramp": (
        {"metadata": scaling("yarn", 4.0, original_context_length=128, yarn_beta_fast=8.0, yarn_beta_slow=2.0)},
        {"rope": {**YARN, "beta_fast": 8.0, "beta_slow": 2.0}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_equal_transformers(tiny_file, variant):
    shape, options = VARIANTS[variant]
    ids = ids_of(300)
    theirs = llama_truth.logits(llama_truth.llama_truth(Shape(**shape), **options), ids)
    plain = llama_truth.logits(llama_truth.llama_truth(Shape(**{**shape, "metadata": {}})), ids)
    with opsin.load(tiny_file(**shape), threads=2, pages="f32") as model:
        assert_close(model.logits(ids), theirs)
    if options:  # it does matter here
        assert np.abs(theirs - plain).max() / np.abs(plain).max() > 100 * TOLERANCE
