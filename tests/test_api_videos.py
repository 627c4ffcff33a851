"""Videos in the Python surface, on a tiny random model that knows no films: frames as pictures behind their times."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sight import ROWS, tiny_pair

import opsin
from opsin.api.videos import LaidOut, Video
from opsin.media import video_file
from opsin.media.budget import PictureBudget
from opsin.media.film import VideoLimits
from opsin.spans import MediaSpan

sys.path.append(str(Path(__file__).parent / "media"))
from made_videos import made_frames, made_video

OPTIONS = {"temperature": 20.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3, "max_tokens": 6, "ignore_eos": True}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def model(pair):
    with opsin.load(pair[0], threads=2, context=1024, sequences=4) as made:
        yield made


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("av")
    return made_video()


def ask(*parts):
    return [{"role": "user", "content": list(parts)}]


def frames_of(model, *parts):
    return [span for span in model.chat_prompt(ask(*parts)).spans if isinstance(span, MediaSpan)]


def text_of(model, *parts):
    return model.question(ask(*parts)).text


def test_frames_stand_behind_their_times(model):
    frames = made_frames(8)
    video = Video(frames, frames=4, rate=0.1)
    assert [f"[00:{s:02d}]" in text_of(model, "See: ", video, "?") for s in (0, 20, 50)] == [True, True, True]
    assert "[01:10]" in text_of(model, "See: ", video, "?")
    spans = frames_of(model, video)
    pictures = frames_of(model, *(Image.fromarray(frames[n]) for n in (0, 2, 5, 7)))
    made = [[s.features.make() for s in group] for group in (spans, pictures)]
    assert len(spans) == 4 and all(np.array_equal(a, b) for a, b in zip(*made, strict=True))


def test_an_array_and_a_list_of_its_frames_are_one_video(model):
    frames = made_frames(4)
    first, second = (frames_of(model, Video(source)) for source in (np.stack(frames), frames))
    assert [span.digest for span in first] == [span.digest for span in second]


def test_a_file_answers_as_its_path_its_bytes_and_its_urls(model, clip, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    plain = base64.b64encode(clip).decode()
    url = f"data:video/mp4;base64,{plain}"
    said = [
        Video(path, fps=1), Video(clip, fps=1), {"type": "video", "video": clip, "fps": 1},
        {"type": "video_url", "video_url": {"url": url, "fps": 1}}, {"type": "video_url", "video_url": url, "fps": 1},
        {"type": "input_video", "input_video": {"data": plain}, "fps": 1},
        {"type": "input_video", "input_video": {"url": url}, "fps": 1},
    ]  # fmt: skip
    answers = [model.chat(ask("What?", part), **OPTIONS).text for part in said]
    assert len(set(answers)) == 1
    assert model.chat(ask("What?", Video(clip, frames=2)), **OPTIONS).text != answers[0]


def test_a_video_is_counted_before_a_frame_of_it_is_decoded(model, clip, monkeypatch):
    laid = Video(clip, fps=2).on(model)
    monkeypatch.setattr("opsin.media.video_file._VideoFile.image", lambda self, number: pytest.fail(str(number)))
    again = Video(clip, fps=2).on(model)
    assert (laid.tokens, again.tokens) == (7 * ROWS, 7 * ROWS)
    assert "35 frames" in repr(laid) and isinstance(again, LaidOut)


def resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_ten_minutes_are_counted_before_and_read_in_little_memory(model, monkeypatch):
    pytest.importorskip("av")
    size, decoded, right = (320, 240), [], video_file._VideoFile.image
    monkeypatch.setattr(
        video_file._VideoFile, "image", lambda self, number: decoded.append(number) or right(self, number)
    )
    laid = Video(made_video(600, 1, size, codec="mpeg4"), fps=1).on(model)
    assert not decoded
    spans = [span for part in laid.parts if not isinstance(part, str) for span in part.spans]
    assert (laid.tokens, len(spans), len({span.digest for span in spans})) == (600 * ROWS, 600, 600)
    taken = []
    for span in spans:
        assert span.features.make().shape == span.features.shape
        taken.append(resident())
    assert decoded == [*range(600)]
    assert max(taken) - taken[50] < 100 * 3 * size[0] * size[1]  # of 600 frames


def test_what_was_counted_is_asked_about(model, clip):
    laid = Video(clip, fps=1).on(model)
    answers = [model.chat(ask("What?", part), **OPTIONS).text for part in (laid, Video(clip, fps=1))]
    assert answers[0] == answers[1]


def test_notes_tell_how_much_is_looked_at(model, clip):
    asked = model.question(ask("What?", Video(clip, fps=1)))
    assert asked.pictures[0].notes == ("3 of 35 frames of a video of 3.5 seconds",)
    assert [use.notes for use in asked.pictures[1:]] == [(), ()]


def test_max_video_tokens_holds(model):
    laid = Video(made_frames(20), frames=20, max_video_tokens=5 * ROWS).on(model)
    assert 0 < laid.tokens <= 5 * ROWS
    with pytest.raises(opsin.RequestError, match="one frame takes"):
        Video(made_frames(3), max_video_tokens=1).on(model)


def test_a_video_that_the_context_cannot_hold_is_refused_and_named(model):
    with pytest.raises(opsin.ContextError, match=r"messages\[0\].content\[1\], a video .*exceeds the available"):
        model.chat_prompt(ask("What?", Video(made_frames(200), frames=200)))


def test_files_that_wait_count_against_the_limit_of_bytes_until_nobody_holds_them(model, clip):
    used = model.senses.budgets.files.used
    laid = Video(clip).on(model)
    assert model.senses.budgets.files.used == used + len(clip)
    del laid
    assert model.senses.budgets.files.used == used


@pytest.mark.parametrize(("part", "said"), [
    (Video(b""), r"messages\[0\].content\[1\]: an empty file"), (Video(7), r"content\[1\]: a int is no video"),
    (Video([]), "a list is no video"), (Video(np.zeros((3, 4))), "an array of shape"),
    (Video(made_frames(2), fps=0), "fps: 0 is out of range"), (Video(made_frames(2), rate=0), "rate is 0"),
    ({"type": "video_url"}, r"content\[1\]: there is no video_url"), ({"type": "video"}, "there is no video"),
    ({"type": "video_url", "video_url": {"url": "/etc/passwd"}}, "local files may not be read"),
    ({"type": "input_video", "input_video": {"data": "AAAA"}}, r"content\[1\]: of an unknown kind"),
    ({"type": "video_url", "video_url": "http://127.0.0.1:9/a.mp4"}, r"content\[1\]: "),
    ({"type": "video_url", "video_url": {"url": "data:,a", "fps": -1}}, r"content\[1\].video_url.fps: -1"),
])  # fmt: skip
def test_what_is_no_video_is_refused_and_named(model, part, said):
    with pytest.raises(opsin.RequestError, match=said):
        model.chat_prompt(ask("What?", part))


def test_a_model_of_text_says_so(tmp_path):
    from tiny import tiny_llama

    reads = opsin.load(tiny_llama(tmp_path / "text.gguf"), threads=1, context=64)
    with reads, pytest.raises(opsin.RequestError, match=r"content\[0\]: is a video, and this model does not see"):
        reads.chat_prompt(ask(Video(made_frames(2))))


def test_limits_and_budgets_reach_a_video(model, clip):
    with pytest.raises(opsin.RequestError, match="clip: .*3.4 seconds, at most 1.0"):
        Video(clip).on(model, "clip", VideoLimits(seconds=1))
    laid = Video(clip, budget=PictureBudget(max_image_tokens=1)).on(model)
    assert laid.film.budget.max_image_tokens == 1
