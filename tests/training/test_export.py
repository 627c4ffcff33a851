"""The files hold what llama.cpp expects, and llama.cpp answers as torch does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from opsin.convert.merge import merge  # noqa: E402
from training.answer import Query, answer  # noqa: E402
from training.compare import ask_server, open_server, rounded  # noqa: E402
from training.export import FILE_TYPES, export  # noqa: E402
from training.model import Nano, Shape  # noqa: E402
from training.testset import Item  # noqa: E402
from training.weights import read_weights  # noqa: E402


def lively() -> Nano:
    """A random model whose layers outweigh its embeddings, so that answers depend on everything."""
    torch.manual_seed(3)
    model = Nano(Shape(layers=6, tower_layers=2)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            if "post_" in name and "language" in name:
                parameter.add_(12.0)
    return rounded(model)


@pytest.mark.parametrize("form", FILE_TYPES)
def test_files_hold_every_weight(tmp_path: Path, form: str) -> None:
    """As many tensors as parameters, norms with their one, the projection as it is."""
    model = lively()
    files = [gguf.GGUFReader(path) for path in export(model, form, tmp_path)]
    tensors = {tensor.name: tensor for file in files for tensor in file.tensors}
    assert len(tensors) == len(model.state_dict())
    norm = model.language_model.layers[2].self_attn.q_norm.weight.detach()
    assert np.allclose(tensors["blk.2.attn_q_norm.weight"].data, norm.numpy() + 1)
    projection = model.multi_modal_projector.mm_input_projection_weight.detach()
    assert np.allclose(tensors["mm.input_projection.weight"].data, projection.numpy(), atol=1e-3)
    assert list(tensors["v.patch_embd.weight"].shape) == [16, 16, 3, 256]


def test_what_is_exported_can_be_read_back(tmp_path: Path) -> None:
    """The merged F16 file holds the weights, rounded as it is."""
    model = lively()
    merge(*export(model, "F16", tmp_path), tmp_path / "both.gguf")
    weights = read_weights(tmp_path / "both.gguf", model.shape)
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.allclose(weights[name], tensor, rtol=1e-3, atol=1e-6), name


def test_llama_cpp_answers_as_torch_does(tmp_path: Path) -> None:
    """One picture and two, greedily, from the F16 files."""
    pytest.importorskip("xllamacpp")
    model, rng = lively(), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (192, 192, 3), np.uint8) for _ in range(4)]
    items = [
        Item("", pictures[:1], "What colour is the circle?", ""),
        Item("", pictures[2:], "Is there a cat?", ""),
        Item("", pictures[1:2], "What does it say?", ""),
    ]
    ours = answer(model, [Query(item.pictures, item.question, []) for item in items], limit=6)
    server = open_server(*export(model, "F16", tmp_path), 1)
    theirs = [ask_server(server, item, 6) for item in items]
    shown = [re.sub("<unused[0-9]+>", "", words).strip() for words in ours]  # llama.cpp shows no unused tokens
    assert shown == theirs and any(theirs)
