"""The positions of Qwen2-VL: time, row and column of pictures, as transformers' class makes them. Mistakes are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, distance, open_decoder, score  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402

TOLERANCE = 1e-4
GRIDS = [(4, 7), (6, 3)]  # rows and columns of two pictures
SPANS = [(10, 38, False), (50, 68, False)]
ROWS = 90
IMAGE = 3  # the id of a picture's row


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(7, checkpoints.VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("qwen2vl")


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture
def decoder(ops, truth, tmp_path):
    return open_decoder(ops, checkpoints.save(tmp_path / "tiny.gguf", "qwen2vl", truth))


@pytest.fixture(scope="module")
def media():
    rows = sum(b - a for a, b, _ in SPANS)
    return np.random.default_rng(4).standard_normal((rows, checkpoints.WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def positions(truth):
    """[rows, 3], from the class itself."""
    ids, types = torch.tensor([ids_of(ROWS)]), torch.zeros(1, ROWS, dtype=torch.int)
    for a, b, _ in SPANS:
        ids[0, a:b], types[0, a:b] = IMAGE, 1
    merged = torch.tensor([[1, 2 * h, 2 * w] for h, w in GRIDS])  # patches, of which four become a row
    places, _ = truth.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=merged)
    return places[:, 0].T.numpy().astype(np.int32)


@pytest.fixture(scope="module")
def expected(truth, media, positions):
    given, done = checkpoints.embeddings(truth, ids_of(ROWS)), 0
    for a, b, _ in SPANS:
        given[0, a:b] = torch.from_numpy(media[done : done + b - a])
        done += b - a
    places = torch.from_numpy(positions.T[:, None].astype(np.int64))
    return checkpoints.logits(truth, inputs_embeds=given, position_ids=places)


@pytest.fixture(scope="module")
def conversation(media, positions):
    return Sequence(ids_of(ROWS), SPANS, media, positions)


def test_positions_of_pictures_are_those_of_the_class(positions):
    """What the engine must make of a span with a grid (h, w) that starts at P: P, P + i // w, P + i % w."""
    wanted, at = [], 0
    for row in range(ROWS):
        span = next((n for n, (a, b, _) in enumerate(SPANS) if a <= row < b), None)
        if span is None:
            wanted.append([at] * 3)
            at += 1
            continue
        (a, b, _), (high, wide) = SPANS[span], GRIDS[span]
        wanted.append([at, at + (row - a) // wide, at + (row - a) % wide])
        at += max(high, wide) if row == b - 1 else 0
    assert np.array_equal(positions, wanted)


def test_a_decoder_with_sections_has_three_axes(decoder):
    assert decoder.axes == 3


@pytest.mark.parametrize("chunks", [[(0, 90)], [(0, 20), (20, 55), (55, 90)], [(i, i + 1) for i in range(90)]],
                         ids=["whole", "chunks", "one by one"])  # fmt: skip
def test_pictures_equal_transformers(ops, decoder, conversation, expected, chunks):
    assert distance(score(ops, decoder, conversation, chunks), expected) <= TOLERANCE


@pytest.mark.parametrize("sections", [[1, 4, 2, 1], [0, 0, 0, 0], [1, 4, -3, 0], [8]])
def test_sections_that_mean_nothing_are_refused(ops, truth, tmp_path, sections):
    path = checkpoints.save(tmp_path / "tiny.gguf", "qwen2vl", truth, rope__dimension_sections=sections)
    with pytest.raises(OpsinError, match="dimension_sections"):
        open_decoder(ops, path)


def sections(*counts):
    def apply(patch, ops, decoder, told):
        axis = np.repeat(np.array([c[0] for c in counts]), [c[1] for c in counts]).astype(np.int32)
        return replace(decoder, axis=ops.constant(axis)), told

    return apply


def axes(change):
    def apply(patch, ops, decoder, told):
        return decoder, replace(told, axes=np.ascontiguousarray(change(told.axes.copy())).astype(np.int32))

    return apply


def _late(axes):
    """The text behind a picture goes on as if each of its rows had moved the position."""
    places = np.arange(len(axes))[:, None]
    return np.where(places >= SPANS[0][1], places + axes - axes[:, :1], axes)


def pairing(patch, ops, decoder, told):
    right = Operations.rope
    patch.setattr(Operations, "rope", lambda self, x, table, kind: right(self, x, table, "neighbours"))
    return decoder, told


MUTANTS = {
    "rows and columns are swapped": axes(lambda a: a[:, [0, 2, 1]]),
    "sections are swapped": sections((0, 1), (2, 4), (1, 3)),
    "sections stand in reverse": sections((2, 3), (1, 4), (0, 1)),
    "sections are interleaved": sections(*[(i % 3, 1) for i in range(8)]),
    "one axis alone": lambda patch, ops, decoder, told: (replace(decoder, axis=None), told),
    "positions of one axis on all": axes(lambda a: np.repeat(np.arange(len(a))[:, None], 3, 1)),
    "pictures are shifted by one": axes(lambda a: a + ((a != a[:, :1]).any(1, keepdims=True))),
    "text goes on by rows, not positions": axes(_late),
    "neighbouring pairs turn": pairing,
    "embeddings are swapped": lambda patch, ops, decoder, told: (decoder, replace(told, media=told.media[::-1].copy())),
    "a row sees what comes after it": lambda patch, ops, decoder, told: (
        decoder, replace(told, spans=[(a, b, True) for a, b, _ in told.spans])
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, decoder, conversation, expected, mutant):
    wrong, told = MUTANTS[mutant](monkeypatch, ops, decoder, conversation)
    assert distance(score(ops, wrong, told), expected) > 10 * TOLERANCE
