"""Our module computes what transformers' Gemma 3 computes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.hf import hf_config, hf_model  # noqa: E402
from training.model import Nano, Shape, prepare, sight  # noqa: E402
from training.text import blocks_of, render  # noqa: E402


def small() -> Nano:
    """A model with random weights, norms included."""
    torch.manual_seed(1)
    model = Nano(Shape(layers=6, tower_layers=2))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_logits_equal_those_of_transformers() -> None:
    """Text, two pictures and their rows give the same logits."""
    model = small()
    theirs = hf_model(model)
    pixels = prepare(torch.randint(0, 256, (2, 192, 192, 3), dtype=torch.uint8))  # after the model's seed
    ids, _ = render([("What colour is the circle?", "Red."), ("Where is it?", None)], 2, model.shape.rows, lines=True)
    row, blocks = torch.tensor([ids]), torch.tensor([blocks_of(ids)])
    with torch.inference_mode():
        ours = model.logits(model(row, blocks, model.encode(pixels).flatten(0, 1)))
        expected = theirs(
            input_ids=row, pixel_values=pixels, attention_mask=torch.ones_like(row), token_type_ids=(blocks > 0).long()
        ).logits
    assert torch.allclose(ours, expected, atol=2e-4, rtol=1e-3)


def test_every_weight_has_its_place_in_transformers() -> None:
    """No weight is left over on either side but the tied head."""
    theirs = {name for name, _ in hf_model(small()).named_parameters()}
    assert theirs == {f"model.{name}" for name, _ in small().named_parameters()}
    assert hf_config(Shape()).mm_tokens_per_image == 36


def test_rows_of_a_picture_see_each_other_and_text_sees_back() -> None:
    """The mask is causal but for the rows of one picture."""
    seen = sight(torch.tensor([[0, 1, 1, 0, 2, 2, 0]]))[0, 0]
    assert seen[1, 2] and seen[4, 5] and seen[6, 0]
    assert not seen[0, 1] and not seen[2, 4] and not seen[3, 4]
