"""Embeddings wider than the decoder, through the library: what text pays for it, and what is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import opsin
from opsin.convert.hf import convert
from opsin.errors import OpsinError
from opsin.spans import Prompt

pytest.importorskip("torch")
qwen3vl_truth = pytest.importorskip("qwen3vl_truth", reason="needs transformers")

import llava_truth  # noqa: E402
from vision_truth import picture  # noqa: E402

PARTS = 1 + len(qwen3vl_truth.DEEP)
RED, WIDE = picture(60, 44), picture(120, 41, seed=2)


def pair(folder, truth):
    """A model and its mmproj."""
    truth.save(truth.make(), folder / "hf")
    convert(folder / "hf", folder / "model.gguf", mmproj=folder / "mmproj.gguf", format="f32")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("deepstack"), qwen3vl_truth.TOWERS["qwen3vl"])


@pytest.fixture
def model(folder):
    with opsin.load(folder / "model.gguf", threads=2, context=1024, pages="f32") as made:
        yield made


def additions(model):
    """Operations of a step that add parts of embeddings."""
    return [entry for entry in model.runner.program._program.entries if "add" in entry.title and "rows" in entry.title]


def looked_at(model, monkeypatch):
    """Of each step, how many rows it has, and at how many of them an addition looks."""
    program, seen = model.runner.program, []
    right = type(program).run

    def run(self, **counts):
        if self is program:
            seen.append((counts["rows"], int(program.rows["media"].reach[0])))
        return right(self, **counts)

    monkeypatch.setattr(type(program), "run", run)
    return seen


def test_steps_of_text_have_none_of_the_work(model, monkeypatch):
    seen = looked_at(model, monkeypatch)
    assert len(additions(model)) == len(qwen3vl_truth.DEEP)
    reach = model.runner.program.rows["media"].reach.ctypes.data
    assert all(entry.items == reach for entry in additions(model))
    "".join(model.chat("Only words.", max_tokens=4, ignore_eos=True))
    assert len(seen) >= 4 and all(rows == 0 for _, rows in seen)
    del seen[:]
    answer = model.chat([{"role": "user", "content": ["See ", RED, "?"]}], max_tokens=4, ignore_eos=True)
    "".join(answer)
    assert any(rows > 0 for _, rows in seen)
    assert all(rows == 0 for count, rows in seen if count == 1)  # one by one after the prompt


def test_a_model_without_pictures_and_other_families_have_no_such_operation(folder, tmp_path):
    with opsin.load(folder / "model.gguf", threads=2, context=256, vision=False) as model:
        assert additions(model) == []
    other = pair(tmp_path, llava_truth.TOWERS["llava"])
    with opsin.load(other / "model.gguf", threads=2, context=256) as model:
        assert model.has_vision
        assert additions(model) == []


def test_kept_pictures_are_counted_in_their_whole_width(model):
    made = model.encode(RED)
    assert made.shape == (made.patches.rows, PARTS * model.width)
    assert model.runner.media.used_bytes == made.values.nbytes > 0


def test_embeddings_from_outside_give_the_same_logits_and_must_be_whole(model):
    made = model.encode([RED, WIDE])

    def logits(first, last):
        return model.logits(model.chat_prompt([{"role": "user", "content": [first, " and ", last, "?"]}]))

    assert np.array_equal(logits(*made), logits(RED, WIDE))
    narrow = replace(made[0], values=made[0].values[:, : model.width])
    with pytest.raises(OpsinError, match=rf"where \({len(narrow)}, {PARTS * model.width}\) finite numbers"):
        logits(narrow, WIDE)


def test_a_tower_with_other_parts_does_not_belong_to_it(folder, tmp_path):
    keys = {"clip.vision.is_deepstack_layers": [True, False, False, False]}
    fewer = qwen3vl_truth.write_tower(tmp_path / "fewer.gguf", qwen3vl_truth.third_truth(), keys=keys)
    with pytest.raises(OpsinError, match="gives embeddings of 128 values, the model takes 192"):
        opsin.load(folder / "model.gguf", mmproj=fewer, threads=2, context=256)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pictures_with_nothing_between_are_cut_anywhere_to_the_same_bits(model, size):
    spans = [span for image in (RED, WIDE, RED) for span in model.prepare(image).spans]
    given = Prompt.of([[5, 6, 7], *spans, [8, 9], spans[0], [10]])
    whole, pages = model.logits(given), model.engine.borrow_pages(len(given))
    try:
        chunks = [size] * (len(given) // size + 1)
        assert np.array_equal(model.engine.call(lambda: model.runner.score(given, pages, chunks)), whole)
    finally:
        model.engine.return_pages(pages)
