"""Sound becomes text, window by window: each is heard, asked about, tried again where it reads badly.

The way of Radford et al. 2022 (arXiv 2212.04356, section 4.5 and its published code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from opsin.api.arguments import check_type
from opsin.api.speech.hearing import Hearing
from opsin.api.speech.looking import look
from opsin.api.speech.moments import Listening, MomentRules
from opsin.api.speech.pauses import pauses
from opsin.api.speech.pointing import Pointers
from opsin.api.speech.segments import Segment, Utterance, Word, utterances
from opsin.api.speech.speech_ids import SpeechIds
from opsin.api.speech.tries import Drawn, Try, compression
from opsin.api.speech.words import place_words, split_words
from opsin.api.text_part import Text
from opsin.arrays import Floats
from opsin.engine.sampling import Sampling
from opsin.engine.sequence import Stream
from opsin.engine.token_rules import TokenRules
from opsin.errors import RequestError
from opsin.media.mel import FRAMES
from opsin.media.sound import Waveform
from opsin.spans import MediaSpan, Prompt

MOST_CARRIED = 223  # ids of what was written before, and of the prompt
_FORGET_ABOVE = 0.5  # of a temperature: what was written so is no model for the rest


@dataclass(frozen=True)
class TranscriptOptions:
    """How sound is written down.

    Attributes:
        language: a code, as "de"; None has it told from the first window.
        task: "transcribe", or "translate" into English.
        prompt: what might have been said before: names and spellings.
        temperatures: tried in turn, while what comes reads badly; 0 is greedy.
        timed: whether moments are written; without, each window is one segment.
        words: whether times of words are told, too.
        carry: whether a window knows what was written of those before: names stay spelt alike, and mistakes go on.
        least_logprob: of an id on average, below which a window is written again.
        most_compression: of a window's text, above which it is written again where it goes round, see `tries`.
        draws: at each temperature above 0, of which the likeliest counts.
        silence: how likely nobody has to speak in a window for it to be left out, where it reads badly.
        seed: of what is drawn, so that the same sound has the same transcript.
        salt: as in `PromptOptions`.
    """

    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    timed: bool = True
    words: bool = False
    carry: bool = False
    least_logprob: float = -1.0
    most_compression: float = 2.4
    draws: int = 5
    silence: float = 0.6
    seed: int = 0
    salt: bytes = b""

    def __post_init__(self) -> None:
        check_type(self.prompt, str, "prompt")
        check_type(self.task, str, "task")
        if self.language is not None:
            check_type(self.language, str, "language")
        if not self.temperatures or not all(0 <= value <= 2 for value in self.temperatures):
            raise RequestError(f"temperatures={self.temperatures!r:.80}", hint="give some from 0 to 2")


@dataclass
class Transcribing:
    """One sound on its way: iterate over its segments as they come.

    Attributes:
        frames: of log-mel in all, a hundred a second, and
        done: those that are written down.
        language: what is spoken, once it is known.
    """

    text: Text
    hearing: Hearing
    sound: Waveform
    options: TranscriptOptions
    check: Callable[[], None] = lambda: None
    frames: int = 0
    done: int = 0
    language: str | None = None
    _ids: SpeechIds = field(init=False)

    def __post_init__(self) -> None:
        self._ids = SpeechIds.of(self.text.tokenizer, has_languages=self.hearing.writing.has_languages)
        self._ids.check_task(self.options.task)
        if self.options.language is not None and self._ids.languages:
            self.language = self._ids.check_language(self.options.language)
        self.frames = max(1, int(self.sound.seconds * FRAMES))
        self._carried = self.text.tokenizer.encode(" " + self.options.prompt.strip()) if self.options.prompt else []
        self._prompt = len(self._carried)

    def __iter__(self) -> Iterator[Segment]:
        logs = self.hearing.logs(self.sound)
        while self.done < self.frames:
            self.check()
            yield from self._window(logs, self.done)

    def _window(self, logs: Floats, first: int) -> Iterator[Segment]:
        """The segments of the window that begins with this frame; then `done` says how far it reached."""
        span, frames = self.hearing.span(logs, first), min(self.hearing.frames, self.frames - first)
        heard = self._listen(span)
        best = self._write(span, heard.silence, frames / FRAMES)
        reads_badly = best.average < self.options.least_logprob
        if heard.silence > self.options.silence and reads_badly:
            self.done = first + frames
            return
        said, reached = utterances(best.ids, self._ids, frames)
        self.done = first + reached
        words = iter(
            self._words(span, said, logs[first : first + frames], first) if self.options.words else [()] * len(said)
        )
        for one in said:
            own = next(words)
            text = self.text.tokenizer.decode([id for id in one.ids if id < self._ids.end])
            if one.start == one.end or not text.strip():
                continue
            self._carried += one.ids
            yield Segment(
                start=round(first / FRAMES + one.start, 2), end=round(first / FRAMES + one.end, 2), text=text,
                ids=one.ids, temperature=best.temperature, average_logprob=best.average,
                compression_ratio=best.compression, no_speech=heard.silence, frame=first,
                words=tuple(own),
            )  # fmt: skip
        if not self.options.carry or best.temperature > _FORGET_ABOVE:
            self._carried = self._carried[: self._prompt]

    def _words(self, span: MediaSpan, said: Sequence[Utterance], logs: Floats, first: int) -> Iterator[Sequence[Word]]:
        """The words of each utterance of a window, whose frames begin with this one."""
        texts = [[id for id in one.ids if id < self._ids.end] for one in said]
        spelt = [split_words(self.text.tokenizer, ids, self.language) for ids in texts]
        written = [id for ids in texts for id in ids]
        asked = self._ids.question(self.language, self.options.task, timed=False)
        room = self.text.runner.decoder.context - len(asked)
        if not written or len(written) > room:
            return iter([()] * len(said))
        pointers = Pointers(len(asked), -(-len(logs) // 2))
        logits = look(self.text, Prompt.of([span], self.options.salt), [*asked, *written], pointers.see)
        before = logits[len(asked) - 1 : -1].astype(np.float64)
        shares = np.exp(before - before.max(1, keepdims=True))
        chances = shares[np.arange(len(written)), written] / shares.sum(1)
        words = [word for listed in spelt for word in listed]
        placed = iter(place_words(words, pointers.rows_of_ids(), pauses(logs), chances.tolist(), first / FRAMES))
        return iter([[next(placed) for _ in listed] for listed in spelt])

    def _listen(self, span: MediaSpan) -> Listening:
        """Whether anybody speaks in a window; and in which language, where nobody knows yet."""
        heard = Listening(self._ids)
        self._generate(span, [self._ids.start], [Sampling(temperature=0.0, max_tokens=1, processors=(heard,))])
        if self.language is None and heard.languages:
            self.language = max(heard.languages, key=heard.languages.__getitem__)
        return heard

    def _write(self, span: MediaSpan, silence: float, seconds: float) -> Try:
        """The first that reads well, else the likeliest: of those that do not go round, where there are any."""
        tries: list[Try] = []
        most, least = self.options.most_compression, self.options.least_logprob
        for temperature in self.options.temperatures:
            self.check()
            made = self._attempt(span, temperature)
            unsure = made.average < least
            if silence > self.options.silence and unsure:
                return made
            if not (unsure or made.goes_round(most) or made.passes_over(seconds, least)):
                return made
            tries.append(made)
        calm = [one for one in tries if not one.goes_round(most)]
        return max(calm or tries, key=lambda one: one.average)

    def _attempt(self, span: MediaSpan, temperature: float) -> Try:
        """The likeliest of what is drawn; greedily there is one."""
        ids, options = self._ids, self.options
        room = self.text.engine.context // 2
        before = self._carried[-min(MOST_CARRIED, room - 1) :] if self._carried else []
        asked = [
            *([ids.previous, *before] if before else []),
            *ids.question(self.language, options.task, timed=options.timed),
        ]
        rules = [
            MomentRules(
                ids, len(asked), timed=options.timed, never=self.text.facts.suppressed,
                never_first=self.hearing.writing.never_first,
            )
            for _ in range(options.draws if temperature else 1)
        ]  # fmt: skip
        samplings = [
            Sampling(
                temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, seed=options.seed + draw, max_tokens=room,
                processors=(rule,), stop_token_ids=(ids.end,),
            )
            for draw, rule in enumerate(rules)
        ]  # fmt: skip
        made = self._generate(span, asked, samplings)
        tries = [self._judge(one, rule, temperature) for one, rule in zip(made, rules, strict=True)]
        return max(tries, key=lambda one: one.average)

    def _judge(self, made: Drawn, rules: MomentRules, temperature: float) -> Try:
        ids = self._ids
        if made.ended:
            rules.count_in(ids.end)
        elif made.ids:
            rules.count_in(made.ids[-1])
        text = self.text.tokenizer.decode([id for id in made.ids if id < ids.end])
        return Try(made.ids, temperature, rules.average, compression(text), ended=made.ended)

    def _generate(self, span: MediaSpan, asked: Sequence[int], samplings: Sequence[Sampling]) -> list[Drawn]:
        """What is written after a question about a window, all at once."""
        vocabulary, streams, made = self.text.runner.vocabulary, list[Stream](), list[Drawn]()
        try:
            for sampling in samplings:
                rules = TokenRules.of(sampling, self.text.tokenizer, vocabulary=vocabulary)
                prompt = Prompt.of([span, asked], self.options.salt)
                streams.append(self.text.engine.submit(prompt, sampling, rules=rules))
            for stream in streams:
                written, ended = [], False
                for output in stream:
                    self.check()
                    if output.id is not None:
                        written.append(output.id)
                    ended = output.reason == "stop"
                made.append(Drawn(tuple(written), ended))
        finally:
            for stream in streams:
                stream.cancel()
        return made
