"""Flags of sampling at `opsin chat`: each is the option of its name, and llama.cpp's name is one of its names."""

from __future__ import annotations

import argparse

import pytest

from opsin.cli.main import run
from opsin.cli.request_flags import REQUEST_FLAGS
from opsin.cli.sampling_flags import add_sampling, sampling_options
from opsin.engine.sampling import NAMES


def asked(*flags):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_sampling(parser)
    return sampling_options(argparse.Namespace(**vars(parser.parse_args(flags)), max_tokens=None, ignore_eos=False))


def test_every_flag_of_llama_cpp_for_sampling_is_there_and_is_the_same_option():
    values = {
        "samplers": "top_k;temp",
        "logit_bias": "5-inf",
        "dry_sequence_breakers": "x",
        "mirostat": "2",
        "adaptive_decay": "0.5",
    }
    found = set()
    for flag in REQUEST_FLAGS:
        if flag.field not in NAMES or flag.read is None:
            continue
        for name in (name for name in flag.names if name.startswith("--")):
            value = "kt" if "seq" in name and flag.field == "samplers" else values.get(flag.field, "1")
            made = asked(name, value)
            assert made.keys() == {flag.field, "ignore_eos"}, name
            read = flag.read(value)
            assert made[flag.field] == ([read] if flag.repeatable else read)
            found.add(flag.field)
    assert len(found) > 20


def test_no_breakers_at_all():
    assert asked("--dry-sequence-breaker", "none")["dry_sequence_breakers"] == []


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--repeat-penalty", "0", "repeat_penalty"), ("--mirostat", "3", "mirostat"), ("--top-nsigma", "nan", "top_n"),
        ("--samplers", "tfs_z", "'tfs_z' is no sampler"), ("--sampler-seq", "q", "'q' is no sampler's letter"),
        ("--logit-bias", "x", "is no bias"), ("--dry-multiplier", "much", "is not a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_a_model_is_read(capsys, flag, value, said):
    assert run(["chat", "-m", "nowhere.gguf", flag, value, "Hi"]) == 2
    assert said in capsys.readouterr().err
