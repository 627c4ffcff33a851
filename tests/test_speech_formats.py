"""Transcripts as files that other programs read."""

from __future__ import annotations

import json

import pytest

from opsin.api.speech.formats import as_json, clock, plain, subrip, webvtt
from opsin.api.speech.segments import Segment


def segment(start, end, text):
    return Segment(start, end, text, (5, 6), 0.0, -0.25, 1.5, 0.01, 300)


SAID = [segment(0.0, 2.5, " Go & see <that>."), segment(3661.04, 3662.0, " A --> B,\nthen C.")]


def test_plain_text_has_a_line_a_segment():
    assert plain(SAID) == "Go & see <that>.\nA --> B, then C.\n"


def test_subrip_counts_and_no_text_begins_a_cue():
    assert subrip(SAID) == (
        "1\n00:00:00,000 --> 00:00:02,500\nGo & see <that>.\n\n2\n01:01:01,040 --> 01:01:02,000\nA -> B, then C.\n\n"
    )


def test_webvtt_escapes_what_would_be_a_tag():
    assert webvtt(SAID) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nGo &amp; see &lt;that&gt;.\n\n"
        "01:01:01.040 --> 01:01:02.000\nA -&gt; B, then C.\n\n"
    )


def test_json_is_openais():
    told = json.loads(as_json(SAID, task="transcribe", language="de", seconds=4.25))
    assert (told["task"], told["language"], told["duration"]) == ("transcribe", "de", 4.25)
    assert told["text"] == "Go & see <that>. A --> B,\nthen C."
    assert told["segments"][1] == {
        "id": 1, "seek": 300, "start": 3661.04, "end": 3662.0, "text": " A --> B,\nthen C.", "tokens": [5, 6],
        "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.5, "no_speech_prob": 0.01,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "00:00:00,000"), (59.9996, "00:01:00,000"), (360000, "100:00:00,000")]
)
def test_moments_are_rounded_to_thousandths(seconds, shown):
    assert clock(seconds, ",") == shown
