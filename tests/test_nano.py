"""The model that comes with opsin answers as torch answered with the same weights, and knows the example pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import opsin

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
RECORDED = json.loads((HERE / "nano" / "answers.json").read_text())
KNOWN = [line for line in json.loads((EXAMPLES / "questions.json").read_text()) if line.get("nano")]


@pytest.fixture(scope="module")
def nano():
    with opsin.load(threads=1, sequences=1, context=512) as model:
        yield model


def ask(model, pictures, question):
    content = [*map(Image.open, pictures), question]
    return model.chat([{"role": "user", "content": content}], temperature=0.0, max_tokens=24).text.strip()


@pytest.mark.parametrize("line", RECORDED, ids=lambda line: line["question"])
def test_it_answers_as_torch_does(nano, line):
    assert ask(nano, [HERE / "nano" / name for name in line["pictures"]], line["question"]) == line["torch"]


@pytest.mark.parametrize("line", KNOWN, ids=lambda line: f"{line['picture']}: {line['question']}")
def test_it_knows_what_the_examples_say_that_it_knows(nano, line):
    assert ask(nano, [EXAMPLES / line["picture"]], line["question"]) == line["answer"]


def test_the_examples_hold_questions_that_it_answers():
    assert len(KNOWN) >= 4
