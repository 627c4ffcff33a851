"""Transcripts as files: plain text, subtitles (SubRip, WebVTT), JSON as OpenAI's transcriptions have it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from opsin.api.speech.segments import Segment, Word

FORMATS: Final = ("txt", "srt", "vtt", "json")


def plain(segments: Iterable[Segment]) -> str:
    """A line a segment."""
    return "".join(f"{_line(segment)}\n" for segment in segments)


def subrip(segments: Iterable[Segment]) -> str:
    """Subtitles with numbers and commas."""
    return "".join(
        f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n{_cue(segment)}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def webvtt(segments: Iterable[Segment]) -> str:
    """Subtitles for browsers (W3C)."""
    cues = (f"{clock(s.start, '.')} --> {clock(s.end, '.')}\n{_escaped(_cue(s))}\n\n" for s in segments)
    return "WEBVTT\n\n" + "".join(cues)


def described(segment: Segment, number: int) -> dict[str, object]:
    """A segment in OpenAI's words."""
    return {
        "id": number,
        "seek": segment.frame,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.ids),
        "temperature": segment.temperature,
        "avg_logprob": segment.average_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech,
    }


def told(
    segments: Iterable[Segment], *, task: str, language: str | None, seconds: float, timed: bool = True
) -> dict[str, object]:
    """A whole transcript in OpenAI's words: verbose_json, without segments where these tell no times."""
    listed = list(segments)
    words = [word for segment in listed for word in segment.words]
    whole: dict[str, object] = {
        "task": task,
        "language": language or ("en" if timed else None),
        "duration": round(seconds, 3),
        "text": "".join(segment.text for segment in listed).strip(),
    }
    if timed:
        whole["segments"] = [described(segment, number) for number, segment in enumerate(listed)]
    return whole | ({"words": [_word(word) for word in words]} if words else {})


def _word(word: Word) -> dict[str, object]:
    return {"word": word.text.strip(), "start": word.start, "end": word.end, "probability": word.probability}


def as_json(segments: Iterable[Segment], *, task: str, language: str | None, seconds: float, timed: bool = True) -> str:
    """The same as a file."""
    whole = told(segments, task=task, language=language, seconds=seconds, timed=timed)
    return json.dumps(whole, ensure_ascii=False) + "\n"


def clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and thousandths, as 00:01:02,345."""
    whole = round(seconds * 1000)
    minutes, rest = divmod(whole, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _line(segment: Segment) -> str:
    return " ".join(segment.text.split())


def _cue(segment: Segment) -> str:
    """An arrow within a text would begin another cue."""
    return _line(segment).replace("-->", "->")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
