"""The model that comes with opsin answers as torch does with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import opsin

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


def test_its_file_recommends_the_likeliest_answer(nano):
    assert nano.facts.sampling.temperature == 0


@pytest.mark.parametrize("line", [line for line in RECORDED if line["pictures"][0].startswith("examples/")][:6])
def test_a_picture_may_stand_anywhere_in_a_message(nano, line):
    pictures = [Image.open(ROOT / name) for name in line["pictures"]]
    said = nano.chat([{"role": "user", "content": [line["question"], *pictures]}], max_tokens=24)
    assert said.text.strip() == line["torch"]


def test_most_examples_are_answered_rightly():
    examples = [line for line in RECORDED if line["pictures"][0].startswith("examples/")]
    assert sum(line["torch"] == line["right"] for line in examples) > len(examples) / 2
