"""Files become films: frames by number in any order, limits before anything is decoded, and damaged files."""

from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import pytest
from made_videos import decoded, made_video

from opsin.errors import RequestError
from opsin.media import container
from opsin.media.budget import PictureBudget
from opsin.media.film import FrameChoice, VideoLimits
from opsin.media.video_file import open_film

pytest.importorskip("av")

KINDS = [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "libx264")]


@pytest.fixture(scope="module")
def data():
    return made_video()


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_frames_come_in_any_order(kind, codec):
    data = made_video(kind=kind, codec=codec)
    film, all_frames = open_film(data), decoded(data)
    assert (len(film), film.size, film.rate) == (35, (64, 48), 10.0)
    assert np.allclose(film.times, np.arange(35) / 10, atol=2e-3)
    for number in (0, 5, 5, 6, 34, 3, 20, 12, 11, 13, 33, 2):
        assert np.array_equal(np.asarray(film.decode(number)), all_frames[number]), number


def test_an_animated_gif_is_a_film():
    from io import BytesIO

    from PIL import Image

    frames = [Image.new("RGB", (20, 10), (40 * i, 0, 0)) for i in range(5)]
    buffer = BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=200)
    film = open_film(buffer.getvalue())
    assert (len(film), film.size) == (5, (20, 10))
    assert film.times.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert np.asarray(film.decode(3))[0, 0, 0] == pytest.approx(120, abs=3)


def test_a_film_is_the_same_for_equal_bytes_and_a_frame_has_its_own_digest(data):
    film, again = open_film(data), open_film(bytes(data))
    assert film.digest == again.digest != open_film(made_video(34)).digest
    assert film.digest_of(3) == again.digest_of(3) != film.digest_of(4)
    unseen, seen = film.unseen(3), film.picture(3)
    assert (unseen.size, unseen.digest) == (seen.size, seen.digest)


@pytest.mark.parametrize(("limits", "words"), [
    (VideoLimits(bytes=100), "bytes, at most 100"), (VideoLimits(seconds=3), "3.4 seconds, at most 3.0"),
    (VideoLimits(frames=30), "more than 30 frames"), (VideoLimits(pixels=3000), "frames of 64 x 48 pixels"),
    (VideoLimits(decoded=100_000), "35 frames of 64 x 48"),
])  # fmt: skip
def test_limits_hold_before_a_frame_is_decoded(data, limits, words, monkeypatch):
    monkeypatch.setattr("opsin.media.video_file._VideoFile._find", None)
    with pytest.raises(RequestError, match=words):
        open_film(data, limits)


def test_a_frame_that_is_larger_than_its_file_says_is_not_decoded(data, monkeypatch):
    monkeypatch.setitem(container.MOST, "max_pixels", "3000")
    with pytest.raises(RequestError, match="a damaged or truncated"):
        open_film(data)


@pytest.mark.parametrize(("given", "words"), [
    (b"", "an empty file"), (b"%PDF-1.7 ...", "unknown kind"), (b"#EXTM3U\nhttp://a/b", "unknown kind"),
    (b"\0\0\0\x18ftypisom" + bytes(100), "damaged or truncated"), (b"\x1a\x45\xdf\xa3" + bytes(50), "damaged"),
])  # fmt: skip
def test_what_is_no_video_is_refused(given, words):
    with pytest.raises(RequestError, match=words) as caught:
        open_film(given)
    assert caught.value.hint


def test_sound_alone_is_no_video():
    import io

    import av
    from made_videos import _tone

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(stream.encode(_tone(0.5)))
        container.mux(stream.encode(None))
    with pytest.raises(RequestError, match="there is no video in it"):
        open_film(buffer.getvalue())


def test_what_a_file_names_besides_is_not_opened(data, monkeypatch):
    """A QuickTime file may say that its frames lie elsewhere."""
    seen = []
    monkeypatch.setattr("opsin.media.container._refuse", lambda *given: seen.append(given))
    moved = data.replace(b"url \0\0\0\x01", b"url \0\0\0\0")  # no longer "in this file"
    with suppress(RequestError):
        open_film(moved)
    assert seen == []


def test_without_pyav_the_message_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RequestError) as caught:
        open_film(data)
    assert "opsin[video]" in str(caught.value.hint)


def test_a_truncated_video_has_the_frames_that_are_there():
    data = made_video(40, kind="matroska", gop=10)
    film = open_film(data[: len(data) * 2 // 3])
    assert 0 < len(film) < 40
    assert np.asarray(film.decode(0)).shape == (48, 64, 3)


def test_damaged_videos_are_films_or_refused_and_end_soon():
    """A few here; `python tests/media/fuzz_videos.py` goes on."""
    from fuzz_videos import mutants, tried

    outcomes = [tried(mutant) for mutant in mutants(60, seed=1)]
    assert len(outcomes) == 60
    assert set(outcomes) <= {"film", "refused"}
    assert outcomes.count("refused") and outcomes.count("film")


@pytest.mark.parametrize("fields", [
    {"fps": 0}, {"fps": -1}, {"fps": 1000}, {"fps": True}, {"fps": float("nan")}, {"fps": "2"}, {"frames": 0},
    {"frames": 1.5}, {"max_video_tokens": 0}, {"max_video_tokens": True},
])  # fmt: skip
def test_a_choice_of_frames_is_numbers_in_their_range(fields):
    with pytest.raises(RequestError) as caught:
        FrameChoice.read(fields, "messages[0].content[1]")
    assert caught.value.param == f"messages[0].content[1].{next(iter(fields))}"


def test_a_choice_holds_before_an_outer_one_and_of_two_token_numbers_the_smaller():
    outer = FrameChoice(fps=2, frames=50, max_video_tokens=900)
    assert FrameChoice().within(outer) == outer
    assert FrameChoice(frames=8).within(outer) == FrameChoice(frames=8, max_video_tokens=900)
    assert FrameChoice(max_video_tokens=100).within(outer).max_video_tokens == 100
    film = open_film(made_video(4)).asked(outer, PictureBudget("low"))
    assert (film.choice, film.unseen(0).budget.detail) == (outer, "low")
