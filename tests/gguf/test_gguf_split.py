"""Models in several files, and a model joined with its projector."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from raw_gguf import STRING, RawFile, f32

from opsin.errors import FileError
from opsin.gguf import File, NewTensor, write
from opsin.gguf.split import SPLIT_KEYS


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three parts of one model: a and b, c, d and e."""
    made = []
    for index, names in enumerate([b"ab", b"c", b"de"]):
        split = [(b"split.no", 2, index), (b"split.count", 2, 3), (b"split.tensors.count", 5, 5)]
        metadata = [(b"general.architecture", STRING, b"llama"), *split] if index == 0 else split
        tensors = [f32(bytes([name]), 32 * place) for place, name in enumerate(names)]
        tensors[0].data = bytes([index]) * 32
        made.append(RawFile(metadata, tensors).save(tmp_path / f"model-{index + 1:05}-of-00003.gguf"))
    return made


def refuse(path: Path, complaint: str, hint: str = "") -> None:
    with pytest.raises(FileError, match=complaint) as caught:
        File.open(path)
    assert caught.value.hint and hint in caught.value.hint


def rewrite(path: Path, index: int, count: int, tensor_count: int = 5, width: int = 2) -> None:
    split = [(b"split.no", width, index), (b"split.count", width, count), (b"split.tensors.count", 5, tensor_count)]
    RawFile(split, [f32(b"c")]).save(path)


def test_opening_the_first_opens_all(parts: list[Path]) -> None:
    with File.open(parts[0]) as file:
        assert list(file.tensors) == ["a", "b", "c", "d", "e"]
        assert [info.part for info in file.tensors.values()] == [0, 0, 1, 2, 2]
        assert [file.read(name)[0] for name in "acd"] == [0, 1, 2]
        assert file.paths == tuple(parts)
        assert file.path == parts[0]
        assert file.get_str("general.architecture") == "llama"


def test_closing_closes_all(parts: list[Path]) -> None:
    file = File.open(parts[0])
    file.close()
    for name in "ace":
        with pytest.raises(FileError, match="is closed"):
            file.read(name)


def test_another_part_names_the_first(parts: list[Path]) -> None:
    refuse(parts[1], "is part 2 of 3", "model-00001-of-00003.gguf")
    refuse(shutil.copy(parts[2], parts[2].with_name("other.gguf")), "is part 3 of 3", "PREFIX-00001-of-00003.gguf")


def test_a_first_part_must_be_named_so(parts: list[Path]) -> None:
    for name in ("other.gguf", "model-00002-of-00003.gguf", "model-00001-of-00004.gguf"):
        refuse(shutil.copy(parts[0], parts[0].with_name(name)), "first of 3 parts, but its name does not say so")


def test_a_missing_part_is_named(parts: list[Path]) -> None:
    parts[2].unlink()
    refuse(parts[0], "model-00003-of-00003.gguf is missing", "all 3 parts")


@pytest.mark.parametrize(
    ("index", "count", "complaint"), [(2, 3, "'split.no' is 2, not 1"), (1, 4, "'split.count' is 4, not 3")]
)
def test_a_part_of_another_model_is_refused(parts: list[Path], index: int, count: int, complaint: str) -> None:
    rewrite(parts[1], index, count)
    refuse(parts[0], f"model-00002-of-00003.gguf: key {complaint}")


def test_a_part_that_does_not_say_which_it_is_is_refused(parts: list[Path]) -> None:
    RawFile([], [f32(b"c")]).save(parts[1])
    refuse(parts[0], "key 'split.no' is None, not a count")


def test_any_integer_width_will_do(parts: list[Path]) -> None:
    rewrite(parts[1], 1, 3, width=11)
    with File.open(parts[0]) as file:
        assert len(file.tensors) == 5


def test_missing_tensors_are_counted(parts: list[Path]) -> None:
    split = [(b"split.no", 2, 1), (b"split.count", 2, 3), (b"split.tensors.count", 5, 5)]
    RawFile(split).save(parts[1])
    refuse(parts[0], "'split.tensors.count' is 5, but the 3 parts hold 4")


def test_a_tensor_in_two_parts_is_refused(parts: list[Path]) -> None:
    split = [(b"split.no", 2, 1), (b"split.count", 2, 3), (b"split.tensors.count", 5, 5)]
    RawFile(split, [f32(b"a")]).save(parts[1])
    refuse(parts[0], "tensor 'a' is both in .*model-00001-of-00003.gguf and in .*model-00002-of-00003.gguf")


@pytest.mark.parametrize("kind", [6, 7, STRING])
def test_counts_of_other_types_are_refused(tmp_path: Path, kind: int) -> None:
    value = b"3" if kind == STRING else 1
    refuse(RawFile([(b"split.count", kind, value)]).save(tmp_path / "a.gguf"), "key 'split.count' is .*, not a count")
    refuse(RawFile([(b"split.count", 5, -1)]).save(tmp_path / "a.gguf"), "key 'split.count' is -1, not a count")


def test_one_part_of_one_is_an_ordinary_file(tmp_path: Path) -> None:
    path = RawFile([(b"split.no", 2, 0), (b"split.count", 2, 1)], [f32()]).save(tmp_path / "any.gguf")
    with File.open(path) as file:
        assert list(file.tensors) == ["a"]


def test_a_damaged_part_is_named(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    refuse(parts[0], "model-00002-of-00003.gguf: tensor 'c' ends at byte")


def make_pair(folder: Path, vision_name: str = "v.patch") -> tuple[Path, Path]:
    model = {"general.architecture": "llama", "llama.block_count": 1}
    projector = {"general.architecture": "clip", "clip.use_gelu": True}
    write(folder / "model.gguf", model, [NewTensor.of("a", np.zeros(8, np.float32))])
    write(folder / "mmproj.gguf", projector, [NewTensor.of(vision_name, np.ones((2, 4), np.float16))], big_endian=True)
    return folder / "model.gguf", folder / "mmproj.gguf"


def test_a_model_and_its_projector_are_one_view(tmp_path: Path, parts: list[Path]) -> None:
    _, mmproj = make_pair(tmp_path)
    with File.join(File.open(parts[0]), File.open(mmproj)) as file:
        assert list(file.tensors) == ["a", "b", "c", "d", "e", "v.patch"]
        assert file.tensors["v.patch"].part == 3
        assert file.read("v.patch").view("<f2").tolist() == [1.0] * 8
        assert file.read("d")[0] == 2
        assert file.get_str("general.architecture") == "llama"
        assert file.get_bool("clip.use_gelu") is True
        assert list(file.metadata) == ["general.architecture", *SPLIT_KEYS, "clip.use_gelu"]
        assert file.types.keys() == file.metadata.keys()
        assert file.paths == (*parts, mmproj)
    with pytest.raises(FileError, match="mmproj.gguf is closed"):
        file.read("v.patch")


def test_names_in_both_are_refused(tmp_path: Path) -> None:
    model, mmproj = make_pair(tmp_path, "a")
    with (
        File.open(model) as first,
        File.open(mmproj) as second,
        pytest.raises(FileError, match=r"tensor 'a' is both in .*model\.gguf and in .*mmproj\.gguf"),
    ):
        File.join(first, second)
