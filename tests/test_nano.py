"""The model that comes with opsin answers as torch does with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import opsin
from opsin.cli.chat import _sampling
from opsin.cli.main import parser

ROOT = Path(__file__).parents[1]
RECORDED = json.loads((ROOT / "tests" / "nano" / "answers.json").read_text())


@pytest.fixture(scope="module")
def nano():
    with opsin.load(threads=1, sequences=1, context=512) as model:
        yield model


@pytest.mark.parametrize("line", RECORDED, ids=lambda line: f"{line['pictures'][0]}: {line['question']}")
def test_it_answers_as_torch_does(nano, line):
    content = [*(Image.open(ROOT / name) for name in line["pictures"]), line["question"]]
    said = nano.chat([{"role": "user", "content": content}], temperature=0.0, max_tokens=24)
    assert said.text.strip() == line["torch"]


def test_the_command_answers_greedily():
    """Temperature 0 unless a person asks for another, or for another model."""
    options = parser()
    assert _sampling(options.parse_args(["chat", "What?"])).temperature == 0
    assert _sampling(options.parse_args(["chat", "What?", "--temperature", "0.5"])).temperature == 0.5
    assert _sampling(options.parse_args(["chat", "What?", "-m", "other.gguf"])).temperature == 0.8


def test_most_examples_are_answered_rightly():
    examples = [line for line in RECORDED if line["pictures"][0].startswith("examples/")]
    assert sum(line["torch"] == line["right"] for line in examples) > len(examples) / 2
