"""/v1/audio/transcriptions and /translations: a recording in a form, what was said in it as OpenAI tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.responses import JSONResponse, PlainTextResponse, Response

from opsin.api.speech.formats import plain, subrip, told, webvtt
from opsin.api.speech.segments import Segment
from opsin.api.speech.transcript import Transcript
from opsin.errors import FieldError
from opsin.serve.exchange import Exchange
from opsin.serve.multipart import FormBody, FormFile
from opsin.serve.prompt_fields import salt_of
from opsin.serve.service import Service

_TIMED: Final = ("srt", "verbose_json", "vtt")
_FORMATS: Final = ("json", "text", *_TIMED)
_GRAIN: Final = "timestamp_granularities[]"
_TEXTS: Final[Mapping[str, Any]] = {
    "model": "Its name.",
    "prompt": "Names and words that may come, as they are spelt.",
    "language": "A code of what is spoken, as de; without, it is heard.",
    _GRAIN: "segment or word, of verbose_json.",
}
FORM: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG, Opus, MP3, M4A, MP4 or WebM."},
        **{name: {"type": "string", "description": about} for name, about in _TEXTS.items()},
        "response_format": {"type": "string", "enum": [*_FORMATS]},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
        "stream": {"type": "boolean", "description": "Send what is written as it comes, as events."},
    },
}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a form asks for."""

    file: FormFile
    format: str
    language: str | None
    prompt: str
    temperature: float | None
    stream: bool
    task: str
    words: bool


class TranscriptionRoutes:
    """Of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def transcribe(self, exchange: Exchange) -> None:
        """What is said in a recording."""
        await self._answer(exchange, "transcribe")

    async def translate(self, exchange: Exchange) -> None:
        """What is said in a recording, in English."""
        await self._answer(exchange, "translate")

    async def _answer(self, exchange: Exchange, task: str) -> None:
        service = self._service
        form = await service.form(exchange.body, exchange.request.headers.get("content-type", ""))
        asked = _asked(form, task)
        with service.admit():
            exchange.ping_seconds = service.options.ping_seconds if asked.stream else 0.0
            async with exchange:
                begin = partial(_begin, service, asked, salt_of(None, exchange.tenant))
                made = await service.prompt(exchange.body, begin)
                if asked.stream:
                    await self._stream(exchange, made)
                else:
                    await exchange.respond(await service.work(partial(_whole, made, asked)))

    async def _stream(self, exchange: Exchange, made: Transcript) -> None:
        """A piece of text a segment, then all of it."""
        written: list[str] = []
        while (segment := await self._service.work(made.next_segment)) is not None:
            written.append(segment.text if written else segment.text.lstrip())
            await exchange.event({"type": "transcript.text.delta", "delta": written[-1]})
        await exchange.event({"type": "transcript.text.done", "text": "".join(written).strip(), "usage": _usage(made)})
        await exchange.end()


def _asked(form: FormBody, task: str) -> TranscriptionRequest:
    """Raises FieldError, naming the field."""
    file = form.file("file")
    if file is None:
        raise FieldError("file", "there is none", hint="send it as multipart/form-data, with a file name")
    format = form.value("response_format") or "json"
    if format not in _FORMATS:
        raise FieldError("response_format", f"{format!r:.40} is unknown", hint=f"give one of {', '.join(_FORMATS)}")
    grains = {*form.values(_GRAIN), *form.values("timestamp_granularities")}
    strange = sorted(grains - {"segment", "word"})
    if strange:
        raise FieldError(_GRAIN, f"{strange[0]!r:.40} is unknown", hint="ask for segment, or word")
    if grains and format != "verbose_json":
        raise FieldError(_GRAIN, f"with response_format {format}", hint="send response_format verbose_json")
    stream = (form.value("stream") or "false").lower()
    if stream not in ("true", "false", "1", "0"):
        raise FieldError("stream", f"{stream!r:.40} is neither true nor false", hint="send true or false")
    return TranscriptionRequest(
        file, format, form.value("language") or None, form.value("prompt") or "", _temperature(form),
        stream in ("true", "1"), task, "word" in grains,
    )  # fmt: skip


def _temperature(form: FormBody) -> float | None:
    """None for the usual, which OpenAI's 0 is, too: higher ones are tried where it reads badly."""
    given = form.value("temperature")
    try:
        value = float(given or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise FieldError("temperature", f"{given!r:.40} is out of range", hint="give 0 to 1")
    return value or None


def _begin(service: Service, asked: TranscriptionRequest, salt: bytes, *, check: Callable[[], None]) -> Transcript:
    """Decode, and check what is wanted of the model."""
    return service.model.transcribe(
        asked.file.data, language=asked.language, task=asked.task, prompt=asked.prompt, temperature=asked.temperature,
        timed=True if asked.format in _TIMED else None, words=asked.words, name="file", check=check, salt=salt,
    )  # fmt: skip


def _whole(made: Transcript, asked: TranscriptionRequest, *, check: Callable[[], None]) -> Response:
    """All of it, in the format that was asked for."""
    segments: list[Segment] = []
    while (segment := made.next_segment(check=check)) is not None:
        segments.append(segment)
    text = {"text": plain, "srt": subrip, "vtt": webvtt}.get(asked.format)
    if text is not None:
        return PlainTextResponse(text(segments))
    whole = told(segments, task=asked.task, language=made.language, seconds=made.seconds)
    usage = {"usage": _usage(made)}
    return JSONResponse(whole | usage if asked.format == "verbose_json" else {"text": whole["text"]} | usage)


def _usage(made: Transcript) -> dict[str, object]:
    """Of sound, whole seconds count."""
    return {"type": "duration", "seconds": max(1, round(made.seconds))}
