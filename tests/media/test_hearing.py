"""Files of sound, paths, open files and arrays become one channel at one rate; what is no sound is refused."""

from __future__ import annotations

import random
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import soundfile

from opsin.errors import RequestError
from opsin.media.hearing import open_sound
from opsin.media.sound import RATE, Sound, SoundLimits, Waveform

KINDS = [
    ("WAV", "PCM_U8", 0.02), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-4), ("WAV", "PCM_32", 1e-4),
    ("WAV", "FLOAT", 1e-4), ("WAV", "DOUBLE", 1e-4), ("WAV", "ULAW", 0.05), ("RF64", "PCM_16", 1e-4),
    ("WAVEX", "PCM_16", 1e-4), ("FLAC", "PCM_16", 1e-4), ("FLAC", "PCM_24", 1e-4), ("OGG", "VORBIS", 0.1),
    ("OGG", "OPUS", 0.1), ("MP3", "MPEG_LAYER_III", 0.1), ("AIFF", "PCM_16", 1e-4), ("CAF", "PCM_16", 1e-4),
]  # fmt: skip


def tone(hertz, seconds=0.5, rate=RATE, loud=0.5):
    return (loud * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def written(samples, rate=RATE, kind="WAV", subtype="PCM_16"):
    file = BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "subtype", "off"), KINDS)
def test_every_kind_gives_the_samples_that_were_written(kind, subtype, off):
    wanted = tone(440) * np.linspace(0, 1, RATE // 2, dtype=np.float32)
    sound = open_sound(written(wanted, kind=kind, subtype=subtype))
    assert sound.samples.dtype == np.float32 and sound.rate == RATE
    assert abs(len(sound.samples) - len(wanted)) <= (2400 if kind == "MP3" else 0)
    assert np.abs(sound.samples[: len(wanted)] - wanted).max() < off


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_another_rate_is_brought_to_ours(rate):
    sound = open_sound(written(tone(1000, rate=rate), rate))
    assert abs(len(sound.samples) - RATE // 2) <= 1
    middle = slice(2000, 6000)
    assert np.abs(sound.samples - tone(1000, 0.6)[: len(sound.samples)])[middle].max() < 1e-3


def test_what_no_sample_of_the_rate_can_hold_does_not_fold_back():
    sound = open_sound(written(tone(12_000, rate=48_000), 48_000))
    assert np.abs(sound.samples[1000:7000]).max() < 1e-4


def test_channels_are_mixed_into_one():
    left, right = tone(300), tone(700)
    sound = open_sound(written(np.stack([left, right], 1)))
    assert np.abs(sound.samples - (left + right) / 2).max() < 1e-4


def test_paths_open_files_and_arrays_give_the_same(tmp_path):
    samples = tone(500)
    data = written(samples, subtype="FLOAT")
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    heard = [open_sound(source) for source in (data, path, str(path), BytesIO(data), samples, memoryview(data))]
    heard.append(open_sound(np.stack([samples, samples], 1)))
    assert all(np.array_equal(sound.samples, samples) for sound in heard)
    assert open_sound(heard[0]) is heard[0]
    assert np.abs(open_sound((samples * 32768).astype(np.int16)).samples - samples).max() < 1e-4
    assert len(open_sound(heard[0], rate=8000).samples) == len(samples) // 2


def test_a_sound_of_samples_says_their_rate():
    given = tone(1000, rate=48_000)
    heard = open_sound(Sound(given, 48_000))
    assert heard.rate == RATE and len(heard.samples) == RATE // 2
    assert np.abs(heard.samples - tone(1000))[2000:6000].max() < 1e-3
    data = written(given, 48_000, subtype="FLOAT")
    assert np.array_equal(open_sound(Sound(data, 8000)).samples, open_sound(data).samples), "files say it themselves"


def test_equal_files_and_equal_samples_have_one_digest():
    samples, other = tone(500), tone(501)
    data = written(samples)
    given = [data, written(other), written(samples, 8000), samples, other, Sound(samples, 8000)]
    digests = [open_sound(source).digest for source in given]
    assert len(set(digests)) == len(digests)
    assert [open_sound(Sound(source)).digest for source in given[:5]] == digests[:5]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "an empty file"),
        (b"no sound at all", "of an unknown kind: it begins with b'no sound'"),
        (b"RIFF\x10\0\0\0WAVEjunk", "it cannot be decoded"),
        (b"fLaC" + bytes(60), "it cannot be decoded"),
        (written(np.zeros(0, np.float32)), "there is no sound in it"),
        (written(np.full(9, np.nan, np.float32), subtype="FLOAT"), "samples up to nan"),
        (written(np.full(9, 1e9, np.float32), subtype="FLOAT"), "samples up to 1e+09"),
        (np.zeros((2, 3, 4), np.float32), r"an array of shape [2, 3, 4]"),
        (np.zeros(9, np.int64), "an array of int64"),
        (7, "a int is no sound"),
        (Sound(7), "a int is no sound"),
        (Sound(tone(500), 0), "0 samples a second, 1000 to 768000 are read"),
        ("https://example.org/a.wav", "a URL, not a path"),
        ("nowhere.wav", "cannot be read"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(source, words):
    with pytest.raises(RequestError) as raised:
        open_sound(source, name="this")
    assert str(raised.value).startswith("this") and words in str(raised.value)
    assert raised.value.hint and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (SoundLimits(bytes=1000), "at most 1000"),
        (SoundLimits(seconds=0.4), "seconds of sound, at most 0"),
        (SoundLimits(channels=1), "2 channels, 1 to 1 are mixed"),
    ],
)
def test_limits_are_kept_by_files_and_arrays(limits, words):
    samples = np.stack([tone(500), tone(500)], 1)
    sources = [written(samples)] if limits.bytes == 1000 else [written(samples), samples]
    for source in sources:
        with pytest.raises(RequestError, match=words):
            open_sound(source, limits)


def test_a_long_sound_is_refused_by_its_header_alone():
    data = bytearray(written(np.zeros(100, np.float32), kind="RF64"))
    long = written(np.zeros(RATE * 60, np.int16), kind="FLAC")
    assert len(long) < 100_000 and data
    tracemalloc.start()
    with pytest.raises(RequestError, match="60 seconds of sound, at most 10"):
        open_sound(long, SoundLimits(seconds=10))
    assert tracemalloc.get_traced_memory()[1] < 400_000
    tracemalloc.stop()


def test_a_sound_tells_how_long_it_is():
    assert repr(Waveform(tone(100, 1.5))) == "<Waveform: 1.50 seconds at 16000 samples a second>"


def mutant(data, chance):
    made = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(min(len(made) or 1, chance.choice([64, 400, 1 << 20])))
        what = chance.randrange(4)
        if what == 0 and made:
            made[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        elif what == 1:
            made[at : at + 4] = chance.choice([0, 1, 255, 1 << 16, (1 << 31) - 1, (1 << 32) - 1]).to_bytes(4, "little")
        elif what == 2:
            del made[at : at + chance.randrange(40)]
        else:
            del made[max(8, at) :]
    return bytes(made)


@pytest.mark.parametrize(("kind", "subtype", "_"), KINDS)
def test_damaged_files_become_sound_or_one_error(kind, subtype, _, rounds=25):
    data, chance = written(tone(440, 0.1), kind=kind, subtype=subtype), random.Random(subtype)
    limits = SoundLimits(seconds=60)
    for _round in range(rounds):
        try:
            sound = open_sound(mutant(data, chance), limits)
        except RequestError as error:
            assert "\n" not in str(error)
        else:
            assert 0 < len(sound.samples) <= 60 * RATE + 1 and np.isfinite(sound.samples).all()
