"""Files in other words: names and keys, what stands in pieces, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opsin.errors import FileError
from opsin.gguf import File, NewTensor, write
from opsin.gguf.dialect import Dialect, neighbour_rows, planes, translate
from opsin.quants import BY_NAME

RANDOM = np.random.default_rng(0)
KERNEL, ROWS = RANDOM.normal(size=(6, 2, 3, 3)).astype(np.float16), RANDOM.normal(size=(12, 32)).astype(np.float32)
TENSORS = {
    "token_embd.weight": np.zeros((5, 8), np.float32), "blk.0.attn_output.weight": np.ones((8, 8), np.float32),
    "v.kernel.weight": KERNEL, "v.blk.0.attn_output.weight": ROWS[:, :12].copy(), "v.blk.0.attn_q.weight": ROWS,
    "v.blk.0.attn_q.bias": ROWS[:, 0].copy(), "mm.out.weight": ROWS,
}  # fmt: skip
KEYS = {
    "general.architecture": "theirs", "theirs.embedding_length": 8, "theirs.block_count": 1, "theirs.old.base": 5.0,
    "theirs.wrong": 7, "theirs.vision.block_count": 1, "theirs.vision.attention.head_count": 3, "theirs.merge": 2,
    "tokenizer.ggml.tokens": [f"token {i}" for i in range(9)], "tokenizer.ggml.scores": np.arange(9, dtype=np.float32),
}  # fmt: skip


def _change(info, file):
    if "kernel" in info.name:
        return planes(info, ["v.kernel.weight", "v.kernel.weight.1"], (2, 3, 3, 3), file)
    return (neighbour_rows(info, file),) if ".attn_q." in info.name else (info,)


THEIRS = Dialect(
    architecture="theirs",
    becomes="ours",
    projector="eye",
    keys={"old.base": "rope.base", "wrong": "", "merge": "clip.vision.merge"},
    values={"clip.use_gelu": True, "ours.eps": 1e-6},
    found=lambda file: {"clip.vision.twice": 2 * file.get_int("clip.vision.merge", 0)},
    tensors={"attn_output": "attn_out", "mm.out": "mm.0"},
    change=_change,
)


@pytest.fixture
def saved(tmp_path):
    def save(keys=KEYS, tensors=TENSORS):
        made = [t if isinstance(t, NewTensor) else NewTensor.of(name, t) for name, t in tensors.items()]
        return write(tmp_path / "model.gguf", keys, made)[0]

    return save


def opened(path, *dialects):
    return translate(File.open(path), dialects or (THEIRS,))


def without(mapping, *names):
    return {key: value for key, value in mapping.items() if key not in names}


def test_keys_are_told_in_our_words(saved):
    with opened(saved()) as file:
        told = {key: value for key, value in file.metadata.items() if not key.startswith("tokenizer.")}
        assert told == {
            "general.architecture": "ours", "ours.embedding_length": 8, "ours.block_count": 1, "ours.rope.base": 5.0,
            "ours.eps": 1e-6, "clip.has_vision_encoder": True, "clip.projector_type": "eye", "clip.use_gelu": True,
            "clip.vision.block_count": 1, "clip.vision.attention.head_count": 3, "clip.vision.merge": 2,
            "clip.vision.projection_dim": 8, "clip.vision.twice": 4,
        }  # fmt: skip
        assert file.types.keys() == file.metadata.keys()
        assert set(file.tensors) == {
            "token_embd.weight", "blk.0.attn_output.weight", "v.blk.0.attn_out.weight", "v.blk.0.attn_q.weight",
            "v.blk.0.attn_q.bias", "v.kernel.weight", "v.kernel.weight.1", "mm.0.weight",
        }  # fmt: skip
        assert all(name == info.name for name, info in file.tensors.items())


def test_tokens_without_embeddings_are_left_out(saved):
    with opened(saved()) as file:
        assert list(file.get_strs("tokenizer.ggml.tokens")) == [f"token {i}" for i in range(5)]
        assert file.get_floats("tokenizer.ggml.scores").tolist() == [0, 1, 2, 3, 4]


def test_what_is_called_right_already_counts(saved):
    with opened(saved({**KEYS, "theirs.rope.base": 9.0})) as file:
        assert file.get_float("ours.rope.base") == 9.0


def neighbours(values, heads=3):
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def test_weights_are_those_of_the_file_in_their_new_order(saved):
    with opened(saved()) as file:
        assert np.array_equal(file.read("mm.0.weight").view(np.float32).reshape(12, 32), ROWS)
        assert np.array_equal(file.read("v.blk.0.attn_q.weight").view(np.float32).reshape(12, 32), neighbours(ROWS))
        assert np.array_equal(file.read("v.blk.0.attn_q.bias").view(np.float32), neighbours(ROWS[:, 0]))
        for plane, name in enumerate(("v.kernel.weight", "v.kernel.weight.1")):
            assert file.tensors[name].shape == (2, 3, 3, 3)
            wanted = KERNEL[:, plane].reshape(2, 3, 3, 3)
            assert np.array_equal(file.read(name).view(np.float16).reshape(2, 3, 3, 3), wanted)


def test_any_part_of_them_can_be_read(saved):
    with opened(saved()) as file:
        whole = file.read("v.blk.0.attn_q.weight")
        for first, count in ((0, 1), (3, 200), (127, 2), (128, 128), (1000, 536), (1535, 1), (40, 0)):
            part = np.empty(count, np.uint8)
            file.read_into("v.blk.0.attn_q.weight", part, first)
            assert np.array_equal(part, whole[first : first + count])
        with pytest.raises(FileError, match="1536 bytes; 1500 to 1600 were asked for"):
            file.read_into("v.blk.0.attn_q.weight", np.empty(100, np.uint8), 1500)


def test_rows_of_blocks_move_whole(saved):
    kind = BY_NAME["Q8_0"]
    blocks = kind.encode(np.ascontiguousarray(ROWS))
    tensor = NewTensor("v.blk.0.attn_q.weight", ROWS.shape, kind.id, blocks.reshape(-1))
    with opened(saved(tensors={**TENSORS, "v.blk.0.attn_q.weight": tensor})) as file:
        found = file.read("v.blk.0.attn_q.weight").reshape(12, -1)
    assert np.array_equal(found, neighbours(blocks.reshape(12, -1)))


def test_the_same_file_once_more_speaks_the_same_words(saved):
    with opened(saved()) as file:
        again, with_more = file.again(), file.with_keys({"ours.more": 1})
        assert dict(again.metadata) == dict(file.metadata) and dict(again.tensors) == dict(file.tensors)
        assert with_more.get_int("ours.more") == 1 and set(with_more.tensors) == set(file.tensors)
        with again:
            assert np.array_equal(again.read("v.blk.0.attn_q.weight"), file.read("v.blk.0.attn_q.weight"))
        copy = with_more.again()
        with copy:
            assert copy.get_int("ours.more") == 1


def test_a_part_for_pictures_without_text_is_a_file_for_pictures(saved):
    with opened(saved(tensors=without(TENSORS, "token_embd.weight", "blk.0.attn_output.weight"))) as file:
        assert file.get_str("general.architecture") == "clip"


def test_text_alone_is_told_as_text(saved):
    keys = without(KEYS, "theirs.vision.block_count", "theirs.vision.attention.head_count", "theirs.merge")
    tensors = {name: values for name, values in TENSORS.items() if not name.startswith(("v.", "mm."))}
    with opened(saved(keys, tensors)) as file:
        assert file.get_str("general.architecture") == "ours"
        assert not any(key.startswith("clip.") and key != "clip.vision.twice" for key in file.metadata)
        assert set(file.tensors) == set(tensors)


def test_other_files_stay_as_they_are(saved):
    path = saved()
    for given in (replace(THEIRS, architecture="others"), None):
        file = File.open(path)
        with file:
            assert translate(file, [given] if given else []) is file
    with File.open(saved({**KEYS, "clip.projector_type": "eye"})) as file:
        assert translate(file, [THEIRS]) is file
    plain = replace(THEIRS, becomes="theirs")
    tensors = {name: values for name, values in TENSORS.items() if not name.startswith(("v.", "mm."))}
    keys = without(KEYS, "theirs.vision.block_count", "theirs.old.base", "theirs.merge")
    with File.open(saved(keys, tensors)) as file:
        assert translate(file, [plain]) is file


@pytest.mark.parametrize(
    ("keys", "tensors", "told"),
    [
        (without(KEYS, "theirs.vision.block_count"), TENSORS, "pictures .v.kernel.* says no theirs.vision"),
        (KEYS, {"token_embd.weight": TENSORS["token_embd.weight"]}, "says theirs.vision.block_count, but holds no"),
        (KEYS, {**TENSORS, "mm.0.weight": ROWS}, "holds tensor mm.0.weight under two names"),
        (KEYS, {**TENSORS, "v.kernel.weight": KERNEL[:5]}, "v.kernel.weight is .5, 2, 3, 3., which is no 2 of"),
        (KEYS, {**TENSORS, "v.kernel.weight": KERNEL[:, :1]}, "v.kernel.weight is .6, 1, 3, 3., which is no 2 of"),
        (KEYS, {**TENSORS, "v.kernel.weight": KERNEL.reshape(-1)}, "v.kernel.weight is .108,., which is no 2 of"),
        (KEYS, {**TENSORS, "v.blk.0.attn_q.weight": ROWS[:11]}, "has 11 rows, which are no pairs of 3 heads"),
        ({**KEYS, "theirs.vision.attention.head_count": 0}, TENSORS, "which are no pairs of 0 heads"),
        ({**KEYS, "theirs.vision.attention.head_count": -3}, TENSORS, "which are no pairs of -3 heads"),
        (without(KEYS, "theirs.vision.attention.head_count"), TENSORS, "has no key 'clip.vision.attention.head_count'"),
    ],
)
def test_half_of_such_a_file_is_refused(saved, keys, tensors, told):
    path = saved(keys, tensors)
    with File.open(path) as file, pytest.raises(FileError, match=told) as caught:
        translate(file, [THEIRS])
    assert str(path) in str(caught.value)


def test_tensors_of_too_many_pieces_are_refused(saved):
    long = np.zeros(3 << 18, np.float32)
    path = saved(tensors={**TENSORS, "v.blk.0.attn_q.bias": long})
    with File.open(path) as file, pytest.raises(FileError, match="v.blk.0.attn_q.bias is .786432,., of F32"):
        translate(file, [THEIRS])


def test_blocks_across_rows_are_refused(saved):
    kind = BY_NAME["Q8_0"]
    blocks = NewTensor("v.blk.0.attn_q.bias", (96,), kind.id, kind.encode(ROWS[:3]).reshape(-1))
    path = saved(tensors={**TENSORS, "v.blk.0.attn_q.bias": blocks})
    with File.open(path) as file, pytest.raises(FileError, match="v.blk.0.attn_q.bias is .96,., of Q8_0"):
        translate(file, [THEIRS])
