"""What was said in a sound: segments as they come, and all of it in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from opsin.api.senses import Senses
from opsin.api.text_part import Text
from opsin.errors import RequestError
from opsin.process import Stays

if TYPE_CHECKING:
    from opsin.api.speech.dictating import Dictating, Talks
    from opsin.api.speech.segments import Segment
    from opsin.api.speech.transcribing import Transcribing
    from opsin.media.hearing import Heard
    from opsin.media.sound import SoundLimits, Waveform


class Transcript(Stays):
    """Iterate over segments as they are written; `text` waits for all of them. One thread reads it.

    Attributes:
        sound: what was heard.
        timed: whether segments tell when what they hold was said; else they are pieces of the sound.
    """

    def __init__(self, work: Transcribing | Dictating, *, timed: bool) -> None:
        self.sound: Waveform = work.sound
        self.timed = timed
        self._work, self._coming = work, iter(work)
        self._segments: list[Segment] = []  # those that are written

    def __iter__(self) -> Iterator[Segment]:
        at = 0
        while True:
            while at < len(self._segments):
                at += 1
                yield self._segments[at - 1]
            if self.next_segment(check=self._work.check) is None:
                return

    def next_segment(self, *, check: Callable[[], None]) -> Segment | None:
        """The next one that is written, or None at the end. `check` takes the place of the one before."""
        self._work.check = check
        made = next(self._coming, None)
        if made is not None:
            self._segments.append(made)
        return made

    def __repr__(self) -> str:
        return f"<Transcript of {self.sound!r}: {self.done:.0%} written>"

    @property
    def segments(self) -> list[Segment]:
        """All of them."""
        return list(self)

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(segment.text for segment in self).strip()

    @property
    def language(self) -> str | None:
        """The code of what is spoken: told, or heard in the first window; None where the model cannot tell."""
        if self._work.language is None:
            next(iter(self), None)
        return self._work.language

    @property
    def seconds(self) -> float:
        """How long the sound is."""
        return self.sound.seconds

    @property
    def done(self) -> float:
        """How much of it is written, from 0 to 1."""
        return min(1.0, self._work.done / self._work.frames)


class Transcribes(Stays):
    """The part of `Model` that writes down what was said."""

    name: str
    senses: Senses | None

    @property
    def text(self) -> Text:
        """The part that writes."""
        raise NotImplementedError

    @property
    def has_hearing(self) -> bool:
        """Whether it writes down what was said."""
        return self.text.hearing is not None

    def check_talks(self) -> None:
        """Raises RequestError for a model that writes down what was said, and was never taught to answer."""
        if self.has_hearing and self.text.prompting.template is None:
            raise RequestError("this model writes down what was said, and talks to nobody", hint="give it a recording")

    def transcribe(
        self, sound: Heard, *, language: str | None = None, task: str = "transcribe", prompt: str = "",
        temperature: float | Sequence[float] | None = None, timed: bool | None = None, words: bool = False,
        carry: bool = False, seed: int = 0, limits: SoundLimits | None = None, name: str | None = None,
        check: Callable[[], None] = lambda: None, salt: bytes = b"",
    ) -> Transcript:  # fmt: skip
        """What was said in a recording, with the times of its segments where the model tells them.

        Models that do nothing else tell them. Those that are talked to are asked for each piece of 30 seconds at most,
        cut where it is quiet.

        Args:
            sound: a path, a file's bytes, an open file, or samples at 16 kHz, [n] or [n, channels].
            language: a code, as "de"; None has it told from the first 30 seconds.
            task: "transcribe", or "translate" into English.
            prompt: what might have been said before: names, and how they are spelt.
            temperature: of drawing; one, or several that are tried in turn while what comes reads badly. None tries
                0, 0.2, ... 1.
            timed: whether the model tells times: None where it can; without, a segment is a window of 30 seconds.
            words: whether segments tell their words and the times of these, by where the model looks.
            carry: whether it knows in each window what was written of those before: names stay spelt alike, and
                mistakes go on.
            seed: of what is drawn: the same sound has the same transcript.
            limits: how much sound there may be.
            name: what errors call the sound.
            check: called now and then; what it raises ends the work.
            salt: as in `PromptOptions`.

        Work goes on while the transcript is read. Raises RequestError for what is no sound, for a model that hears
        nothing, and for times of one that tells none.
        """
        from opsin.api.speech.dictating import Dictating
        from opsin.api.speech.transcribing import Transcribing, TranscriptOptions
        from opsin.media.hearing import open_sound

        hearing, audio = self.text.hearing, None if self.senses is None else self.senses.audio
        tried = TranscriptOptions.temperatures if temperature is None else temperature
        temperatures = tuple(tried) if isinstance(tried, Sequence) else (tried,)
        options = TranscriptOptions(
            language, task, prompt, temperatures, timed=timed is not False, words=words, carry=carry, seed=seed,
            salt=salt,
        )  # fmt: skip
        if hearing is not None:
            hearing.home.check()
            work = Transcribing(self.text, hearing, open_sound(sound, limits, name=name), options, check)
            return Transcript(work, timed=True)
        if audio is None:
            raise RequestError("this model hears nothing", hint="load one that does, with its mmproj file")
        if timed or words:
            told = f"{self.name} writes down what was said, and not when"
            raise RequestError(told, hint="ask for text, or load a model that tells times")
        heard = open_sound(sound, limits, name=name)
        return Transcript(Dictating(cast("Talks", self), audio, heard, options, check), timed=False)
