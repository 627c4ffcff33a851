"""A picture whose rows are spans of their own, through the library: decoded, prepared, encoded and counted once."""

from __future__ import annotations

import io

import numpy as np
import pytest

import opsin
from opsin.convert.hf import convert

pytest.importorskip("torch")
pixtral_truth = pytest.importorskip("pixtral_truth", reason="needs transformers")

from vision_truth import picture  # noqa: E402

from opsin.media.steps import resize  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, truth = tmp_path_factory.mktemp("parts"), pixtral_truth.TOWERS["pixtral"]
    truth.save(truth.make(), folder / "hf")
    convert(folder / "hf", folder / "model.gguf", format="f32")
    with opsin.load(folder / "model.gguf", threads=2, context=2048) as made:
        yield made


def file_of(image):
    made = io.BytesIO()
    image.save(made, "PNG")
    return made.getvalue()


def test_its_rows_are_counted_once_and_without_what_stands_between(model):
    asked = model.question([{"role": "user", "content": [picture(40, 32), "What?", picture(16, 90)]}])
    assert [use.rows for use in asked.pictures] == [10 * 8, 4 * 23]
    assert asked.pictures[-1].end < len(asked.prompt)


def test_it_is_encoded_once_and_found_again(model):
    before, image = model.engine._media.encoded, picture(48, 40, seed=5)
    list(model.chat([{"role": "user", "content": [image, "What?"]}], max_tokens=3, temperature=0))
    list(model.chat([{"role": "user", "content": [image, "And now?"]}], max_tokens=3, temperature=0))
    assert model.engine._media.encoded == before + 1


def test_a_file_that_waits_is_let_go_when_its_features_are_made(model):
    rooms = model.vision.budgets
    patches = model.prepare(file_of(picture(44, 36, seed=6)))
    assert rooms.decoded.used > 0
    assert np.asarray(model.encode(patches)).shape == (patches.rows, 64)
    assert rooms.decoded.used == 0


def test_own_steps_run_once_for_all_of_its_rows(model):
    calls = []

    def watched(image, size, filter):
        calls.append(size)
        return resize(image, size, filter)

    image = picture(52, 36, seed=7)
    patches = model.prepare(image, steps={"resize": watched})
    assert calls == [(52, 36)]
    assert np.array_equal(np.asarray(model.encode(patches)), np.asarray(model.encode(image)))


def test_embeddings_that_are_given_back_stand_in_its_rows(model):
    image = picture(40, 24, seed=8)
    ask = [{"role": "user", "content": [image, "What?"]}]
    again = [{"role": "user", "content": [model.encode(image), "What?"]}]
    assert np.array_equal(model.logits(model.chat_prompt(again)), model.logits(model.chat_prompt(ask)))
