"""What models hear, against transformers' feature extractor and float64 definitions."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.media import htk_mel, mel

transformers = pytest.importorskip("transformers")


def noise(samples, seed=0):
    random = np.random.default_rng(seed)
    loud = np.repeat(random.uniform(0, 1, -(-samples // 1600)) ** 3, 1600)[:samples]
    return (random.standard_normal(samples) * 0.3 * loud).astype(np.float32)


@pytest.mark.parametrize(("bands", "samples"), [(80, 1), (80, 150), (80, 200), (80, 16000), (128, 48123), (80, 479900)])
def test_a_short_sound_is_heard_as_transformers_hears_it(bands, samples):
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    sound = noise(samples)
    padded = np.pad(sound, (0, 480000 - samples))
    wanted = extractor._np_extract_fbank_features(padded[None], "cpu")[0].T
    ours = mel.window(mel.log_mel(sound, bands), 0, 3000)
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() < 1e-5


@pytest.mark.parametrize(("bands", "samples"), [(128, 8000), (80, 16001), (128, 48123)])
def test_a_sound_with_nothing_behind_it_is_heard_as_transformers_hears_it(bands, samples):
    extractor = transformers.Qwen3ASRFeatureExtractor(feature_size=bands)
    sound = noise(samples)
    wanted = extractor(sound, sampling_rate=16_000, padding=True, n_window=0).input_features[0].numpy().T
    ours = mel.whole_log_mel(sound, bands)
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() < 1e-5


def test_pieces_of_a_long_sound_are_heard_as_the_whole(monkeypatch):
    sound = noise(100_000, 3)
    whole = mel.log_mel(sound, 80)
    monkeypatch.setattr(mel, "_PIECE", 77)
    assert np.array_equal(mel.log_mel(sound, 80), whole)


@pytest.mark.parametrize(("bands", "samples"), [(128, 161), (128, 16_007), (64, 48_001), (128, 480_000)])
def test_a_sound_is_heard_by_htks_scale_as_transformers_hears_it(bands, samples):
    sound = noise(samples)
    made = transformers.Gemma4AudioFeatureExtractor(feature_size=bands)([sound], return_tensors="np")
    wanted, ours = made.input_features[0][made.input_features_mask[0]], htk_mel.htk_log_mel(sound, bands)
    assert ours.shape == wanted.shape == (htk_mel.whole_frames(samples), bands)
    assert np.abs(ours - wanted).max() < 1e-5


@pytest.mark.parametrize("bands", [80, 128])
def test_the_bands_are_slaneys(bands):
    wanted = transformers.WhisperFeatureExtractor(feature_size=bands).mel_filters
    assert np.abs(mel.mel_filters(bands) - wanted).max() < 1e-12


def test_behind_the_end_there_is_silence():
    logs = mel.log_mel(noise(16000), 80)
    part = mel.window(logs, 60, 100)
    assert np.array_equal(part[:40], logs[60:100])
    assert np.all(part[42:] == part[-1, 0])
    assert part[-1, 0] == logs.min() >= logs.max() - 2
