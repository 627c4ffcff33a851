"""What a family takes for granted: pictures prepared otherwise are a note, texts computed otherwise an error."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import checkpoints  # noqa: E402
from truths import TOWERS  # noqa: E402

from opsin.convert.assumptions import check_assumptions  # noqa: E402
from opsin.convert.checkpoint import Checkpoint  # noqa: E402
from opsin.convert.matching import find_rules  # noqa: E402
from opsin.errors import ModelError  # noqa: E402


def notes(folder, *, config=None, pictures=None):
    """The notes on a folder's parts, with other settings."""
    told = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures or {}))
    with Checkpoint(folder) as checkpoint:
        return [note for part in find_rules(checkpoint) if part for note in check_assumptions(checkpoint, part)]


PICTURES = {
    "gemma3": {"resample": 3, "do_pan_and_scan": True, "size": {"height": 9, "width": 9}, "do_normalize": False,
               "rescale_factor": 0.5},
    "llava": {"resample": 2, "do_center_crop": False, "crop_size": {"height": 9}, "do_resize": False},
    "qwen2vl": {"resample": 2, "patch_size": 3, "merge_size": 7, "temporal_patch_size": 1, "do_rescale": False},
    "qwen3vl": {"resample": 2, "patch_size": 3, "merge_size": 7, "temporal_patch_size": 1},
    "idefics3": {"resample": 2, "do_convert_rgb": False},
    "internvl": {"resample": 2, "size": {"height": 9, "width": 9}, "do_rescale": False},
    "pixtral": {"resample": 2, "size": {"longest_edge": 64}},
    "mistral small": {"resample": 2, "size": {"longest_edge": 64}},
    "minicpmv2.5": {"max_slice_nums": 4, "slice_mode": False, "patch_size": 7},
    "minicpmv2.6": {"use_image_id": False, "slice_mode": False},
}  # fmt: skip


@pytest.mark.parametrize("family", PICTURES)
def test_pictures_that_are_prepared_otherwise_are_notes(tmp_path, family):
    TOWERS[family].save(TOWERS[family].make(), tmp_path)
    with Checkpoint(tmp_path) as checkpoint:  # as transformers saved it
        parts = [part for part in find_rules(checkpoint) if part]
        assert [note for part in parts for note in check_assumptions(checkpoint, part)] == []
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    found = notes(tmp_path, pictures=PICTURES[family])
    names = [note.split(" is ")[0].removeprefix("preprocessor.").split(".")[0] for note in found]
    assert set(names) == set(PICTURES[family])


@pytest.mark.parametrize(
    ("family", "setting"),
    [("llama", {"hidden_act": "gelu"}), ("qwen2", {"hidden_act": "relu"}), ("qwen3", {"partial_rotary_factor": 0.5}),
     ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}})],
    ids=str,
)  # fmt: skip
def test_texts_that_are_computed_otherwise_are_refused(tmp_path, family, setting):
    checkpoints.make(family).save_pretrained(tmp_path)
    assert notes(tmp_path) == []
    with pytest.raises(ModelError, match=f"{list(setting)[0]}.* is .*are converted"):
        notes(tmp_path, config=setting)


def test_a_window_that_ends_the_context_is_a_note(tmp_path):
    checkpoints.make("llama").save_pretrained(tmp_path)
    (note,) = notes(tmp_path, config={"sliding_window": 128})
    assert "sliding_window is 128" in note and "1024" in note


def test_a_missing_head_of_its_own_is_a_note(tmp_path):
    checkpoints.make("llama").save_pretrained(tmp_path)
    (note,) = notes(tmp_path, config={"tie_word_embeddings": False})
    assert "no lm_head.weight" in note
