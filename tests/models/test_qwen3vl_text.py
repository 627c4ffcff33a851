"""The decoder of Qwen3-VL against transformers' class: positions by turns, and DeepStack's parts of pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Bench, Sequence, distance, open_decoder, score  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.models import qwen3vl as family  # noqa: E402
from opsin.nn.batch import Batch  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402

TOLERANCE = 1e-4
GRIDS = [(4, 7), (6, 3)]  # rows and columns of two pictures
SPANS = [(10, 38, False), (50, 68, False)]
ROWS, IMAGE, PARTS, WIDTH = 90, 3, 3, checkpoints.WIDTH  # IMAGE: the id of a picture's row


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(7, checkpoints.VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("qwen3vl")


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture
def decoder(ops, truth, tmp_path):
    return open_decoder(ops, checkpoints.save(tmp_path / "tiny.gguf", "qwen3vl", truth))


@pytest.fixture(scope="module")
def media():
    """[rows, parts * width]."""
    rows = sum(b - a for a, b, _ in SPANS)
    return np.random.default_rng(4).standard_normal((rows, PARTS * WIDTH)).astype(np.float32)


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
    given, seen = checkpoints.embeddings(truth, ids_of(ROWS)), torch.zeros(1, ROWS, dtype=torch.bool)
    for a, b, _ in SPANS:
        seen[0, a:b] = True
    first, *later = torch.from_numpy(media).split(WIDTH, 1)
    given[seen] = first
    with torch.inference_mode():
        states = truth.model.language_model(
            inputs_embeds=given, position_ids=torch.from_numpy(positions.T[:, None].astype(np.int64)),
            visual_pos_masks=seen, deepstack_visual_embeds=later, use_cache=False,
        )  # fmt: skip
        return truth.lm_head(states.last_hidden_state)[0].numpy()


@pytest.fixture(scope="module")
def conversation(media, positions):
    return Sequence(ids_of(ROWS), SPANS, media, positions)


def test_it_takes_embeddings_of_several_parts(decoder):
    assert (decoder.width, decoder.media_width, decoder.axes) == (WIDTH, PARTS * WIDTH, 3)


@pytest.mark.parametrize("chunks", [[(0, 90)], [(0, 20), (20, 55), (55, 90)], [(i, i + 1) for i in range(90)]],
                         ids=["whole", "chunks", "one by one"])  # fmt: skip
def test_pictures_equal_transformers(ops, decoder, conversation, expected, chunks):
    assert distance(score(ops, decoder, conversation, chunks), expected) <= TOLERANCE


def test_company_of_text_changes_no_bit(ops, decoder, conversation):
    """A chunk that ends in a picture, beside a sequence of text."""
    alone = score(ops, decoder, conversation, [(0, 30), (30, 90)])
    bench = Bench(ops, decoder, [Sequence(ids_of(70, 1)), conversation])
    first = bench.step([(0, 0, 40), (1, 0, 30)])
    last = bench.step([(1, 30, 90), (0, 40, 70)])
    assert np.array_equal(np.concatenate([first[40:], last[:60]]), alone)
    text = np.concatenate([first[:40], last[60:]])
    assert np.array_equal(text, score(ops, decoder, Sequence(ids_of(70, 1)), [(0, 40), (40, 70)]))


def test_rows_end_behind_the_last_part_of_a_picture(ops, decoder, conversation):
    """Where the last layer gets one, too."""
    decoder, width = replace(decoder, deep=3), 4 * WIDTH
    media = np.random.default_rng(5).standard_normal((len(conversation.media), width)).astype(np.float32)
    whole, some = (
        Bench(ops, decoder, [replace(conversation, media=media)]).step([(0, 0, ROWS)], outputs)
        for outputs in (None, [20, ROWS - 1])
    )
    assert np.array_equal(some, whole[[20, ROWS - 1]])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope__dimension_sections", [8, 5, 2, 1], "dimension_sections"),
        ("rope__dimension_sections", [8, 5], "dimension_sections"),
        ("n_deepstack_layers", 4, "n_deepstack_layers is 4, of 3"),
        ("n_deepstack_layers", -1, "n_deepstack_layers is -1"),
    ],
)
def test_keys_that_mean_nothing_are_refused(ops, truth, tmp_path, key, value, said):
    path = checkpoints.save(tmp_path / "tiny.gguf", "qwen3vl", truth, **{key: value})
    with pytest.raises(OpsinError, match=said):
        open_decoder(ops, path)


def turns(axis):
    return lambda patch, ops, decoder, told: (replace(decoder, axis=ops.constant(np.int32(axis))), told)


def positioned(change):
    def apply(patch, ops, decoder, told):
        return decoder, replace(told, axes=np.ascontiguousarray(change(told.axes.copy())).astype(np.int32))

    return apply


def parts(order):
    def apply(patch, ops, decoder, told):
        pieces = np.split(told.media, PARTS, 1)
        return decoder, replace(told, media=np.hstack([pieces[i] for i in order]))

    return apply


def added(wrong):
    """Of a layer: wrong(right, decoder, block, x, batch, layer, table)."""

    def apply(patch, ops, decoder, told):
        right = family.PreNormDecoder._block
        patch.setattr(family.Qwen3VlDecoder, "_block", lambda self, *args: wrong(right, self, *args))
        return decoder, told

    return apply


def _before(right, self, block, x, batch, layer, table):
    return right(self, block, batch.deepen(x, 1 + layer) if layer < self.deep else x, batch, layer, table)


def _late(right, self, block, x, batch, layer, table):
    x = right(self, block, x, batch, layer, table)
    return batch.deepen(x, layer) if 0 < layer <= self.deep else x


def deepened(wrong):
    """Of where parts are added: wrong(right, batch, x, part)."""

    def apply(patch, ops, decoder, told):
        right = Batch.deepen
        patch.setattr(Batch, "deepen", lambda self, x, part: wrong(right, self, x, part))
        return decoder, told

    return apply


def pairing(patch, ops, decoder, told):
    right = Operations.rope
    patch.setattr(Operations, "rope", lambda self, x, table, kind: right(self, x, table, "neighbours"))
    return decoder, told


def norms(name):
    def apply(patch, ops, decoder, told):
        patch.setattr(decoder.weights.blk[1].attn, name, None)
        return decoder, told

    return apply


PAIRS = np.arange(16)
MUTANTS = {
    "no parts for later layers": lambda patch, ops, decoder, told: (replace(decoder, deep=0), told),
    "one part less": lambda patch, ops, decoder, told: (replace(decoder, deep=1), told),
    "parts are exchanged": parts([0, 2, 1]),
    "the last part first": parts([2, 0, 1]),
    "parts are added before their layers": added(_before),
    "parts are added a layer late": added(_late),
    "parts are added twice": deepened(lambda right, self, x, part: right(self, right(self, x, part), part)),
    "rows of text get parts as well": deepened(
        lambda right, self, x, part: right(self, x + x.ops.constant(np.full(WIDTH, 0.1, np.float32)), part)
    ),
    "sections one after the other": turns(np.repeat([0, 1, 2], [8, 5, 3])),
    "turns go on behind the sections": turns(PAIRS % 3),
    "rows and columns take turns the other way": turns(np.where(PAIRS < 15, -PAIRS % 3, 0)),
    "one axis alone": lambda patch, ops, decoder, told: (replace(decoder, axis=None), told),
    "rows and columns are swapped": positioned(lambda a: a[:, [0, 2, 1]]),
    "positions of one axis on all": positioned(lambda a: np.repeat(np.arange(len(a))[:, None], 3, 1)),
    "neighbouring pairs turn": pairing,
    "no norm of queries": norms("attn_q_norm"),
    "no norm of keys": norms("attn_k_norm"),
    "embeddings are swapped": lambda patch, ops, decoder, told: (decoder, replace(told, media=told.media[::-1].copy())),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, decoder, conversation, expected, mutant):
    wrong, told = MUTANTS[mutant](monkeypatch, ops, decoder, conversation)
    assert distance(score(ops, wrong, told), expected) > 10 * TOLERANCE
