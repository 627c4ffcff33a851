"""Characters know where they stand, and who is about to say one is shown where to look."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from PIL import Image, ImageFont  # noqa: E402

from training.assets import Assets  # noqa: E402
from training.dense import DenseHead  # noqa: E402
from training.lists import CHARACTERS, COLOUR_NAMES  # noqa: E402
from training.model import Nano, Shape  # noqa: E402
from training.pages import draw_page  # noqa: E402
from training.paint import SIDE, Canvas, Tint, share_cells  # noqa: E402
from training.pictures import Picture  # noqa: E402
from training.questions import ask_extreme_bar, ask_letters, ask_text  # noqa: E402
from training.scenes import Bar, Scene, Style, choose_tint  # noqa: E402
from training.spell import block_of, read_loss, read_of  # noqa: E402
from training.stream import stack_pictures  # noqa: E402
from training.text import blocks_of, load_tokens, render  # noqa: E402

FONT = ImageFont.load_default(size=40)
SHAPE = replace(Shape(), layers=3, heads=2, groups=1, inner=64, tower_layers=1)
WORD = Scene("white", text="cab", text_colour="red", spots=[(16.0, 16.0), (64.0, 16.0), (112.0, 16.0)])


def canvas_with(text: str) -> tuple[Canvas, list[tuple[float, float]]]:
    """A white canvas with a word on it, and the middles of its characters."""
    canvas = Canvas(Image.new("RGB", (SIDE, SIDE), "white"), "white")
    return canvas, canvas.add_text(text, (10, 60), FONT, colour="black", rgb=(0, 0, 0))


def test_every_character_is_labelled_where_it_stands_and_in_its_order() -> None:
    """The half patch at a character's middle names it; so does its place in the word, in the row of its middle."""
    canvas, middles = canvas_with("Cab7")
    for index, (letter, (x, y)) in enumerate(zip("cab7", middles, strict=True)):
        number = CHARACTERS.index(letter)
        assert canvas.marks.letter[int(y // 16), int(x // 8)] == number + 1
        assert canvas.marks.share[index] == pytest.approx(share_cells(x, y))
        assert set(canvas.marks.spelt[index][canvas.marks.share[index] > 0]) == {number}
    assert canvas.marks.share[4:].sum() == 0 and (canvas.marks.spelt[4:] == -1).all()
    assert [x for x, _ in middles] == sorted(x for x, _ in middles) and len({y for _, y in middles}) == 1


def test_a_row_that_says_what_it_holds_has_no_loss() -> None:
    """The loss of letters falls to nearly nothing for the labels themselves, and not for those of another picture."""
    torch.manual_seed(0)
    shape, head = Shape(), DenseHead(Shape())
    scenes = [canvas_with(text)[0] for text in ("cab7", "zig")]
    labels = [stack_pictures([Picture(np.asarray(c.picture), Scene(), c.marks)])[1] for c in scenes]
    rows = torch.randn(1, shape.rows, shape.width, requires_grad=True)
    optimiser = torch.optim.Adam([rows, *head.parameters()], 0.02)
    for _ in range(150):
        loss, logged = head.letter_loss(rows, labels[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    other, others = head.letter_loss(rows, labels[1])
    assert logged == {"letter": 1, "spelt": 1, "order": 1} and loss < 0.2
    assert other > 3 and others["spelt"] < 0.5


def test_answers_know_where_they_were_read() -> None:
    """Whole words, single letters and the letters of bars carry the middles of what they say; other answers none."""
    rng = random.Random(1)
    word = ask_text(WORD, rng)
    assert word is not None and (word.answer, word.spots) == ('"cab"', tuple(WORD.spots))
    letters = {turn.answer: turn.spots for _ in range(40) if (turn := ask_letters(WORD, rng))}
    assert letters == {'"c"': (WORD.spots[0],), '"b"': (WORD.spots[2],), "Three.": ()}
    bar = ask_extreme_bar(Scene(bars=[Bar("k", "red", 9, (30.0, 170.0)), Bar("x", "red", 12, (90.0, 170.0))]), rng)
    assert bar is not None and bar.spots == ((90.0 if bar.answer == '"x"' else 30.0, 170.0),)


def test_the_row_before_a_character_is_the_one_that_reads() -> None:
    """In a conversation of two answers the rows found come one before each character of the one that reads."""
    rng, tokens = random.Random(1), load_tokens()
    turns = [turn for turn in (ask_text(WORD, rng), ask_text(Scene("white"), rng)) if turn]
    ids, learn = render([(turn.question, turn.answer) for turn in turns], 1, 36, lines=False)
    read = read_of([(ids, learn)], [turns])
    assert [tokens[ids[row + 1]] for _, row in read.at.tolist()] == ["c", "a", "b"]
    assert [cells.argmax().item() for cells in read.cells] == [0, 1, 3] and read.cells[1, 2] == 0.5


def test_loss_is_least_where_attention_lies_on_the_character() -> None:
    """Trained on one conversation alone, nearly all weight comes to lie on the characters' rows."""
    torch.manual_seed(1)
    model, rng = Nano(SHAPE), random.Random(1)
    turn = ask_text(WORD, rng)
    assert turn is not None
    ids, learn = render([(turn.question, turn.answer)], 1, 36, lines=False)
    read, pixels = read_of([(ids, learn)], [[turn]]), torch.randn(36, SHAPE.width)
    rows, blocks = torch.tensor([ids]), torch.tensor([blocks_of(ids)])
    optimiser = torch.optim.Adam(model.language_model.parameters(), 3e-3)
    for _ in range(60):
        between = model.think(rows, blocks, pixels)[1]
        loss, logged = read_loss(model.language_model, between[block_of(model.language_model)], read, blocks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert logged["read"] > 0.95 and loss < 0.1


def test_pages_hold_many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words in every way of writing, dozens of characters a page, all inside it and all of them labelled."""
    monkeypatch.setattr("training.pages.load_font", lambda path, size: ImageFont.load_default(size=size))
    style = Style("train", Assets(("any",), {}, tuple(f"{a}{b}pq"[:n] for a in "xyz" for b in "uvw" for n in (3, 4))))
    monkeypatch.setattr("training.pages.choose_word", lambda rng, style: rng.choice(style.assets.words))
    pages = [draw_page(random.Random(seed), style) for seed in range(20)]
    assert np.mean([(page.marks.spelt >= 0).sum() for page in pages]) > 25
    assert all(page.pixels.shape == (SIDE, SIDE, 3) and page.marks.letter.any() for page in pages)
    assert {page.scene.background for page in pages} <= {*COLOUR_NAMES, ""}


def test_drawings_are_tinted_in_training_only() -> None:
    """Each colour by its strength and at most all of it, what is clear stays clear, a mirror turns sides."""
    drawing = Image.new("RGBA", (2, 1))
    drawing.putpixel((0, 0), (100, 200, 50, 255))
    assert [Tint(0.5, 1.5, 1.0).of(drawing).getpixel((x, 0)) for x in (0, 1)] == [(50, 255, 50, 255), (0, 0, 0, 0)]
    assert Tint(1, 1, 1, mirrored=True).of(drawing).getpixel((1, 0)) == (100, 200, 50, 255)
    rng = random.Random(2)
    assert not any(choose_tint(rng, "test") for _ in range(50))
    assert 20 < sum(choose_tint(rng, "train") is not None for _ in range(50)) < 50
