"""Fields that say how tokens are chosen: each reaches the sampling, moved or refused as in llama-server."""

from __future__ import annotations

import pytest

from opsin.api import Sampling
from opsin.engine.sampling import SAMPLERS
from opsin.errors import RequestError
from opsin.serve.fields import read
from opsin.serve.sampling_fields import SamplingFields, sampling_of

BASE = Sampling(temperature=0.3, repeat_penalty=1.2)


def read_sampling(**body):
    return sampling_of(read(body, SamplingFields), BASE, max_tokens=None, logprobs=None)


def changed(**body):
    """What a body changes of the options that hold without it."""
    made = read_sampling(**body)
    names = Sampling.__dataclass_fields__
    return {name: getattr(made, name) for name in names if getattr(made, name) != getattr(BASE, name)}


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 1.5}, {"dynatemp_range": 0.5}, {"dynatemp_exponent": 2.0}, {"top_k": 7}, {"top_p": 0.5},
        {"min_p": 0.2}, {"typical_p": 0.5}, {"top_n_sigma": 1.5}, {"xtc_probability": 0.5}, {"xtc_threshold": 0.2},
        {"repeat_penalty": 1.0}, {"presence_penalty": -0.5}, {"frequency_penalty": 0.5}, {"repeat_last_n": -1},
        {"dry_multiplier": 0.8}, {"dry_base": 2.0}, {"dry_allowed_length": 3}, {"dry_penalty_last_n": 0},
        {"dry_sequence_breakers": ("x",)}, {"mirostat": 2}, {"mirostat_tau": 3.0}, {"mirostat_eta": 0.2},
        {"adaptive_target": 0.4}, {"adaptive_decay": 0.5}, {"min_keep": 3}, {"min_tokens": 4},
        {"stop_token_ids": (5, 6)}, {"bad_words": ("so",)}, {"allowed_token_ids": (1, 2)}, {"seed": 9},
        {"ignore_eos": True}, {"post_sampling_probs": True},
    ],
    ids=str,
)  # fmt: skip
def test_each_field_is_the_option_of_its_name(body):
    assert changed(**{k: [*v] if isinstance(v, tuple) else v for k, v in body.items()}) == body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": -2}, {"temperature": 0}), ({"top_k": -5}, {"top_k": 0}), ({"top_p": 7}, {"top_p": 1}),
        ({"min_p": -1}, {"min_p": 0}), ({"xtc_threshold": 3.0}, {"xtc_threshold": 1}),
        ({"mirostat": 9}, {"mirostat": 2}),
        ({"adaptive_target": 4.0}, {"adaptive_target": 1}), ({"dry_base": 0.5}, {}), ({"seed": -1}, {}),
        ({"mirostat_mode": 1}, {"mirostat": 1}), ({"random_seed": 4}, {"seed": 4}),
        ({"min_length": 4}, {"min_tokens": 4}),
        ({"repetition_penalty": 1.5}, {"repeat_penalty": 1.5, "repeat_last_n": -1}),
        ({"repetition_penalty": 1.5, "repeat_last_n": 8}, {"repeat_penalty": 1.5, "repeat_last_n": 8}),
        ({"do_sample": False}, {"temperature": 0.0}), ({"do_sample": True}, {}), ({"top_k": 40.0}, {}),
        ({"samplers": "kt"}, {"samplers": ("top_k", "temperature")}), ({"samplers": []}, {"samplers": ()}),
        ({"samplers": ["Top-P", "typ"]}, {"samplers": ("top_p", "typ_p")}), ({"samplers": "edskypmxt"}, {}),
        ({"logit_bias": {"5": -100, " the": False, "-3": 1}},
         {"logit_bias": ((5, -100.0), (" the", -float("inf")), ("-3", 1.0))}),
        ({"logit_bias": [[5, 1.5], ["so", False]]}, {"logit_bias": ((5, 1.5), ("so", -float("inf")))}),
        ({"logit_bias": {}}, {}), ({"logit_bias": []}, {}), ({"presence_penalty": None}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_what_others_write_is_taken_as_they_mean_it(body, expected):
    assert changed(**body) == expected


HUGE = 10**400
REFUSED = [
    ("temperature", "hot"), ("temperature", float("inf")), ("temperature", 1e300), ("top_k", 1.5), ("top_k", HUGE),
    ("repeat_penalty", 0), ("repeat_penalty", -1.0), ("repeat_penalty", 1e-40), ("repeat_last_n", -2),
    ("repeat_last_n", 1 << 40), ("presence_penalty", 1e40), ("frequency_penalty", True), ("dry_multiplier", 1e300),
    ("dry_allowed_length", -1), ("dry_penalty_last_n", -2), 
    ("dry_sequence_breakers", "x"), ("dry_sequence_breakers", [""]), ("dry_sequence_breakers", ["x"] * 2000),
    ("mirostat", "2"), ("mirostat_tau", float("-inf")), ("adaptive_decay", 1.0), ("adaptive_decay", -0.1),
    ("min_keep", -1), ("min_tokens", -1), ("samplers", "kz"), ("samplers", ["tfs_z"]), ("samplers", ["top_k"] * 21),
    ("samplers", "k" * 100_000), ("samplers", [3]), ("logit_bias", {"5": True}), ("logit_bias", {"5": "x"}),
    ("logit_bias", [[5]]), ("logit_bias", [[5, 1, 2]]), ("logit_bias", [[-5, 1]]), ("logit_bias", {"5": 1e40}),
    ("logit_bias", {str(i): 1 for i in range(200_000)}), ("logit_bias", [[HUGE, 1]]), ("logit_bias", 5),
    ("stop_token_ids", [-1]), ("stop_token_ids", ["a"]), ("stop_token_ids", [HUGE]), ("bad_words", [""]),
    ("bad_words", "so"), ("allowed_token_ids", [1.5]), ("seed", 1 << 64), ("tfs_z", 0.5), ("num_beams", 4),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{name}-{str(value)[:20]}" for name, value in REFUSED])
def test_what_no_sampler_can_take_is_refused_by_name(name, value):
    with pytest.raises(RequestError) as caught:
        read_sampling(**{name: value})
    assert (caught.value.param or "").partition("[")[0] == name
    assert name in caught.value.message and len(str(caught.value)) < 900


def ask(server, **body):
    return server.ask(
        "/completion", {"prompt": "the rain", "n_predict": 6, "temperature": 0, "ignore_eos": True, **body}
    )


def test_settings_tell_what_holds(server):
    body = {"repeat_penalty": 1.5, "samplers": "kt", "logit_bias": [[5, False], [6, 2]], "dry_sequence_breakers": ["x"]}
    told = ask(server, **body).json["generation_settings"]
    assert told["repeat_penalty"] == 1.5
    assert told["samplers"] == ["top_k", "temperature"]
    biases = [{"token": 5, "bias": None}, {"token": 6, "bias": 2.0}]
    ends = [{"token": id, "bias": None} for id in sorted(server.service.model.tokenizer.end_ids)]
    assert ends and told["logit_bias"] == [*biases, *ends]  # ignore_eos is the same as these biases
    assert ask(server, **body, ignore_eos=False).json["generation_settings"]["logit_bias"] == biases
    assert told["dry_sequence_breakers"] == ["x"]
    assert server.ask("/props").json["default_generation_settings"]["params"]["samplers"] == [*SAMPLERS]


def test_a_server_answers_as_it_is_asked_to(server, text_model):
    whole = ask(server, return_tokens=True).json
    assert set(whole["tokens"]) != {66}
    assert set(ask(server, logit_bias={"66": 100}, return_tokens=True).json["tokens"]) == {66}
    assert set(ask(server, allowed_token_ids=[66], return_tokens=True).json["tokens"]) == {66}
    first = text_model.detokenize(whole["tokens"][:1])
    assert ask(server, bad_words=[first], return_tokens=True).json["tokens"][0] != whole["tokens"][0]
    assert ask(server, presence_penalty=500.0, repeat_last_n=-1).json["content"] != whole["content"]
    stopped = ask(server, stop_token_ids=whole["tokens"][:1]).json
    assert (stopped["content"], stopped["stop_type"]) == ("", "eos")


@pytest.mark.parametrize("field", ["logit_bias", "stop_token_ids", "allowed_token_ids"])
def test_ids_outside_the_vocabulary_are_refused(server, field):
    reply = ask(server, **{field: {"99999": 1} if field == "logit_bias" else [99999]})
    assert (reply.status, reply.json["error"]["param"]) == (400, field)


def test_probabilities_of_what_was_drawn_from_are_told(server):
    usual = {"n_probs": 5, "post_sampling_probs": True, "temperature": 2.0, "top_p": 1.0, "min_p": 0.0, "seed": 3}
    for told in ask(server, **usual, top_k=3).json["completion_probabilities"]:
        assert [*told] == ["id", "token", "bytes", "prob", "top_probs"]
        shares = [one["prob"] for one in told["top_probs"]]
        assert len(shares) <= 3 and sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)
        assert told["prob"] in shares
    for told in ask(server, **usual | {"temperature": 0}).json["completion_probabilities"]:
        assert [one["prob"] for one in told["top_probs"]] == [told["prob"]] == [1.0]
    assert "logprob" in ask(server, n_probs=2).json["completion_probabilities"][0]
