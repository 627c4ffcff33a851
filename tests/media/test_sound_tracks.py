"""M4A, MP4, WebM and their like become one channel at one rate: as written, from its first sample on, and in limits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from made_tracks import RATE, made_track
from made_videos import made_video

from opsin.errors import RequestError
from opsin.media import container
from opsin.media.hearing import check_sound, open_sound
from opsin.media.sound import SoundLimits, is_sound

pytest.importorskip("av")

# kind, codec, rate, samples that the start may be off, and how loud what is off may be beside what was written
KINDS = [
    ("ipod", "aac", 16_000, 0, 0.1), ("mp4", "aac", 44_100, 1, 0.1), ("adts", "aac", 16_000, 1024, 0.1),
    ("webm", "libopus", 48_000, 1, 0.1), ("matroska", "aac", 16_000, 0, 0.1), ("matroska", "flac", 16_000, 0, 1e-4),
    ("mp4", "alac", 16_000, 0, 1e-4), ("mov", "pcm_s16le", 16_000, 0, 1e-4), ("avi", "pcm_u8", 16_000, 0, 0.03),
    ("matroska", "pcm_s24le", 16_000, 0, 1e-4), ("mov", "pcm_f32le", 16_000, 0, 1e-6),
    ("mpegts", "aac", 16_000, 1024, 0.1), ("mp4", "libmp3lame", 16_000, 1, 0.1), ("matroska", "ac3", 48_000, 120, 0.1),
]  # fmt: skip


def melody(seconds=1.5, rate=RATE):
    """A tone that rises and swells: only one offset fits it."""
    times = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (300 * times + 400 * times**2)) * np.sin(3 * times) ** 2).astype(np.float32)


def late_by(heard, wanted):
    """Samples that one sound begins behind the other, where they are most alike."""
    offsets = range(-1500, 1501)
    middle = wanted[4000:12_000]
    return max(offsets, key=lambda offset: float(middle @ heard[4000 + offset : 12_000 + offset]))


@pytest.mark.parametrize(("kind", "codec", "rate", "late", "off"), KINDS)
def test_every_kind_gives_what_was_written_from_its_first_sample_on(kind, codec, rate, late, off):
    wanted = melody()
    sound = open_sound(made_track(melody(rate=rate), kind, codec, rate))
    assert sound.rate == RATE and sound.samples.dtype == np.float32
    assert len(wanted) <= len(sound.samples) + 64 and len(sound.samples) < len(wanted) + 2600
    found = late_by(sound.samples, wanted)
    assert abs(found) <= late if late < 1000 else found == late
    heard = sound.samples[4000 + found : 20_000 + found]
    assert np.linalg.norm(heard - wanted[4000:20_000]) < off * np.linalg.norm(wanted[4000:20_000])


@pytest.mark.parametrize(("kind", "codec"), [("mov", "pcm_s16le"), ("mp4", "alac"), ("matroska", "flac")])
def test_channels_are_mixed_whether_they_lie_side_by_side_or_not(kind, codec):
    left, right = melody(), melody()[::-1] * np.float32(0.5)
    sound = open_sound(made_track(np.stack([left, right]), kind, codec))
    assert np.abs(sound.samples[: len(left)] - (left + right) / 2).max() < 1e-4


def test_the_sound_of_a_video_is_heard():
    sound = open_sound(made_video(20, sound=True))
    assert sound.seconds == pytest.approx(2, abs=0.15) and np.abs(sound.samples).max() > 0.3


@pytest.mark.parametrize("kind", ["matroska", "mp4"])
def test_where_a_file_is_silent_for_a_while_what_follows_is_not_early(kind):
    """Recorders leave silence out, and say so by the times of what follows."""
    wanted, first = melody(), 12_288  # whole frames
    sound = open_sound(made_track(wanted, kind, "alac" if kind == "mp4" else "pcm_s16le", late=[(first, 2.0)]))
    assert np.abs(sound.samples[first + 2 * RATE :][:9000] - wanted[first:][:9000]).max() < 1e-3
    assert np.abs(sound.samples[:first] - wanted[:first]).max() < 1e-3
    assert np.abs(sound.samples[first + 20 : first + 2 * RATE - 20]).max() == 0


@pytest.mark.parametrize(("limits", "words"), [
    (SoundLimits(bytes=1000), "at most 1000"), (SoundLimits(seconds=1), "2 seconds of sound, at most 1"),
    (SoundLimits(channels=1), "2 channels, 1 to 1 are mixed"),
])  # fmt: skip
@pytest.mark.parametrize(("kind", "codec"), [("ipod", "aac"), ("matroska", "flac")])
def test_limits_hold_before_anything_is_decoded(limits, words, kind, codec, monkeypatch):
    data = made_track(np.stack([melody(2)] * 2), kind, codec)
    monkeypatch.setattr("opsin.media.sound_track._values", None)
    for ask in (open_sound, check_sound):
        with pytest.raises(RequestError, match=words):
            ask(data, limits)


def test_a_file_that_does_not_say_how_long_it_is_is_read_no_further_than_its_limit(monkeypatch):
    decoded = []
    monkeypatch.setattr("opsin.media.sound_track._values", lambda frame: decoded.append(0) or np.zeros((1024, 1), "f4"))
    with pytest.raises(RequestError, match="more than 1 seconds of sound, at most 1"):
        open_sound(made_track(melody(20), "adts"), SoundLimits(seconds=1))
    assert len(decoded) == 16


def test_a_frame_has_so_many_samples_at_most(monkeypatch):
    monkeypatch.setitem(container.MOST, "max_samples", "1000")
    with pytest.raises(RequestError, match="a damaged or truncated"):
        open_sound(made_track(melody()))


def test_silence_that_times_claim_counts_too():
    data = made_track(melody(), "matroska", "flac", late=[(12_288, 500.0)])
    header = data.replace(b"\x44\x89\x88", b"\x44\x8a\x88")  # the header no longer tells a duration
    with pytest.raises(RequestError, match="more than .* seconds of sound, at most 60"):
        open_sound(header, SoundLimits(seconds=60))


def test_what_holds_no_sound_that_is_decoded_says_so():
    with pytest.raises(RequestError, match="there is no sound in it"):
        open_sound(made_video(3))
    with pytest.raises(RequestError, match="coded as adpcm_ms, which is not decoded"):
        open_sound(made_track(melody(), "avi", "adpcm_ms"))
    for data in (b"\0\0\0\x20ftypM4A ", made_track(melody())[:3000], b"\x1a\x45\xdf\xa3 webm"):
        with pytest.raises(RequestError, match="a damaged or truncated"):
            open_sound(data)


def test_titles_that_are_no_text_keep_nobody_from_hearing():
    data = made_track(melody(), "matroska")
    assert b"Lavf" in data
    assert open_sound(data.replace(b"Lavf", b"\xff\xfe\xc3(")).seconds == open_sound(data).seconds


def test_without_pyav_the_message_says_what_to_install(monkeypatch):
    data = made_track(melody())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RequestError) as caught:
        open_sound(data, name="talk.m4a")
    assert str(caught.value).startswith("talk.m4a: it is read by PyAV") and "opsin[video]" in str(caught.value.hint)


def test_files_of_sound_alone_are_told_by_their_first_bytes():
    assert is_sound(made_track(melody())[:32]) and is_sound(made_track(melody(), "adts")[:32])
    assert not is_sound(made_video(2)[:32])
