"""Conversations whose pictures have budgets: logits equal those of transformers' classes with the same setting."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from opsin import PictureBudget
from opsin.convert.hf import convert

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_conversations import ids_of  # noqa: E402
from truths import TOWERS  # noqa: E402
from vision_truth import distance, picture, written  # noqa: E402

LONG, SMALL = picture(700, 300), picture(60, 44, seed=1)
SCAN = {"pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2}
BOUNDS = {"size": {"shortest_edge": 50 * 50, "longest_edge": 70 * 70}}
BOUNDED = PictureBudget(min_pixels=50 * 50, max_pixels=70 * 70)
ASKED = {
    "gemma3": (PictureBudget("high"), {"do_pan_and_scan": True, **SCAN}),
    "idefics3": (PictureBudget("low"), {"do_image_splitting": False}),
    **dict.fromkeys(("qwen2vl", "qwen2.5vl", "qwen3vl"), (BOUNDED, BOUNDS)),
}


@pytest.mark.parametrize("kind", ASKED)
def test_logits_equal_transformers_with_the_same_setting(tmp_path, kind):
    (budget, setting), truth = ASKED[kind], TOWERS[kind]
    theirs, conversation = truth.make(), [["First ", LONG, " then", SMALL, ", which?"]]
    truth.save(theirs, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
    text = [written(conversation, truth.marker)]
    inputs = truth.processor()(text=text, images=[LONG, SMALL], images_kwargs=setting, return_tensors="pt")
    with torch.inference_mode():
        wanted = theirs(**inputs, use_cache=False).logits[0].numpy()
    messages = [{"role": "user", "content": parts} for parts in conversation]
    with opsin.load(tmp_path / "model.gguf", threads=2, pages="f32", context=2048, sequences=2) as ours:
        made, usual = ours.question(messages, budget=budget).prompt, ours.question(messages).prompt
        assert len(made) != len(usual)
        assert all(a in (None, b) for a, b in zip(ids_of(made), inputs["input_ids"][0].tolist(), strict=True))
        found = ours.logits(made)
        assert distance(found, wanted) < 1e-4
        ours.logits(usual)
        assert np.array_equal(ours.logits(made), found)  # the other's embeddings and pages are not taken
