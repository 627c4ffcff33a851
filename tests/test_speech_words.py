"""Words of a window and their times: what heads look at, the path through it, words and their signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import opsin
from opsin.api.speech.looking import look
from opsin.api.speech.pauses import pauses
from opsin.api.speech.pointing import Pointers, nearest_way
from opsin.api.speech.segments import Word
from opsin.api.speech.words import Spelt, place_words, split_words
from opsin.media.mel import log_mel
from opsin.spans import Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_speech import BANDS, id, published, write_by_hand  # noqa: E402

SPELT = [Spelt(" one", 2), Spelt(" two", 1), Spelt(" three.", 2)]
SOUND = (np.random.default_rng(0).standard_normal(15_000) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def model(theirs, tmp_path_factory):
    with opsin.load(write_by_hand(tmp_path_factory.mktemp("speech") / "m.gguf", theirs), threads=2) as made:
        yield made


def test_heads_look_where_those_of_transformers_look(model, theirs):
    span = model.text.hearing.span(log_mel(SOUND, BANDS), 0)
    ids, seen = [id("<|startoftranscript|>"), 80, 81, 9, 33], []
    logits = look(model.text, Prompt.of([span]), ids, seen.append)
    theirs.set_attn_implementation("eager")
    with torch.inference_mode():
        given = torch.from_numpy(span.features.make()).T[None]
        made = theirs(input_features=given, decoder_input_ids=torch.tensor([ids]), output_attentions=True)
    wanted = np.stack([layer[0].numpy() for layer in made.cross_attentions]).transpose(0, 2, 1, 3)
    assert np.stack(seen).shape == wanted.shape and np.abs(np.stack(seen) - wanted).max() < 1e-4
    assert np.abs(logits - made.logits[0].numpy()).max() < 1e-3


def test_words_begin_where_heads_point_that_look_sharply_and_go_forward():
    edges, rows = [3, 10, 22, 30, 41, 60], 70  # of five ids, and the end
    random = np.random.default_rng(0)
    layers = random.uniform(0.9, 1.1, (2, 2 + len(edges), 5, rows + 9)).astype(np.float32)  # two ids before them
    layers[..., rows:] = 50  # behind the sound
    for layer in layers:
        for row, edge in enumerate(edges):
            for head, at in ((1, edge), (2, edge + 1), (3, 35), (4, 69 - edge)):  # the others stand, or go back
                layer[2 + row, head, at] = 500
    pointers = Pointers(3, rows)
    for layer in layers:
        pointers.see(layer)
    begins = pointers.rows_of_ids()
    assert np.abs(begins - edges).max() <= 1


def test_words_have_the_times_of_their_first_ids_and_end_where_the_next_begins():
    words = place_words(SPELT, np.array([3, 10, 22, 30, 41, 60]), [], [1.0, 0.5, 0.25, 0.5, 0.5], 30.0)
    assert words == [
        Word(" one", 30.06, 30.44, 0.75), Word(" two", 30.44, 30.6, 0.25), Word(" three.", 30.6, 31.2, 0.5)
    ]  # fmt: skip


def test_around_a_pause_words_end_and_begin_where_sound_does():
    logs = np.random.default_rng(0).normal(0.5, 0.1, (130, BANDS)).astype(np.float32)
    logs[:5] -= 1  # before the first word, but shorter than a pause
    logs[40:58] -= 1
    logs[118:] -= 1
    quiet = pauses(logs)
    assert quiet == [(40, 58), (118, 130)]
    words = place_words(SPELT, np.array([3, 10, 22, 34, 41, 60]), quiet, [1.0] * 5, 0.0)
    assert [(word.start, word.end) for word in words] == [(0.06, 0.4), (0.58, 0.68), (0.68, 1.18)]
    within = place_words(SPELT, np.array([3, 10, 22, 27, 41, 60]), quiet, [1.0] * 5, 0.0)
    assert [(word.start, word.end) for word in within] == [(0.06, 0.44), (0.44, 0.44), (0.58, 1.18)]
    assert pauses(np.zeros((50, BANDS), np.float32)) == []


def test_the_way_is_the_nearest_of_all_that_do_not_go_back():
    shares = (
        np.random.default_rng(1).uniform(0, 0.5, (4, 5)).astype(np.float32) + np.eye(5, dtype=np.float32)[[1, 4, 0, 3]]
    )
    far = np.abs(np.arange(5)[:, None] - np.arange(5)) @ shares.T  # [rows, ids]
    lengths = {way: sum(far[row, id] for id, row in enumerate(way)) for way in itertools.product(range(5), repeat=4)}
    best = min((way for way in lengths if list(way) == sorted(way)), key=lengths.__getitem__)
    assert tuple(nearest_way(shares)) == best != min(lengths, key=lengths.__getitem__)


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
