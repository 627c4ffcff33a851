"""Quantising a file: the right bytes, everything else kept, nothing half done, little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mix_files import projector

import opsin
from opsin.convert.mix import MIXES, plan
from opsin.convert.quantise import preview, quantise
from opsin.errors import FileError, ModelError, OpsinError, RequestError
from opsin.gguf import File, NewTensor, Typed, ValueType, write
from opsin.quants import BY_NAME, by_id

RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def source(tiny_file: Callable[..., Path]) -> Path:
    """Rows of whole blocks of every format."""
    return tiny_file(width=256, ffn=512, layers=8, heads=4, head=64)


def logits(path: Path, ids: list[int]) -> np.ndarray:
    with opsin.load(path, threads=2, context=64) as model:
        return model.logits(ids)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The smallest cosine of a row. Random weights with peaked attention forgive less than trained ones."""
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


@pytest.mark.parametrize("mix", list(MIXES))
def test_every_weight_is_its_own_rounded(source: Path, tmp_path: Path, mix: str) -> None:
    out = tmp_path / "out.gguf"
    done = quantise(source, out, mix, threads=2)
    with File.open(source) as before, File.open(out) as after:
        assert [choice.info.name for choice in done.choices] == list(after.tensors) == list(before.tensors)
        for choice in plan(before, MIXES[mix]):
            kind = BY_NAME[choice.kind]
            assert by_id(after.tensors[choice.info.name].type) is kind
            values = before.read(choice.info.name).view("<f4").reshape(-1, kind.elements)
            assert kind.encode is not None
            assert np.array_equal(after.read(choice.info.name), kind.encode(values).reshape(-1).view(np.uint8))
        assert done.bytes_after == sum(info.nbytes for info in after.tensors.values())


def test_metadata_is_kept_and_says_what_was_done(source: Path, tmp_path: Path) -> None:
    quantise(source, tmp_path / "out.gguf", "Q5_K_M")
    with File.open(source) as before, File.open(tmp_path / "out.gguf") as after:
        assert after.types["general.file_type"] is after.types["general.quantization_version"] is ValueType.UINT32
        added = {"general.file_type": 17, "general.quantization_version": 2}
        assert {key: repr(value) for key, value in after.metadata.items()} == {
            key: repr(value) for key, value in {**before.metadata, **added}.items()
        }
        assert all(after.types[key] is before.types[key] for key in before.types)


@pytest.mark.parametrize(("mix", "least"), [("BF16", 0.999), ("Q8_0", 0.98), ("Q6_K", 0.95), ("Q4_K_M", 0.75)])
def test_the_model_still_says_the_same(source: Path, tmp_path: Path, mix: str, least: float) -> None:
    quantise(source, tmp_path / "out.gguf", mix)
    ids = list(range(40, 60))
    assert likeness(logits(source, ids), logits(tmp_path / "out.gguf", ids)) > least


def test_threads_do_not_change_the_bytes(source: Path, tmp_path: Path) -> None:
    for threads in (1, 3):
        quantise(source, tmp_path / f"{threads}.gguf", "Q4_K_M", threads=threads)
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()


def test_a_tensor_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    size = 1 << 24
    values = RANDOM.standard_normal(size, np.float32).reshape(-1, 1024)
    keys = {"general.architecture": "llama", "llama.block_count": 1}
    write(tmp_path / "in.gguf", keys, [NewTensor.of("blk.0.ffn_up.weight", values), NewTensor.of("rest", values)])
    del values
    tracemalloc.start()
    try:
        quantise(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q8_0")
        assert tracemalloc.get_traced_memory()[1] < 40e6  # one tensor: 67 MB
    finally:
        tracemalloc.stop()


def test_splits_of_either_byte_order_become_one_file(source: Path, tmp_path: Path) -> None:
    with File.open(source) as file:
        tensors = [file.copy_tensor(name) for name in file.tensors]
        parts = write(tmp_path / "big.gguf", file.typed, tensors, big_endian=True, part_bytes=2_000_000)
    assert len(parts) > 2
    quantise(parts[0], tmp_path / "one.gguf", "Q4_K_S")
    quantise(source, tmp_path / "two.gguf", "Q4_K_S")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    for part in parts:
        with pytest.raises(RequestError, match="is a file to read"):
            quantise(parts[0], part, "Q4_K_S")


def test_the_source_is_never_written_over(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    (tmp_path / "link.gguf").symlink_to(source)
    for target in (source, source.parent / "." / source.name, tmp_path / "link.gguf"):
        with pytest.raises(RequestError, match="is a file to read .give another name"):
            quantise(source, target, "Q8_0")
    assert source.read_bytes() == before


def test_rounding_twice_must_be_asked_for(source: Path, tmp_path: Path) -> None:
    quantise(source, tmp_path / "8.gguf", "Q8_0")
    with pytest.raises(RequestError, match=r"token_embd.weight is Q8_0 already.*--allow-requantize"):
        quantise(tmp_path / "8.gguf", tmp_path / "4.gguf", "Q4_0")
    assert not (tmp_path / "4.gguf").exists()
    done = quantise(tmp_path / "8.gguf", tmp_path / "4.gguf", "Q4_0", allow_requantise=True)
    assert {choice.kind for choice in done.choices} == {"Q4_0", "Q6_K", "F32"}
    quantise(tmp_path / "8.gguf", tmp_path / "same.gguf", "Q8_0")  # nothing is rounded
    assert (tmp_path / "same.gguf").read_bytes() == (tmp_path / "8.gguf").read_bytes()


def test_a_preview_writes_nothing(source: Path, tmp_path: Path) -> None:
    planned = preview(source, "Q4_K_M")
    done = quantise(source, tmp_path / "out.gguf", "Q4_K_M")
    assert planned == done
    assert 4 < planned.bits < 8
    assert list(tmp_path.iterdir()) == [tmp_path / "out.gguf"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("mix", ["Q4_0", "Q4_K", "F16"])
def test_a_weight_that_does_not_fit_names_its_tensor(tmp_path: Path, mix: str, wrong: float) -> None:
    values = np.ones((4, 256), np.float32)
    values[2, 7] = wrong
    write(tmp_path / "in.gguf", {"general.architecture": "llama"}, [NewTensor.of("blk.0.ffn_up.weight", values)])
    if mix == "F16" and wrong > 1e38 or np.isnan(wrong) and mix == "F16":
        assert quantise(tmp_path / "in.gguf", tmp_path / "out.gguf", mix).bytes_after == 2048
        return
    with pytest.raises(ModelError, match=r"in.gguf: tensor blk.0.ffn_up.weight as (Q4_0|Q4_K|F16): ") as caught:
        quantise(tmp_path / "in.gguf", tmp_path / "out.gguf", mix)
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_file_that_ends_too_early_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FileError("cut short")

    monkeypatch.setattr(File, "read_into", fail)
    with pytest.raises(FileError, match="cut short"):
        quantise(source, tmp_path / "out.gguf", "Q8_0", threads=2)
    assert not list(tmp_path.iterdir())


def test_what_is_no_matrix_of_floats_stays(tmp_path: Path) -> None:
    tensors = [
        NewTensor.of("blk.0.ffn_gate_tid2eid.weight", np.arange(512, dtype=np.int32).reshape(2, 256)),
        NewTensor.of("blk.0.table.weight", np.arange(512, dtype=np.int32).reshape(2, 256)),
        NewTensor.of("blk.0.one_row.weight", np.ones((1, 256), np.float32)),
        NewTensor.of("blk.0.ffn_up.bias", np.ones((2, 256), np.float32)),
    ]
    write(tmp_path / "in.gguf", {"general.architecture": "llama"}, tensors)
    done = quantise(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_K")
    assert [choice.kind for choice in done.choices] == ["I32", "I32", "F32", "F32"]
    with File.open(tmp_path / "in.gguf") as before, File.open(tmp_path / "out.gguf") as after:
        assert all(np.array_equal(before.read(name), after.read(name)) for name in before.tensors)


def test_the_two_parts_of_a_file_are_planned_as_if_alone(source: Path, tmp_path: Path) -> None:
    vision = projector(tmp_path / "vision.gguf")
    with File.open(source) as text, File.open(vision) as eyes:
        both = File.join(text, eyes)
        together = {choice.info.name: choice.kind for choice in plan(both, MIXES["Q4_K_M"])}
        apart = [choice for file in (text, eyes) for choice in plan(file, MIXES["Q4_K_M"])]
    assert together == {choice.info.name: choice.kind for choice in apart}


@pytest.mark.parametrize(
    "keys", [{}, {"general.architecture": "llama", "llama.block_count": "many"}, {"general.architecture": 3}]
)
def test_a_file_that_says_nonsense_is_refused(tmp_path: Path, keys: dict[str, object]) -> None:
    write(tmp_path / "in.gguf", keys, [NewTensor.of("blk.0.ffn_up.weight", np.ones((4, 256), np.float32))])
    with pytest.raises(OpsinError, match="in.gguf"):
        quantise(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_K")


def test_values_of_layers_that_differ_in_heads_go_by_the_first(tmp_path: Path) -> None:
    keys = {
        "general.architecture": "llama", "llama.block_count": 3,
        "llama.attention.head_count": Typed(ValueType.INT32, [8, 4, 4]),
        "llama.attention.head_count_kv": Typed(ValueType.INT32, [2, 4, 4]),
    }  # fmt: skip
    write(tmp_path / "in.gguf", keys, [NewTensor.of("blk.2.attn_v.weight", np.ones((4, 256), np.float32))])
    assert [choice.kind for choice in preview(tmp_path / "in.gguf", "Q2_K").choices] == ["Q4_K"]
