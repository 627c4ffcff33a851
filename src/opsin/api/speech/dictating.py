"""A model that is talked to writes down what was said: a sound is cut into pieces, and each is asked about.

It tells no times. Some families were taught a prompt for it (`nn.writing.Dictation`), the others are asked in words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from opsin.api.answer import Answer
from opsin.api.audio import Audio
from opsin.api.prompt_options import PromptOptions
from opsin.api.question import Question
from opsin.api.replies import ReplyOptions
from opsin.api.reply_keywords import reply_options
from opsin.api.shorthand import Messages
from opsin.api.speech.segments import Segment
from opsin.api.speech.transcribing import TranscriptOptions
from opsin.api.speech.tries import Try, compression
from opsin.api.speech.words import UNSPACED
from opsin.engine.sampling import Sampling
from opsin.errors import RequestError
from opsin.media.mel import FRAMES, HOP
from opsin.media.pieces import pieces
from opsin.media.sound import RATE, Waveform, digest_of_samples
from opsin.nn.writing import Dictation
from opsin.spans import Patches
from opsin.text import Tokenizer

PIECE: Final = 30.0  # seconds: no family hears less at once
_FASTEST: Final = 25  # ids a second, quicker than which nobody speaks
_LEAST: Final = 64  # ids that any piece may have
_CODE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")  # of a language (RFC 5646), roughly
_ASKED = {
    "transcribe": "Write down exactly what is said in this recording, and nothing else.",
    "translate": "Write down what is said in this recording in English, and nothing else.",
}
_QUIET = reply_options({"think": False})


class Talks(Protocol):
    """What is wanted of a model."""

    name: str

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def picture_marker(self) -> str: ...
    def raw(self, pieces: Sequence[str | Sequence[int]], pictures: Sequence[Patches], *, salt: bytes) -> Question: ...
    def question(self, messages: Messages, options: PromptOptions) -> Question: ...
    def generate(self, question: Question, sampling: Sampling, *, reply: ReplyOptions | None) -> Answer: ...


@dataclass
class Dictating:
    """One sound on its way, as `Transcribing`: iterate over a segment a piece.

    Attributes:
        frames, done, language: as there; the language is None until somebody tells it.
    """

    model: Talks
    audio: Audio
    sound: Waveform
    options: TranscriptOptions
    check: Callable[[], None] = lambda: None
    frames: int = 0
    done: int = 0
    language: str | None = None
    _own: Dictation | None = field(init=False)

    def __post_init__(self) -> None:
        own, options = self.audio.dictation, self.options
        if own is not None and len(self.model.tokenizer.encode(own.token, special=True)) != 1:
            own = None  # another model with the same part for sound
        self._own = own
        if options.task not in _ASKED:
            raise RequestError(f"task={options.task!r:.40}", hint=f"give one of {', '.join(_ASKED)}")
        if own is not None and options.task == "translate":
            told = f"{self.model.name} writes down what was said, and translates nothing"
            raise RequestError(told, hint="load a model that translates")
        if own is not None and options.prompt and "{words}" not in own.prompt:
            raise RequestError(f"{self.model.name} takes no prompt with a recording", hint="leave it away")
        if options.language is not None:
            self.language = _checked(options.language, own)
        self.frames = max(1, int(self.sound.seconds * FRAMES))

    def __iter__(self) -> Iterator[Segment]:
        for first, last in pieces(self.sound.samples, PIECE):
            self.check()
            made = self._segment(first, last)
            self.done = last // HOP
            if made is not None:
                yield made
        self.done = self.frames

    def _segment(self, first: int, last: int) -> Segment | None:
        """What is said between two samples, if anything is."""
        samples = self.sound.samples[first:last]
        sound = replace(self.sound, samples=samples, digest=digest_of_samples(samples, self.sound.rate))
        patches, own = self.audio.prepare(sound), self._own
        question = self._asked(patches) if own is None else self._taught(patches, own)
        made, text = self._write(question, max(_LEAST, round(_FASTEST * sound.seconds)))
        if not text:
            return None
        begin = "" if first == 0 or self.language in UNSPACED else " "
        return Segment(
            start=round(first / RATE, 2), end=round(last / RATE, 2), text=begin + text, ids=made.ids,
            temperature=made.temperature, average_logprob=math.nan, compression_ratio=made.compression,
            no_speech=math.nan, frame=first // HOP,
        )  # fmt: skip

    def _asked(self, patches: Patches) -> Question:
        """In words, as anybody would ask."""
        options, words = self.options, _ASKED[self.options.task]
        words += f" It is spoken in the language {self.language}." if options.language is not None else ""
        words += f" These words may come: {options.prompt}" if options.prompt else ""
        asked = replace(_QUIET[0], salt=options.salt)
        return self.model.question([{"role": "user", "content": [patches, words]}], asked)

    def _taught(self, patches: Patches, own: Dictation) -> Question:
        """As the family was taught. What people wrote becomes ids of text, whatever it looks like."""
        told, code = "", self.language if self.options.language is not None else None
        if code is not None:
            told = own.told.format(code=code, name=own.languages.get(code, code))
        texts = {"{sound}": self.model.picture_marker, "{language}": told}
        pieces: list[str | Sequence[int]] = [""]
        for part in re.split(r"({\w+})", own.prompt):
            if part == "{words}":
                pieces += [self.model.tokenizer.encode(self.options.prompt), ""] if self.options.prompt else []
            else:
                pieces[-1] = f"{pieces[-1]}{texts.get(part, part)}"
        return self.model.raw(pieces, [patches], salt=self.options.salt)

    def _write(self, question: Question, most: int) -> tuple[Try, str]:
        """The first answer that does not go round, else the one that does it least, and what it says."""
        tries: list[tuple[Try, str]] = []
        for temperature in self.options.temperatures:
            sampling = Sampling(
                temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, seed=self.options.seed, max_tokens=most
            )
            answer = self.model.generate(question, sampling, reply=_QUIET[1])
            try:
                for _ in answer:
                    self.check()
            finally:
                answer.cancel()
            text = self._read(answer)
            ended = answer.reason != "length"
            tries.append((Try(tuple(answer.ids), temperature, math.nan, compression(text), ended=ended), text))
            if not tries[-1][0].goes_round(self.options.most_compression):
                return tries[-1]
        return min(tries, key=lambda made: made[0].compression)

    def _read(self, answer: Answer) -> str:
        """What it says, without the language that it may begin with, which is kept."""
        own, tokenizer, ids = self._own, self.model.tokenizer, answer.ids
        token = tokenizer.encode(own.token, special=True)[0] if own is not None else -1
        if own is None or token not in ids:
            return answer.text.strip()
        at = ids.index(token)
        codes = {name: code for code, name in own.languages.items()}
        told = tokenizer.decode(ids[:at]).split()[-1:]
        self.language = self.language or next((codes[name] for name in told if name in codes), None)
        return tokenizer.decode(ids[at + 1 :]).strip()


def _checked(code: str, own: Dictation | None) -> str:
    """Raises RequestError for a language that the model does not know, or that is no code."""
    known = own.languages if own is not None else {}
    found = code.strip().lower().partition("-")[0] if known else code.strip()
    if _CODE.fullmatch(found) is None or known and found not in known:
        told = f"it knows {', '.join(sorted(known))}" if known else "give a code, as de"
        raise RequestError(f"the model knows no language {code!r:.40}", hint=told)
    return found
