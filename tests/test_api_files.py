"""Which files make a model: what lies beside a model, what fits it, and which of those that fit is taken."""

from __future__ import annotations

import os

import pytest
from tiny import tiny_llama
from tiny_sight import MARKERS, tiny_pair, tiny_tower, tower_metadata, tower_tensors

import opsin
from opsin.gguf import NewTensor, write
from opsin.hub.file_names import kinship
from opsin.quants import BY_NAME

FORMATS = ("F16", "Q8_0", "BF16", "F32", "Q4_0")  # the first of those that lie there is taken


def tower(path, format="F32", width=64, kind="gemma3"):
    """A file for pictures with its matrices in `format`."""
    tensors = []
    for name, value in tower_tensors(kind, width).items():
        quant = BY_NAME[format]
        if value.ndim == 2 and value.shape[-1] % quant.elements == 0 and format != "F32":
            blocks = quant.encode(value.reshape(-1, quant.elements)).reshape(-1)
            tensors.append(NewTensor(name, value.shape, quant.id, blocks.view("uint8")))
        else:
            tensors.append(NewTensor.of(name, value))
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, tower_metadata(kind, width), tensors)
    return path


def text(path, width=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny_llama(path, specials=MARKERS["gemma3"], width=width)


def seen(path, **options):
    """The file for pictures that was taken, and the notes about it."""
    with opsin.load(path, threads=1, context=64, **options) as model:
        return (model.vision.path.name if model.vision else None), [n for n in model.notes if "pictures" in n]


def test_of_several_that_fit_the_best_format_is_taken_and_named(tmp_path):
    model = text(tmp_path / "model.gguf")
    for number, format in enumerate(reversed(FORMATS)):
        made = tower(tmp_path / f"mmproj-{number}.gguf", format).name
        taken, notes = seen(model)
        assert taken == made
        assert len(notes) == (number > 0)
        assert number == 0 or (made in notes[0] and format in notes[0] and "mmproj-0.gguf" in notes[0])


def test_those_that_do_not_fit_are_named_with_the_reason(tmp_path):
    model = text(tmp_path / "model.gguf")
    tower(tmp_path / "mmproj-good.gguf")
    tower(tmp_path / "mmproj-wide.gguf", "F16", width=96)
    tower(tmp_path / "mmproj-other.gguf", "F16", kind="idefics3")
    (tmp_path / "mmproj-broken.gguf").write_bytes(b"GGUF\3\0\0\0nothing")
    (tmp_path / "mmproj-empty.gguf").touch()
    taken, notes = seen(model)
    assert taken == "mmproj-good.gguf"
    said = "\n".join(notes)
    for name, reason in (("wide", "96"), ("other", "<fake_token_around_image>"), ("broken", "15"), ("empty", "empty")):
        assert any(f"mmproj-{name}.gguf" in note and reason in note for note in notes), (name, said)


def test_where_none_fits_the_notes_say_why_and_the_refusal_names_no_file(tmp_path):
    model = text(tmp_path / "model.gguf")
    tower(tmp_path / "mmproj-wide.gguf", width=96)
    (tmp_path / "mmproj-broken.gguf").write_bytes(b"GGUF")
    with opsin.load(model, threads=1, context=64) as made:
        assert not made.has_vision
        assert len([note for note in made.notes if "pictures are left out" in note]) == 2
        with pytest.raises(opsin.OpsinError, match="text only") as caught:
            made.count([{"role": "user", "content": [{"type": "image", "image": b"x"}]}])
    assert "96" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert ".gguf" not in str(caught.value)


def test_what_a_person_chose_is_taken_or_an_error(tmp_path):
    model = text(tmp_path / "model.gguf")
    tower(tmp_path / "mmproj-best.gguf", "F16")
    chosen = tower(tmp_path / "elsewhere" / "eyes.gguf", "Q4_0")
    assert seen(model, mmproj=chosen) == ("eyes.gguf", [])
    with pytest.raises(opsin.OpsinError, match="96"):
        seen(model, mmproj=tower(tmp_path / "elsewhere" / "wide.gguf", width=96))
    assert seen(model, vision=False) == (None, [])


def test_names_break_ties_between_the_models_of_one_folder(tmp_path):
    """Each model's own file for pictures, though the other's has the better format."""
    for name, format in (("gemma-4b-it", "Q8_0"), ("medgemma-4b-it", "F16")):
        text(tmp_path / f"{name}-Q4_K_M.gguf")
        tower(tmp_path / f"mmproj-{name}-{format}.gguf", format)
    assert seen(tmp_path / "gemma-4b-it-Q4_K_M.gguf")[0] == "mmproj-gemma-4b-it-Q8_0.gguf"
    assert seen(tmp_path / "medgemma-4b-it-Q4_K_M.gguf")[0] == "mmproj-medgemma-4b-it-F16.gguf"


@pytest.mark.parametrize(
    ("model", "eyes", "wanted"),
    [
        ("gemma-3-4b-it-Q4_K_M", "mmproj-gemma-3-4b-it-f16", 1),
        ("Qwen2.5-VL-7B-UD-IQ2_XXS", "Qwen2.5-VL-7B.mmproj-Q8_0", 1),
        ("model", "mmproj-F16", 0), ("model", "mmproj", 0), ("model-F16", "MMPROJ-BF16", 0),
        ("gemma-3-4b-it", "mmproj-medgemma-4b-it", -1), ("gemma-3-4b-it", "mmproj-gemma-3-12b-it-f16", -1),
        ("SmolVLM-Q8_0-00001-of-00003", "mmproj-SmolVLM-f16", 1), ("a-Q6_K_L", "mmproj-a.fp16", 1),
        ("model-q4_k", "mmproj-model-f16", 1),
    ],
)  # fmt: skip
def test_kinship_of_names(model, eyes, wanted):
    assert kinship(f"{model}.gguf", f"{eyes}.gguf") == wanted


def test_names_are_read_in_capitals_and_nothing_but_files_counts(tmp_path):
    folder = tmp_path / "mmproj-folder"
    text(folder / "MODEL.GGUF")
    tower(folder / "MMPROJ-F16.GGUF", "F16")
    (folder / "mmproj-trap.gguf").mkdir()
    (folder / "._mmproj-F16.gguf").write_bytes(b"\0\5\x16\7")  # what macOS leaves on foreign disks
    (folder / "mmproj-gone.gguf").symlink_to(folder / "nothing")
    (folder / "mmproj-half.gguf.part").write_bytes(b"GGUF")
    assert seen(folder) == ("MMPROJ-F16.GGUF", [])


def test_what_goes_with_a_model_is_no_other_model(tmp_path):
    text(tmp_path / "tiny.gguf")
    for name in ("mtp-tiny.gguf", "tiny.imatrix.gguf", "style-lora.gguf"):
        (tmp_path / name).write_bytes((tmp_path / "tiny.gguf").read_bytes())
    with opsin.load(tmp_path, threads=1, context=64) as model:
        assert model.path.name == "tiny.gguf"
    (tmp_path / "tiny.gguf").unlink()
    with pytest.raises(opsin.OpsinError, match="holds 3 models"):
        opsin.load(tmp_path)


def test_a_link_is_the_file_that_it_names(tmp_path):
    """As caches of downloads keep them: the names are links, the files have none."""
    blobs, names = tmp_path / "blobs", tmp_path / "snapshots"
    tiny_pair(blobs.resolve() if blobs.mkdir() is None else blobs)
    names.mkdir()
    (names / "model.gguf").symlink_to(blobs / "model.gguf")
    (names / "again.gguf").symlink_to(blobs / "model.gguf")
    (names / "mmproj.gguf").symlink_to(blobs / "mmproj.gguf")
    (names / "mmproj-copy.gguf").symlink_to(names / "mmproj.gguf")
    taken, notes = seen(names)
    assert taken in ("mmproj.gguf", "mmproj-copy.gguf")
    assert notes == []


def test_later_parts_are_no_files_of_their_own(tmp_path):
    model = text(tmp_path / "model.gguf")
    tensors = [NewTensor.of(name, value) for name, value in tower_tensors("gemma3").items()]
    parts = write(tmp_path / "mmproj.gguf", tower_metadata("gemma3"), tensors, part_bytes=8000)
    assert len(parts) > 1
    assert seen(model) == (parts[0].name, [])


def test_a_model_s_own_part_comes_before_what_lies_beside(tmp_path):
    from opsin.convert.merge import merge

    pair = tiny_pair(tmp_path)
    (tmp_path / "whole").mkdir()
    merge(*pair, tmp_path / "whole" / "model.gguf")
    tower(tmp_path / "whole" / "mmproj-wide.gguf", width=96)
    assert seen(tmp_path / "whole" / "model.gguf") == ("model.gguf", [])


def test_a_folder_that_cannot_be_listed_has_nothing_beside(tmp_path):
    model = text(tmp_path / "closed" / "model.gguf")
    tiny_tower(tmp_path / "closed" / "mmproj.gguf")
    (tmp_path / "closed").chmod(0o111)
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("this user may read everything")
        assert seen(model)[0] is None
    finally:
        (tmp_path / "closed").chmod(0o755)
