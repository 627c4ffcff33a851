"""Names are shown where to look, so that a number can be read from how much they look at it."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from training.model import Nano, Shape, sight  # noqa: E402
from training.named import Names, centres_of, names_of  # noqa: E402
from training.scenes import Scene, Thing  # noqa: E402
from training.tally import CONSTANT, block_of, look, tally_loss, wanted  # noqa: E402
from training.text import blocks_of, render  # noqa: E402

SHAPE = replace(Shape(), layers=3, heads=2, groups=1, inner=64, tower_layers=1)
TWO = Scene("white", [Thing("star", "red", 10, 10, 30), Thing("star", "blue", 100, 80, 30)])
THREE = Scene("white", [Thing("star", "red", 180, 180, 30)] * 2 + [Thing("star", "red", 180, 10, 30)])


def batch(*scenes: Scene) -> tuple[Names, torch.Tensor, torch.Tensor]:
    """One question about stars in the pictures: its names, ids and blocks."""
    ids, learn = render([("How many stars are there?", "Two.")], len(scenes), 36, lines=False)
    return names_of([(ids, learn)], [list(scenes)]), torch.tensor([ids]), torch.tensor([blocks_of(ids)])


def test_middles_are_counted_in_the_rows_that_hold_them() -> None:
    """Six rows of a picture along each side; two middles in one row count twice; near a border it is shared."""
    first, second = centres_of([TWO.things, THREE.things])
    assert [first[0], first[2 * 6 + 3], first[2 * 6 + 2], sum(first)] == [1, 0.75, 0.25, 2]
    assert [second[35], second[5], sum(second)] == [2, 1, 3]


def test_what_is_wanted_grows_with_the_number() -> None:
    """The first token weighs as much as some things; the others share what is left."""
    names, _, blocks = batch(TWO, THREE)
    first, second = (wanted(names, blocks, picture)[0] for picture in (1, 2))
    assert first[0].item() == pytest.approx(CONSTANT / (CONSTANT + 2))
    assert second[0].item() == pytest.approx(CONSTANT / (CONSTANT + 3))
    start = (blocks[0] == 2).int().argmax()
    assert second[start + 35].item() == pytest.approx(2 / (CONSTANT + 3))
    assert first[start:].sum() == 0


def test_looks_are_the_weights_that_attention_uses() -> None:
    """Put in the place of the block's own weights, they give what the block gives."""
    torch.manual_seed(1)
    model = Nano(SHAPE)
    names, ids, blocks = batch(TWO)
    _, between = model.think(ids, blocks, torch.randn(36, SHAPE.width))
    before, decoder, row = between[block_of(model.language_model)], model.language_model, int(names.at[0, 1])
    weights = look(decoder, block_of(decoder), before, names.at).exp()[0]
    layer = decoder.layers[block_of(decoder)]
    values = layer.self_attn.v_proj(layer.input_layernorm(before))[0]
    seen = layer.self_attn.o_proj((weights @ values).flatten())
    x = before[0, row] + layer.post_attention_layernorm(seen)
    x = x + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x)))
    assert torch.allclose(x, between[block_of(decoder) + 1][0, row], atol=1e-5)
    assert bool((weights[:, ~sight(blocks)[0, 0, row]] == 0).all())


def test_a_block_learns_to_look() -> None:
    """A few steps on one batch, and the numbers can be read from the weights."""
    torch.manual_seed(1)
    model = Nano(SHAPE)
    names, ids, blocks = batch(TWO, THREE)
    pictures = torch.randn(72, SHAPE.width)
    optimiser = torch.optim.Adam(model.language_model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        _, between = model.think(ids, blocks, pictures)
        loss, logged = tally_loss(model.language_model, between[block_of(model.language_model)], names, blocks)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert logged["tally"] == 1.0 and losses[-1] < 0.05 * losses[0]


def test_looks_of_a_batch_are_those_of_each_conversation() -> None:
    """Several names a conversation, not equally many: none takes another's place."""
    torch.manual_seed(2)
    decoder, rows = Nano(SHAPE).language_model, torch.randn(3, 50, SHAPE.width)
    at = torch.tensor([[0, 49], [2, 7], [2, 40], [2, 44]])
    together = look(decoder, 1, rows, at)
    for number, row in at.tolist():
        alone = look(decoder, 1, rows[number : number + 1], torch.tensor([[0, row]]))[0]
        assert torch.allclose(together[at.tolist().index([number, row])], alone, atol=1e-5)
