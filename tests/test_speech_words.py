"""Words of a window and their times: what heads look at, the path through it, words and their signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import opsin
from opsin.api.speech.looking import look
from opsin.api.speech.words import Spelt, _path, place_words, split_words
from opsin.errors import RequestError
from opsin.media.mel import log_mel

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_speech import BANDS, id, published, write_by_hand  # noqa: E402

SOUND = (np.random.default_rng(0).standard_normal(15_000) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def model(theirs, tmp_path_factory):
    with opsin.load(write_by_hand(tmp_path_factory.mktemp("speech") / "m.gguf", theirs), threads=2) as made:
        yield made


def test_heads_look_where_those_of_transformers_look(model, theirs):
    logs = log_mel(SOUND, BANDS)
    span = model.text.hearing.span(logs, 0)
    ids, heads = [id("<|startoftranscript|>"), 80, 81, 9, 33], [(0, 1), (1, 2), (1, 0)]
    weights, logits = look(model.text, span, ids, heads)
    theirs.set_attn_implementation("eager")
    with torch.inference_mode():
        given = torch.from_numpy(span.features.make()).T[None]
        made = theirs(input_features=given, decoder_input_ids=torch.tensor([ids]), output_attentions=True)
    wanted = np.stack([made.cross_attentions[layer][0, head].numpy() for layer, head in heads])
    assert weights.shape == wanted.shape and np.abs(weights - wanted).max() < 1e-4
    assert np.abs(logits - made.logits[0].numpy()).max() < 1e-3


def test_words_are_placed_where_the_heads_look():
    edges, rows = [3, 10, 22, 30, 41, 60], 70  # of five ids, and the end
    weights = np.full((2, 6, rows), 0.01, np.float32)
    for row, (begin, end) in enumerate(itertools.pairwise([*edges, rows])):
        weights[:, row, begin:end] = 1.0
    words = [Spelt(" one", 2), Spelt(" two", 1), Spelt(" three.", 2)]
    placed = place_words(words, weights, [1.0, 0.5, 0.25, 0.5, 0.5], 30.0)
    assert [word.text for word in placed] == [" one", " two", " three."]
    times = [time for word in placed for time in (word.start, word.end)]
    assert times[1:] == pytest.approx([30 + edge * 0.02 for edge in (22, 22, 30, 30, 60)], abs=0.04)
    assert [word.probability for word in placed] == [0.75, 0.25, 0.5]


def test_the_path_is_the_cheapest_of_all():
    costs = np.random.default_rng(1).standard_normal((4, 5))
    steps = [(1, 1), (1, 0), (0, 1)]

    def cheapest(i, j):
        if (i, j) == (0, 0):
            return costs[0, 0]
        before = [cheapest(i - a, j - b) for a, b in steps if i >= a and j >= b]
        return costs[i, j] + min(before)

    path = _path(costs)
    assert path[0] == (3, 4) and path[-1] == (0, 0)
    assert sum(costs[cell] for cell in path) == pytest.approx(cheapest(3, 4))


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("the cat, sat.", "en", ["the", " cat,", " sat."]),
        (' he said "no way" (a lot)', "en", [" he", " said", ' "no', ' way"', " (a", " lot)"]),
        ("it's well-known", "en", ["it'", "s", " well", "-known"]),
        ("漢字かな。", "ja", ["漢", "字", "か", "な。"]),
        ("", "en", []),
    ],
)
def test_words_go_with_their_signs_and_join_to_the_text(model, text, language, words):
    ids = model.tokenizer.encode(text)
    found = split_words(model.tokenizer, ids, language)
    assert "".join(word.text for word in found) == text and sum(word.ids for word in found) == len(ids)
    if "'" not in text:
        assert [word.text for word in found] == words


def test_a_transcript_tells_words_within_its_segments(model):
    made = list(model.transcribe(np.tile(SOUND, 3), language="en", temperature=0.0, words=True))
    plain = list(model.transcribe(np.tile(SOUND, 3), language="en", temperature=0.0))
    assert [segment.ids for segment in made] == [segment.ids for segment in plain]
    assert not any(segment.words for segment in plain)
    for segment in made:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(0 <= word.start <= word.end <= 3 for word in segment.words)
        assert all(0 <= word.probability <= 1 for word in segment.words)


def test_without_heads_that_follow_the_sound_it_is_refused(theirs, tmp_path):
    heads = {"whisper.alignment_heads": np.zeros(0, np.int32)}
    with opsin.load(write_by_hand(tmp_path / "m.gguf", theirs, heads), threads=1) as made:
        told = pytest.raises(RequestError, made.transcribe, SOUND, words=True)
    assert "which heads follow the sound" in str(told.value)
