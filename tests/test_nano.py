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


def written(nano, *content: str | Image.Image) -> str:
    """What a message of the user becomes; <1>, <2> stand for its pictures."""
    text = nano.write([{"role": "user", "content": list(content)}])
    for number in range(text.count(nano.picture_marker)):
        text = text.replace(nano.picture_marker, f"<{number + 1}>", 1)
    return text.removeprefix("<bos><start_of_turn>user\n").removesuffix("<end_of_turn>\n<start_of_turn>model\n")


def test_pictures_stay_where_they_stand_between_texts(nano):
    one, two = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    assert written(nano, "left:", one, "right:", two, "Which is red?") == "left:<1>right:<2>Which is red?"
    assert written(nano, "A", one, "B", two) == "A<1>B<2>"
    assert written(nano, one, "A", two, "B", "C") == "<1>A<2>B C"


def test_pictures_before_or_behind_all_texts_stand_as_it_was_taught(nano):
    one, two = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    assert written(nano, one, two, " A ", "B") == written(nano, "A", "B", one, two) == "<1><2>A B"
    assert written(nano, one, "A") == written(nano, "A", one) == "<1>A"
    assert written(nano, one) == "<1>" and written(nano, "A", "B") == "A B" and written(nano, "", one) == "<1>"


def test_its_template_is_that_of_the_training(nano):
    pytest.importorskip("tokenizers")
    from training.text import TEMPLATE

    assert nano.text.prompting.template.source == TEMPLATE
