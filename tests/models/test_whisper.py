"""Whisper against transformers: states, logits, what the converter writes, and mistakes that must be seen."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.convert.hf import convert
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Limits, Runner
from opsin.errors import OpsinError
from opsin.gguf import File
from opsin.models import load_decoder, load_hearer
from opsin.models import whisper as family
from opsin.nn import hearing
from opsin.nn.module import FileReader
from opsin.spans import Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_speech import HEARING, ROWS, heard, id, metadata, published, save, write_by_hand  # noqa: E402
from vision_truth import distance  # noqa: E402

IDS = [id("<|startoftranscript|>"), id("<|de|>"), id("<|transcribe|>"), 5, 9, 33, 80, 81]


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def path(theirs, tmp_path_factory):
    return write_by_hand(tmp_path_factory.mktemp("whisper") / "model.gguf", theirs)


def opened(path, device):
    with File.open(path) as file:
        reader, ears = FileReader(file, device.eager()), FileReader(file, device.eager())
        made = load_decoder(file, reader), load_hearer(file, ears)
        return *made, set(reader.unread()) & set(ears.unread())


def score(path, device, logs, ids, sizes=()):
    """Logits [rows, vocabulary] after each id, with a window of sound before them."""
    decoder, encoder, _ = opened(path, device)
    limits = Limits(rows=64, outputs=32, sequences=2, context=decoder.context, pages=8, memory=4)
    store = MediaStore(1 << 30)
    span = encoder.span(logs)
    store.put([span.digest], encoder.encode(logs[None]), span.memory)
    runner = Runner(device, decoder, limits, "f32", store)
    return runner.score(Prompt.of([span, ids]), [2], sizes, memory=[3])


def wanted(theirs, logs, ids):
    with torch.inference_mode():
        given = torch.from_numpy(logs).swapaxes(1, 2)
        states = theirs.model.encoder(given).last_hidden_state
        made = theirs(encoder_outputs=(states,), decoder_input_ids=torch.tensor([ids])).logits
    return states.numpy(), made[0].numpy()


def test_embeddings_equal_transformers(path, device, theirs):
    _, encoder, unread = opened(path, device)
    logs = heard(3)
    assert not unread
    ours = encoder.encode(logs).numpy().reshape(3, ROWS, -1)
    assert distance(ours, wanted(theirs, logs, IDS)[0]) < 1e-4
    alone = [encoder.encode(one[None]).numpy() for one in logs]
    assert np.array_equal(ours, np.stack(alone))


@pytest.mark.parametrize("sizes", [(), (3, 1, 1)])
def test_logits_equal_transformers(path, device, theirs, sizes):
    logs = heard(seed=4)
    assert distance(score(path, device, logs[0], IDS, sizes), wanted(theirs, logs, IDS)[1]) < 1e-4


def test_what_is_heard_changes_what_is_written(path, device):
    one, other = (score(path, device, heard(seed=seed)[0], IDS) for seed in (1, 2))
    assert distance(one, other) > 1e-2


def test_the_converter_writes_what_was_written_by_hand(path, theirs, tmp_path):
    save(theirs, tmp_path / "hf")
    made = convert(tmp_path / "hf", tmp_path / "made.gguf", format="f32")
    assert not [note for note in made.notes if "generation" in note]
    with File.open(path) as hand, File.open(tmp_path / "made.gguf") as file:
        assert file.tensors.keys() == hand.tensors.keys()
        for name in hand.tensors:
            assert np.array_equal(file.read(name), hand.read(name)), name
        for key in metadata():
            assert np.array_equal(file.metadata[key], hand.metadata[key]), key


def _no_silence(windows, frames):
    places, none = hearing_places(windows, frames)
    return places, np.full_like(none, -1)


def _late(windows, frames):
    places, none = hearing_places(windows, frames)
    return np.minimum(places + 1, windows * frames - 1).astype(np.int32), none


hearing_places = hearing._second_places
MISTAKES = {
    "the first frame sees the window's own before it": lambda m: m.setattr(hearing, "_second_places", _no_silence),
    "a frame late": lambda m: m.setattr(hearing, "_second_places", _late),
    "band by band": lambda m: m.setattr(
        hearing.MovedConv, "read", hearing.Linear.read.__func__.__get__(hearing.Linear)
    ),
    "no norm behind": lambda m: m.setattr(hearing.LayerNorm, "__call__", lambda self, x, eps: x),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_the_tower_is_seen(path, device, theirs, monkeypatch, mistake):
    MISTAKES[mistake](monkeypatch)
    logs = heard(2, seed=5)
    ours = opened(path, device)[1].encode(logs).numpy()
    assert distance(ours.reshape(2, ROWS, -1), wanted(theirs, logs, IDS)[0]) > 1e-3


def _swapped(self, block, x, batch, kept, layer):
    swapped = type("Swapped", (), {**vars(block), "cross_attn_norm": block.attn_norm})()
    return look(self, swapped, x, batch, kept, layer)


def _next(self, block, x, batch, kept, layer):
    return look(self, block, x, batch, kept, (layer + 1) % len(self.weights.blk))


look = family.WhisperDecoder._look


@pytest.mark.parametrize("mistake", [_swapped, _next, lambda self, block, x, batch, kept, layer: x])
def test_a_mistake_of_the_decoder_is_seen(path, device, theirs, monkeypatch, mistake):
    monkeypatch.setattr(family.WhisperDecoder, "_look", mistake)
    logs = heard(seed=4)
    assert distance(score(path, device, logs[0], IDS), wanted(theirs, logs, IDS)[1]) > 1e-3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip.audio.block_count", HEARING + 1), ("clip.audio.num_mel_bins", 21), ("clip.audio.num_mel_bins", 1 << 30),
        ("clip.audio.attention.head_count", 5), ("clip.audio.attention.head_count", 0),
        ("clip.audio.embedding_length", 50), ("clip.audio.projector_type", "ears"),
        ("clip.audio.attention.layer_norm_epsilon", 0.0), ("whisper.block_count", 3), ("whisper.context_length", 65),
        ("whisper.attention.head_count", 5), ("whisper.feed_forward_length", 81),
        ("whisper.attention.layer_norm_epsilon", float("nan")),
    ],
)  # fmt: skip
def test_hostile_keys_are_one_message(device, theirs, tmp_path, key, value):
    path = write_by_hand(tmp_path / "hostile.gguf", theirs, {key: value})
    with pytest.raises(OpsinError) as raised:
        opened(path, device)
    assert "\n" not in str(raised.value)
