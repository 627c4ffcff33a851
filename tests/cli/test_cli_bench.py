"""`opsin bench`: the object that it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsin.cli.bench import behind

pytestmark = pytest.mark.model
SIZES = ("-p", "32", "-n", "8", "-t", "2")


def test_the_json_object_has_all_figures(run, smollm2: Path) -> None:
    done = run("bench", "-m", smollm2, *SIZES, "--json")
    assert done.returncode == 0
    got = json.loads(done.stdout)
    assert got["prompt_tokens_per_second"] > 0
    assert got["decode_tokens_per_second"] > 0
    assert 0 < got["load_seconds"] < 800
    assert smollm2.stat().st_size < got["peak_bytes"] < smollm2.stat().st_size + (600 << 20)
    assert got["threads"] == 2
    assert got["model"] == str(smollm2)
    assert (got["depth"], got["parallel"]) == (0, 1)
    assert "step_seconds" not in got


def test_step_seconds_are_those_of_the_decode_steps(run, smollm2: Path) -> None:
    asked = ("-p", 32, "-n", 40, "-t", 2, "--depth", 70, "--repeat", 2, "--steps-json")
    got = json.loads(run("bench", "-m", smollm2, *asked).stdout)
    assert got["depth"] == 70
    assert 0 < len(got["step_seconds"]) <= 80  # a busy machine hears of the first token when others are made
    assert all(seconds > 0 for seconds in got["step_seconds"])


def test_sequences_decode_together(run, smollm2: Path) -> None:
    done = run("bench", "-m", smollm2, "-p", 32, "-n", 40, "-t", 2, "--parallel", 3, "--steps-json")
    got = json.loads(done.stdout)
    assert got["parallel"] == 3
    assert got["prompt_tokens_per_second"] > 0
    total, steps = got["decode_tokens_per_second"], got["step_seconds"]
    assert 0 < len(steps) <= 112  # one for a token of each, and of a busy machine those until the others are stopped
    # When the first token is heard of, the next step may have begun.
    assert total * sum(steps[1:]) <= 3 * len(steps) * 1.05


def test_half_of_it_may_be_left_out(run, smollm2: Path) -> None:
    got = json.loads(run("bench", "-m", smollm2, "-p", 0, "-n", 4, "--json").stdout)
    assert got["prompt_tokens_per_second"] is None
    assert got["decode_tokens_per_second"] > 0
    got = json.loads(run("bench", "-m", smollm2, "-p", 4, "-n", 0, "--json").stdout)
    assert got["prompt_tokens_per_second"] > 0
    assert got["decode_tokens_per_second"] is None


def test_nothing_to_measure_is_refused(run, smollm2: Path) -> None:
    done = run("bench", "-m", smollm2, "-p", 0, "-n", 0)
    assert done.returncode == 2
    assert done.stderr.startswith("opsin: there is nothing to measure")


def test_the_table_is_for_people(run, smollm2: Path) -> None:
    lines = run("bench", "-m", smollm2, *SIZES).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "prompt", "decode", "load", "peak", "threads"]


def test_steps_of_any_rows_count_by_what_they_have_behind_the_depth() -> None:
    assert behind([1.0, 2.0, 4.0], [448, 63, 1], 0) == 7.0  # where recurrent state is kept steps are shorter
    assert behind([1.0, 2.0, 4.0], [100, 100, 50], 150) == 5.0
    assert behind([1.0, 2.0], [100, 100], 200) == 0.0
