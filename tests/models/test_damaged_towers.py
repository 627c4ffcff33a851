"""Files of towers from strangers: a tensor that is missing or has another shape is refused by name, or not needed."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import FileError, ModelError, OpsinError
from opsin.gguf import File
from opsin.models import load_encoder
from opsin.nn.meta import MetaReader
from opsin.nn.module import FileReader

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import truths  # noqa: E402
from vision_truth import features, picture  # noqa: E402

from opsin.gguf import NewTensor, write  # noqa: E402
from opsin.media.decode import open_picture  # noqa: E402

DAMAGES = {
    "missing": lambda values, turn: None,
    "other rows": lambda values, turn: values[turned(len(values), turn)],
    "other columns": lambda values, turn: values[..., turned(values.shape[-1], turn)] if values.ndim > 1 else None,
    "a vector": lambda values, turn: values.reshape(-1),
    "not a number": lambda values, turn: np.full_like(values, np.nan),
}
OPTIONAL = ("bias", "pre_ln", "post_ln", "weight.1", "class_embd", "ffn_gate", "pos_embed_k")


def turned(side, turn):
    """Places of a side: one less, or the last one again; by turns, one tensor after another."""
    return np.r_[: side - 1] if turn % 2 else np.r_[:side, side - 1]


@pytest.fixture(scope="module", params=sorted(truths.TOWERS.keys() & truths.LAYOUTS.keys()))
def whole(request, tmp_path_factory):
    """A file's metadata and tensors."""
    path = truths.TOWERS[request.param].write(tmp_path_factory.mktemp("whole") / "tower.gguf")
    with File.open(path) as file:
        reader = FileReader(file, None)
        return dict(file.typed), {name: reader.values(name) for name in file.tensors}


def run(device, path):
    with File.open(path) as file:
        load_encoder(file, MetaReader(file))  # as it is opened, long before a picture comes
        encoder = load_encoder(file, FileReader(file, device.eager()))
    made = features(encoder.layout(open_picture(picture(60, 44))))
    try:
        return encoder.encode(made[0][None]).numpy()
    except OpsinError as error:
        raise AssertionError(f"it was noticed late: {error}") from error


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tensor_is_refused_by_its_name(device, whole, tmp_path, damage):
    metadata, tensors = whole
    for turn, (name, values) in enumerate(tensors.items()):
        if ".blk." in name and ".blk.1." not in name:
            continue
        changed = DAMAGES[damage](values, turn)
        if changed is not None and not changed.size:
            continue  # no file can hold it
        if changed is not None and changed.shape == values.shape and damage != "not a number":
            continue
        others = {**tensors, name: changed} if changed is not None else {k: v for k, v in tensors.items() if k != name}
        write(tmp_path / "damaged.gguf", metadata, [NewTensor.of(k, v) for k, v in others.items()])
        try:
            found = run(device, tmp_path / "damaged.gguf")
        except OpsinError as error:
            assert isinstance(error, FileError | ModelError), name
            part = name.removesuffix(".1").removesuffix(".weight").removesuffix(".bias").split(".")[-1]
            # Where two tensors do not fit each other, the other one may be named.
            assert any(word in str(error) for word in (part, "position_embd", "mm.0", "mm.1", "mlp.1", "ffn_")), (
                name,
                error,
            )
        else:
            assert found.shape[1] % 64 == 0
            assert damage == "not a number" or any(part in name for part in OPTIONAL), name
