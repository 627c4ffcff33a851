"""What text models' settings become: the rope's keys and divisors, and the tensors of the ordinary decoder."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import FileError, ModelError
from opsin.gguf.rules import Settings, plus_one
from opsin.gguf.text_rules import KEYS, PRE_NORM, ROPE_FACTORS, ROPE_KEYS, tensors

SIZES = {
    "vocab_size": 320, "max_position_embeddings": 4096, "hidden_size": 64, "num_hidden_layers": 3,
    "intermediate_size": 96, "num_attention_heads": 4,
}  # fmt: skip
BANDS = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def written(keys, **told):
    """The keys that a file gets, by their names without the architecture."""
    settings, found = Settings("config.json", SIZES | told), {}
    for key in keys:
        value = settings.get(key.path, key.kind, key.default) if isinstance(key.path, str) else key.path(settings)
        if value is not None:
            found[key.name.removeprefix("{arch}.").removeprefix("rope.")] = value
    return found


def factors(**told):
    return ROPE_FACTORS.make(Settings("config.json", SIZES | told))


def test_sizes_are_found_or_follow_from_others():
    assert written(KEYS) == {
        "vocab_size": 320, "context_length": 4096, "embedding_length": 64, "block_count": 3,
        "feed_forward_length": 96, "attention.head_count": 4, "attention.head_count_kv": 4,
        "attention.key_length": 16, "attention.value_length": 16, "attention.layer_norm_rms_epsilon": 1e-6,
        "freq_base": 10000.0,
    }  # fmt: skip
    told = written(KEYS, num_key_value_heads=2, head_dim=24, rms_norm_eps=1e-5, rope_theta=5e5)
    assert told["attention.head_count_kv"] == 2
    assert told["attention.key_length"] == told["attention.value_length"] == 24
    assert told["attention.layer_norm_rms_epsilon"] == 1e-5
    assert told["freq_base"] == 5e5


@pytest.mark.parametrize(
    "told",
    [{"rope_theta": 7}, {"rope_parameters": {"rope_theta": 7.0}},
     {"rope_parameters": {"full_attention": {"rope_theta": 7}}},
     {"rope_theta": 9, "rope_scaling": {"rope_type": "default", "rope_theta": 7}}],
)  # fmt: skip
def test_the_base_of_the_rope_is_found_in_each_of_its_places(told):
    assert written(ROPE_KEYS, **told) == {"freq_base": 7.0}


def test_a_rope_that_is_stretched_alike_has_a_factor():
    wanted = {"freq_base": 10000.0, "scaling.type": "linear", "scaling.factor": 4.0}
    assert written(ROPE_KEYS, rope_scaling={"type": "linear", "factor": 4}) == wanted


def test_yarn_s_numbers_are_left_out_where_they_are_its_own():
    plain = {"rope_type": "yarn", "factor": 4.0}
    said = {**plain, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 1024}
    wanted = {"freq_base": 10000.0, "scaling.type": "yarn", "scaling.factor": 4.0}
    assert written(ROPE_KEYS, rope_scaling=plain) == wanted
    assert written(ROPE_KEYS, rope_scaling=said) == {**wanted, "scaling.original_context_length": 1024}
    other = written(ROPE_KEYS, rope_scaling={**said, "beta_fast": 16, "beta_slow": 2})
    assert (other["scaling.yarn_beta_fast"], other["scaling.yarn_beta_slow"]) == (16.0, 2.0)


@pytest.mark.parametrize("told", [1.0, 1.25])
def test_the_strength_of_a_yarn_rope_is_told_beside_what_its_factor_gives(told):
    """Readers multiply what they are told with 1 + 0.1 ln(factor)."""
    made = written(ROPE_KEYS, rope_scaling={"rope_type": "yarn", "factor": 4.0, "attention_factor": told})
    assert made["scaling.attn_factor"] * (1 + 0.1 * np.log(4)) == pytest.approx(told)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ((1.0, 1.0), 1.0),
        ((0.7, 1.3), (1 + 0.07 * np.log(4)) / (1 + 0.13 * np.log(4))),
        ((None, 1.0), None),
        ((0.0, 2.0), None),
    ],
)
def test_the_strength_of_a_yarn_rope_may_be_told_in_shares(shares, told):
    """Those of queries and of all, as transformers divides them; one alone says nothing."""
    rope = {"rope_type": "yarn", "factor": 4.0, "mscale": shares[0], "mscale_all_dim": shares[1]}
    made = written(ROPE_KEYS, rope_scaling=rope).get("scaling.attn_factor")
    assert made == (pytest.approx(told / (1 + 0.1 * np.log(4))) if told else None)


def test_a_ramp_of_yarn_between_whole_pairs_is_refused():
    with pytest.raises(ModelError, match="rope_scaling.truncate is False"):
        written(ROPE_KEYS, rope_scaling={"rope_type": "yarn", "factor": 4.0, "truncate": False})


def test_what_belongs_to_yarn_is_not_said_of_other_ropes():
    linear = {"rope_type": "linear", "factor": 2.0}
    extra = {"beta_fast": 5, "attention_factor": 3.0, "original_max_position_embeddings": 99}
    assert written(ROPE_KEYS, rope_scaling=linear | extra) == written(ROPE_KEYS, rope_scaling=linear)


@pytest.mark.parametrize("kind", ["default", "linear", "yarn"])
def test_ropes_that_keys_can_say_have_no_divisors(kind):
    assert factors(rope_scaling={"rope_type": kind, "factor": 2.0}) is None


def test_divisors_are_those_of_transformers():
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(**SIZES, rope_parameters={**BANDS, "rope_theta": 5e5})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 5e5 ** -(np.arange(0, 16, 2) / 16)
    made = factors(rope_scaling=BANDS, rope_theta=5e5)
    np.testing.assert_allclose(plain / made, scaled.numpy(), rtol=1e-6)
    assert made[0] == 1 and made[-1] == 8 and 1 < sorted(made)[len(made) // 2] < 8  # short waves, long ones, the ramp


@pytest.mark.parametrize("name", ["factor", "high_freq_factor", "original_max_position_embeddings"])
@pytest.mark.parametrize("value", [None, "8", True])
def test_divisors_need_their_numbers(name, value):
    with pytest.raises(FileError, match=f"config.json: rope_scaling.{name} is {value!r}"):
        factors(rope_scaling=BANDS | {name: value})


def test_only_the_tensors_that_are_named_are_changed():
    def turn(values, settings):
        return values

    changes = {rule.target: rule.change for rule in (*tensors(q=turn, norm=plus_one), *PRE_NORM) if rule.change}
    assert changes.pop("blk.{n}.attn_q") is turn
    assert sorted(changes) == ["blk.{n}.attn_k_norm", "blk.{n}.attn_norm", "blk.{n}.attn_q_norm", "output_norm.weight"]
    assert set(changes.values()) == {plus_one}
