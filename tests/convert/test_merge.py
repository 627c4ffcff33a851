"""A model and its projector as one file: all of both, and refused where they do not go together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_vision import tiny_projector

import opsin
from opsin.convert.merge import merge
from opsin.convert.quantise import quantise
from opsin.errors import FileError, OpsinError, RequestError
from opsin.gguf import File, NewTensor, write


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    return tiny_projector(tmp_path / "eyes.gguf")


def test_the_file_has_all_of_both(tiny_file: Callable[..., Path], eyes: Path, tmp_path: Path) -> None:
    merge(tiny_file(), eyes, tmp_path / "one.gguf")
    with File.open(tiny_file()) as text, File.open(eyes) as seen, File.open(tmp_path / "one.gguf") as one:
        assert list(one.tensors) == [*text.tensors, *seen.tensors]
        for part in (text, seen):
            for name, info in part.tensors.items():
                assert (one.tensors[name].shape, one.tensors[name].type) == (info.shape, info.type)
                assert np.array_equal(one.read(name), part.read(name))
        assert {key: repr(one.metadata[key]) for key in text.metadata} == {
            key: repr(value) for key, value in text.metadata.items()
        }
        added = one.metadata.keys() - text.metadata.keys()
        assert added == {key for key in seen.metadata if key.startswith("clip.")}
        assert all(one.types[key] is seen.types[key] for key in added)
        assert one.get_str("general.architecture") == "llama"


def test_the_text_part_answers_as_before(tiny_file: Callable[..., Path], eyes: Path, tmp_path: Path) -> None:
    merge(tiny_file(), eyes, tmp_path / "one.gguf")
    logits = []
    for path in (tiny_file(), tmp_path / "one.gguf"):
        with opsin.load(path, threads=1, context=32, vision=False) as model:
            logits.append(model.logits([1, 2, 3, 4]))
    assert np.array_equal(*logits)


def test_parts_may_be_rounded_before_or_after(tiny_file: Callable[..., Path], eyes: Path, tmp_path: Path) -> None:
    merge(tiny_file(), eyes, tmp_path / "one.gguf")
    quantise(tmp_path / "one.gguf", tmp_path / "after.gguf", "Q8_0")
    quantise(tiny_file(), tmp_path / "text8.gguf", "Q8_0")
    quantise(eyes, tmp_path / "eyes8.gguf", "Q8_0")
    merge(tmp_path / "text8.gguf", tmp_path / "eyes8.gguf", tmp_path / "before.gguf")
    with File.open(tmp_path / "before.gguf") as before, File.open(tmp_path / "after.gguf") as after:
        assert list(before.tensors) == list(after.tensors)
        assert all(np.array_equal(before.read(name), after.read(name)) for name in before.tensors)
        assert before.tensors["v.blk.0.ffn_up.weight"].kind.name == "Q8_0"
        assert before.tensors["v.patch_embd.weight"].kind.name == "F32"
        assert before.get_int("general.file_type") == after.get_int("general.file_type") == 7


def test_a_rounded_projector_brings_the_version_of_the_formats(
    tiny_file: Callable[..., Path], eyes: Path, tmp_path: Path
) -> None:
    quantise(eyes, tmp_path / "eyes8.gguf", "Q8_0")
    merge(tiny_file(), tmp_path / "eyes8.gguf", tmp_path / "one.gguf")
    with File.open(tmp_path / "one.gguf") as one:
        assert one.get_int("general.quantization_version") == 2
        assert "general.file_type" not in one.metadata


def test_widths_that_differ_are_refused_with_both_numbers_and_files(
    tiny_file: Callable[..., Path], tmp_path: Path
) -> None:
    wrong = tiny_projector(tmp_path / "wrong.gguf", makes=96)
    with pytest.raises(FileError) as caught:
        merge(tiny_file(), wrong, tmp_path / "one.gguf")
    for part in (str(tiny_file()), str(wrong), "64", "96", "llama.embedding_length", "clip.vision.projection_dim"):
        assert part in caught.value.message
    assert not (tmp_path / "one.gguf").exists()


def test_the_width_inside_the_tower_is_not_taken_for_its_embeddings(
    tiny_file: Callable[..., Path], tmp_path: Path
) -> None:
    wrong = tiny_projector(tmp_path / "wrong.gguf", makes=96, width=64)
    with pytest.raises(FileError, match="makes 96"):
        merge(tiny_file(), wrong, tmp_path / "one.gguf")


@pytest.mark.parametrize(("outputs", "fits"), [(64, True), (48, False)])
def test_an_old_file_that_says_another_number_is_judged_by_its_matrices(
    tiny_file: Callable[..., Path], tmp_path: Path, outputs: int, fits: bool
) -> None:
    keys = {"general.architecture": "clip", "clip.has_vision_encoder": True, "clip.vision.projection_dim": 768}
    matrices = [NewTensor.of(f"mm.{i}.weight", np.ones((outputs, 32), np.float32)) for i in (0, 2)]
    write(tmp_path / "old.gguf", keys, matrices)
    if not fits:
        with pytest.raises(FileError, match="takes embeddings of 64 .* makes 768"):
            merge(tiny_file(), tmp_path / "old.gguf", tmp_path / "one.gguf")
        return
    merge(tiny_file(), tmp_path / "old.gguf", tmp_path / "one.gguf")
    with File.open(tmp_path / "one.gguf") as one:
        assert "mm.2.weight" in one.tensors


def test_files_of_the_wrong_kind_are_refused_by_name(
    tiny_file: Callable[..., Path], eyes: Path, tmp_path: Path
) -> None:
    text, one = tiny_file(), tmp_path / "one.gguf"
    merge(text, eyes, one)
    for model, projector, said in (
        (eyes, text, "eyes.gguf is a projector, .*give the model first"),
        (eyes, eyes, "eyes.gguf is a projector, .*give a model of text first"),
        (text, text, "is no projector for .*mmproj"),
        (one, eyes, "one.gguf has a part for pictures or sound already; .*eyes.gguf would be a second"),
    ):
        with pytest.raises(FileError, match=said):
            merge(model, projector, tmp_path / "two.gguf")
    for target in (text, eyes):
        with pytest.raises(RequestError, match="is a file to read"):
            merge(text, eyes, target)
    assert not (tmp_path / "two.gguf").exists()


def test_a_projector_without_numbers_is_refused(tiny_file: Callable[..., Path], tmp_path: Path) -> None:
    bad = tiny_projector(tmp_path / "bad.gguf", projection_dim="wide")
    with pytest.raises(OpsinError, match=r"bad.gguf: key 'clip.vision.projection_dim' is 'wide'"):
        merge(tiny_file(), bad, tmp_path / "one.gguf")
