"""What Gemma 3 has beside other decoders: windows of its own, rows of a picture that see each other, two ropes.

Each mistake of the list must be seen by the comparison with transformers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Bench, Sequence, distance, open_decoder, score  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.models.gemma3 import Gemma3  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402

TOLERANCE = 1e-4
# Pictures larger and smaller than the window of 24 rows, apart by text; more than a page of rows.
SPANS = [(5, 45, True), (50, 60, True), (97, 128, True)]
ROWS = 150
CHUNKS = [(0, 5), (5, 48), (48, 61), (61, 97), (97, 128), (128, 129), (129, 150)]


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(7, checkpoints.VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("gemma3")


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("gemma3") / "tiny.gguf", "gemma3", truth)


@pytest.fixture
def decoder(ops, path):
    return open_decoder(ops, path)


@pytest.fixture(scope="module")
def media():
    rows = sum(b - a for a, b, _ in SPANS)
    return 3 * np.random.default_rng(4).standard_normal((rows, checkpoints.WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(truth, media):
    """Embeddings of pictures in their places, and the mask that the class makes of token types."""
    given, types, done = checkpoints.embeddings(truth, ids_of(ROWS)), torch.zeros(1, ROWS, dtype=torch.long), 0
    for a, b, _ in SPANS:
        given[0, a:b] = torch.from_numpy(media[done : done + b - a])
        types[0, a:b] = 1
        done += b - a
    return checkpoints.logits(truth, inputs_embeds=given, token_type_ids=types)


@pytest.fixture(scope="module")
def conversation(media):
    return Sequence(ids_of(ROWS), SPANS, media)


def test_layers_with_a_window_are_a_group_of_their_own(decoder):
    shapes = {name: (shape.layers, shape.window) for name, shape in decoder.groups.items()}
    assert shapes == {"self": (2, 0), "window": (5, 24)}


def test_pictures_equal_transformers(ops, decoder, conversation, expected):
    assert distance(score(ops, decoder, conversation), expected) <= TOLERANCE


def test_pictures_in_chunks_equal_transformers(ops, decoder, conversation, expected):
    assert distance(score(ops, decoder, conversation, CHUNKS), expected) <= TOLERANCE


def test_pictures_beside_text_alone_equal_transformers(ops, decoder, truth, conversation, expected):
    text = ids_of(20, 8)
    bench = Bench(ops, decoder, [Sequence(text), conversation])
    first = bench.step([(0, 0, 10), (1, 0, 97)])
    second = bench.step([(1, 97, ROWS), (0, 10, 20)])
    assert distance(np.concatenate([first[10:], second[:53]]), expected) <= TOLERANCE
    assert distance(np.concatenate([first[:10], second[53:]]), checkpoints.logits(truth, text)) <= TOLERANCE


@pytest.mark.parametrize(
    ("kinds", "keys", "shapes"),
    [
        ("sssssfs", {"attention__sliding_window_pattern": None}, {"self": (1, 0), "window": (6, 24)}),
        ("fsffsff", {"attention__sliding_window_pattern": [c == "s" for c in "fsffsff"]},
         {"self": (5, 0), "window": (2, 24)}),
        ("fffffff", {"attention__sliding_window": None}, {"self": (7, 0)}),
        ("sssssss", {"attention__sliding_window_pattern": 0}, {"self": (7, 24)}),
    ],
)  # fmt: skip
def test_other_patterns_equal_transformers(ops, tmp_path, kinds, keys, shapes):
    names = {"s": "sliding_attention", "f": "full_attention"}
    truth = checkpoints.make("gemma3", layer_types=[names[kind] for kind in kinds])
    decoder = open_decoder(ops, checkpoints.save(tmp_path / "tiny.gguf", "gemma3", truth, **keys))
    assert {name: (shape.layers, shape.window) for name, shape in decoder.groups.items()} == shapes
    assert distance(score(ops, decoder, Sequence(ids_of(90))), checkpoints.logits(truth, ids_of(90))) <= TOLERANCE


def test_a_pattern_of_another_length_is_refused(ops, tmp_path, truth):
    keys = {"attention__sliding_window_pattern": [True, False]}
    with (
        File.open(checkpoints.save(tmp_path / "tiny.gguf", "gemma3", truth, **keys)) as file,
        pytest.raises(OpsinError, match="has 2 values for 7 layers"),
    ):
        load_decoder(file, FileReader(file, ops))


def test_scores_of_the_largest_are_scaled_by_width_over_heads(ops, tmp_path):
    truth = checkpoints.make("gemma3", layers=62, layer_types=["full_attention"] * 62)
    decoder = open_decoder(ops, checkpoints.save(tmp_path / "tiny.gguf", "gemma3", truth))
    assert decoder.heads.scale == pytest.approx(16**-0.5)


def kind(number, **wrong):
    """A mutant of one kind of layers."""

    def apply(patch, decoder, conversation):
        kinds = list(decoder.kinds)
        kinds[number] = replace(kinds[number], **{k: f(kinds) for k, f in wrong.items()})
        return replace(decoder, kinds=tuple(kinds)), conversation

    return apply


def block(part, wrong):
    def apply(patch, decoder, conversation):
        for layer in decoder.weights.blk:
            patch.setattr(layer, part, wrong)
        return decoder, conversation

    return apply


def rows(name, wrong):
    """A mutant of what rows see."""

    def apply(patch, decoder, conversation):
        right = getattr(Sequence, name)
        patch.setattr(Sequence, name, lambda self, *args: wrong(right, self, *args))
        return decoder, conversation

    return apply


def activation(patch, decoder, conversation):
    right = Operations.glu
    patch.setattr(Operations, "glu", lambda self, gate, up, kind: right(self, gate, up, "gelu_erf"))
    return decoder, conversation


def neighbours(patch, decoder, conversation):
    right = Operations.rope
    patch.setattr(Operations, "rope", lambda self, x, table, pairing: right(self, x, table, "neighbours"))
    return decoder, conversation


def scaled_media(patch, decoder, conversation):
    return decoder, replace(conversation, media=conversation.media * 8)


def embedding(factor):
    def apply(patch, decoder, conversation):
        patch.setattr(Gemma3, "width", factor)
        return decoder, conversation

    return apply


def other_layers(patch, decoder, conversation):
    places = (decoder.places[-1], *decoder.places[:-1])
    return replace(decoder, places=places), conversation


MUTANTS = {
    "windows are one row longer": rows("first", lambda right, self, row, w: right(self, row, w + bool(w))),
    "windows are one row shorter": rows("first", lambda right, self, row, w: right(self, row, w - bool(w))),
    "no windows": rows("first", lambda right, self, row, w: 0),
    "windows everywhere": rows("first", lambda right, self, row, w: right(self, row, 24)),
    "a picture's rows see all of it through the window": rows(
        "first", lambda right, self, row, w: min([right(self, row, w), *(a for a, b, _ in self.spans if a <= row < b)])
    ),
    "a picture's rows see only what is before": rows("last", lambda right, self, row: row + 1),
    "a picture's rows see one row less": rows("last", lambda right, self, row: max(row + 1, right(self, row) - 1)),
    "a picture's rows see one row more": rows(
        "last", lambda right, self, row: right(self, row) + (right(self, row) > row + 1)
    ),
    "pictures are swapped": rows(
        "medium", lambda right, self, row: None if right(self, row) is None else (right(self, row) + 40) % 81
    ),
    "embeddings of pictures are scaled as those of ids": scaled_media,
    "embeddings are not scaled": embedding(1),
    "embeddings are scaled by the width": embedding(64**2),
    "local layers turn as global ones": kind(1, frequencies=lambda kinds: kinds[0].frequencies),
    "global layers turn as local ones": kind(0, frequencies=lambda kinds: kinds[1].frequencies),
    "the pattern is shifted": other_layers,
    "no norm behind attention": block("post_attention_norm", lambda x, eps: x),
    "no norm behind the feed-forward": block("post_ffw_norm", lambda x, eps: x),
    "the exact GELU": activation,
    "scores are not scaled": lambda patch, decoder, conversation: (
        replace(decoder, heads=replace(decoder.heads, scale=1.0)), conversation
    ),
    "neighbouring pairs turn": neighbours,
    "no norm of keys": lambda patch, decoder, conversation: (
        [patch.setattr(layer.attn, "attn_k_norm", None) for layer in decoder.weights.blk], (decoder, conversation)
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, decoder, conversation, expected, mutant):
    wrong, told = MUTANTS[mutant](monkeypatch, decoder, conversation)
    assert distance(score(ops, wrong, told), expected) > TOLERANCE
