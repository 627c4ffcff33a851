"""Whisper tiny.en's real weights against transformers, where `tools/fetch_whisper.py` has put them into the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_model import kept_whisper

import opsin
from opsin.convert.hf import convert
from opsin.convert.speech import open_checkpoint
from opsin.media.hearing import open_sound
from opsin.media.mel import log_mel, window
from opsin.spans import Prompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from vision_truth import distance  # noqa: E402

pytestmark = pytest.mark.model
RECORDING = Path(__file__).parents[2] / "examples" / "sense.flac"
SAID = (
    "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them."
)
BEGINS = (
    0.2, 0.37, 0.63, 0.98, 1.58, 1.84, 2.25, 2.71, 2.89, 3.44, 4.0, 4.33, 4.52, 4.79, 4.94, 5.46, 5.56, 5.75, 6.04,
    6.14, 6.35, 6.61,
)  # fmt: skip
ENDS = 6.79  # all words
BEGIN, FIRST, END = 50257, 50363, 50256


@pytest.fixture(scope="module")
def folder():
    found = kept_whisper()
    if found is None:
        pytest.skip("python tools/fetch_whisper.py FOLDER: Whisper is not in the cache")
    return found


@pytest.fixture(scope="module")
def model(folder):
    with opsin.load(folder, threads=2, pages="f32", sequences=8) as made:
        yield made


@pytest.fixture(scope="module")
def theirs(folder):
    """The class of transformers, with the folder's weights."""
    with open_checkpoint(folder) as checkpoint:
        states = {f"model.{name}": torch.from_numpy(checkpoint.read(name)) for name in checkpoint.names}
    config = transformers.WhisperConfig(
        vocab_size=51864, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536, pad_token_id=END, bos_token_id=END,
        eos_token_id=END, decoder_start_token_id=BEGIN,
    )  # fmt: skip
    made = transformers.WhisperForConditionalGeneration(config).eval()
    missing, unexpected = made.load_state_dict(states, strict=False)
    assert not unexpected
    assert set(missing) <= {"proj_out.weight"}
    made.tie_weights()
    made.set_attn_implementation("eager")  # which tells weights
    told = {
        "no_timestamps_token_id": FIRST - 1, "begin_suppress_tokens": [220, END], "is_multilingual": False,
        "max_initial_timestamp_index": 50, "prev_sot_token_id": BEGIN + 103, "max_length": 448,
    }  # fmt: skip
    for name, value in told.items():  # some are no attributes before
        setattr(made.generation_config, name, value)
    return made


@pytest.fixture(scope="module")
def logs():
    return window(log_mel(open_sound(RECORDING).samples, 80), 0, 3000)


@pytest.fixture(scope="module")
def heard(theirs, logs):
    """What transformers' encoder gives, [1500, 384]."""
    with torch.inference_mode():
        return theirs.model.encoder(torch.from_numpy(logs.T[None]))


@pytest.mark.parametrize(("form", "most"), [("f32", 1e-4), ("f16", 1e-3)])
def test_states_and_logits_equal_transformers(form, most, folder, tmp_path, theirs, heard, logs):
    """F16, as the weights were published, may be computed by integers."""
    from opsin.api.speech.looking import look

    path = convert(folder, tmp_path / "whisper.gguf", format=form).paths[0]
    with opsin.load(path, threads=2, pages="f32") as model:
        span = model.text.hearing.span(logs, 0)
        assert distance(model.text.engine.embed([span]), heard.last_hidden_state[0].numpy()) < most
        ids = [BEGIN, FIRST, *model.text.tokenizer.encode(" " + SAID)]
        with torch.inference_mode():
            wanted = theirs(encoder_outputs=heard, decoder_input_ids=torch.tensor([ids])).logits[0].numpy()
        got = look(model.text, Prompt.of([span]), ids, lambda weights: None)
        assert distance(got, wanted) < most


def test_the_recording_in_examples_is_read_at_the_moments_of_transformers(model, theirs, heard):
    segments = model.transcribe(RECORDING).segments
    assert "".join(segment.text for segment in segments).strip() == SAID
    with torch.inference_mode():
        made = theirs.generate(encoder_outputs=heard, return_timestamps=True)[0].tolist()
    moments = [(id - FIRST) * 0.02 for id in made if id >= FIRST]
    ours = [moment for segment in segments for moment in (segment.start, segment.end)]
    assert np.allclose(ours, moments, atol=0.2)


def test_words_begin_where_they_are_known_to(model):
    """By an aligner of phones: pocketsphinx 5.1.1 and its model of English, in two passes."""
    words = [word for segment in model.transcribe(RECORDING, words=True) for word in segment.words]
    off = np.abs([word.start for word in words] - np.array(BEGINS))
    assert np.median(off) <= 0.05 and np.mean(off <= 0.1) >= 0.9
    assert max(off) <= 0.3 and words[-1].end == pytest.approx(ENDS, abs=0.1)


def test_words_move_with_the_sound(model):
    samples = open_sound(RECORDING).samples
    late = np.concatenate([np.zeros(24_000, np.float32), samples])
    words, moved = ([w for s in model.transcribe(given, words=True) for w in s.words] for given in (samples, late))
    assert [word.text for word in words] == [word.text for word in moved]
    assert np.allclose([word.end for word in words], [word.end - 1.5 for word in moved], atol=0.1)


def test_several_at_once_are_written_as_alone(model):
    samples = open_sound(RECORDING).samples
    parts = [samples[: len(samples) - 8000 * n] for n in range(2)]
    alone = [[segment.ids for segment in model.transcribe(part)] for part in parts]
    made = [model.transcribe(part) for part in parts]
    assert [[segment.ids for segment in one] for one in made] == alone


def test_a_sentence_said_again_and_again_is_written_as_often(model):
    """It is packed as well as a loop; what is drawn for it at last was taken: 57 % of its words were wrong."""
    once = open_sound(RECORDING).samples
    told = model.transcribe(np.concatenate([once, np.zeros(8000, np.float32)] * 3), language="en")
    assert {segment.temperature for segment in told} == {0.0}
    assert told.text.count("in his power to do for them.") == 3
