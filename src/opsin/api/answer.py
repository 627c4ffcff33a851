"""An answer that runs: text as it comes, and afterwards what it took."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import RLock

from opsin.api.reply_reader import ReplyReader, ToolCall
from opsin.engine.logprobs import Logprobs
from opsin.engine.sequence import FinishReason, PromptProgress, Stream, TokenOutput
from opsin.errors import OpsinError
from opsin.process import Stays
from opsin.spans import Kind
from opsin.text import Detokenizer, LineLimits, Lines, StopStrings
from opsin.text.calls import Content, ReplyDelta, Thought

_SHOWN = 60  # characters of an answer in its repr


@dataclass(frozen=True)
class PictureUse:
    """What became of a picture or a sound in a prompt.

    Attributes:
        name: where it stands, as "messages[0].content[1]".
        original: (width, height) of what was sent, where that is known.
        size: (width, height) in pixels at which it is really processed, where that is known.
        rows: tokens that it takes, without the markers around it, or those that layers see of it beside the prompt.
        notes: what a person should know: "frame 1 of 12".
        end: the tokens of the prompt up to its last one.
        area: the part of what was sent that is seen at this size, in its pixels; beyond its edges where it was padded.
        kind: which of both it is.
        seconds: how long it lasts, where it does.
        beside: its tokens that take no places of the context.
    """

    name: str
    original: tuple[int, int] | None
    size: tuple[int, int] | None
    rows: int
    notes: tuple[str, ...]
    end: int
    area: tuple[float, float, float, float] | None = None
    kind: Kind = "image"
    seconds: float | None = None
    beside: int = 0


@dataclass(frozen=True)
class Usage:
    """What an answer took, so far. All in tokens.

    Attributes:
        prompt: text, pictures and sounds, also pictures that stand beside it.
        cached: those of the prompt that were not computed again; known with the first piece.
        pictures: those of the prompt that are pictures.
        answer: ids that came.
        each: every picture and sound; of a video that is heard, its frames and then its sound.
        sounds: tokens of the prompt that are sound.
        guessed: those that were computed before they were drawn, of which so many were `right`.
    """

    prompt: int
    cached: int
    pictures: int
    answer: int
    each: tuple[PictureUse, ...]
    sounds: int = 0
    guessed: int = 0
    right: int = 0


@dataclass(slots=True)
class Piece:
    """What came of an answer at once: a text, and the ids that it is made of.

    The text of the last piece, which has the reason, may be empty: then its ids wrote nothing that is shown. A piece
    with `progress` comes before all ids, where it was asked for, and has nothing else.

    Attributes:
        text: what is shown of it.
        ids: those since the piece before.
        logprobs: of each of these ids, where they were asked for.
        count: ids of the answer up to here.
        at: when the last of them was made, by `time.perf_counter`.
        reason: why the answer ended with it.
        end: how likely the id was that ended it, where one did and log-probabilities were asked for.
        progress: how much of the prompt is done.
        deltas: the text, and what is no part of it: thoughts, and calls of tools.
    """

    text: str
    ids: tuple[int, ...] = ()
    logprobs: tuple[Logprobs, ...] = ()
    count: int = 0
    at: float = 0.0
    reason: FinishReason | None = None
    end: Logprobs | None = None
    progress: PromptProgress | None = None
    deltas: tuple[ReplyDelta, ...] = ()


@dataclass(frozen=True)
class TextEnding:
    """Where an answer's text ends by what it says.

    Attributes:
        stop: texts that end it.
        keep_stop: whether the one that did is told.
        lines: how its lines must be.
    """

    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    lines: LineLimits = LineLimits()


@dataclass(frozen=True)
class Times:
    """When an answer's work began, when its first id was made, and its last one up to now: by `time.perf_counter`."""

    started: float
    first: float
    last: float


class Answer(Stays):
    """A running answer: iterate for pieces of text, or take its `text`. Afterwards `reason` says why it ended.

    The work ends with the last piece, with `cancel`, or when nobody holds the answer any more. Threads may share it:
    each piece goes to one of those that iterate. In async code: `await asyncio.to_thread(str, answer)`.
    """

    def __init__(
        self, stream: Stream, text: Detokenizer, ending: TextEnding, prompt_tokens: int,
        pictures: tuple[PictureUse, ...] = (), reader: ReplyReader | None = None,
    ) -> None:  # fmt: skip
        self.prompt_tokens, self.pictures = prompt_tokens, pictures
        self.ids: list[int] = []
        self.logprobs: list[Logprobs] = []  # of each id, where they were asked for
        self.reason: FinishReason | None = None
        self._stream, self._text, self._ending = stream, text, ending
        self._stops, self._lines = StopStrings(ending.stop), Lines(ending.lines)
        self._reader = reader or ReplyReader()
        self.thought_tokens = 0  # of its ids, those that came with thoughts
        self._told = 0  # ids that are in pieces
        self._first = self._last = 0.0  # when an id was made
        self._error: OpsinError | None = None
        self._reading = RLock()
        weakref.finalize(self, stream.cancel).atexit = False

    @classmethod
    def empty(cls, text: Detokenizer) -> Answer:
        """The answer to a prompt of nothing, which is over."""
        stream = Stream()
        stream.put(TokenOutput(None, "stop"))
        return cls(stream, text, TextEnding(), 0)

    def __repr__(self) -> str:
        """What is there by now; waits for nothing."""
        ended = {None: " so far", "cancelled": ", cancelled"}.get(self.reason, f", ended by {self.reason}")
        text = "".join(self._reader.content[: _SHOWN + 1])
        shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
        return f"<Answer: {len(self.ids)} tokens{ended}, {shown}>"

    def __str__(self) -> str:
        return self.text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while (piece := self.next_piece()) is not None:
            if piece.text:
                return piece.text
        raise StopIteration

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` now and whenever there may be more to take: on the engine's thread, so it waits for nothing."""
        self._stream.listen(heard)

    def next_piece(self, *, wait: bool = True) -> Piece | None:
        """What comes next, with all that is known of it; None after the last, and where `wait` is false before it."""
        with self._reading:
            while self.reason is None:
                try:
                    output = self._stream.take(wait=wait)
                    piece = None if output is None else self._take(output)
                except OpsinError as error:
                    self.reason, self._error = "error", error
                    raise
                except BaseException:  # such as Ctrl-C
                    self.cancel()
                    raise
                if piece is not None or output is None:
                    return piece
        return None

    @property
    def has_more(self) -> bool:
        """Whether something came that `next_piece` has not looked at."""
        return self._stream.has_more

    @property
    def usage(self) -> Usage:
        """What it took up to now."""
        sounds = sum(use.rows for use in self.pictures if use.kind == "audio")
        pictures = sum(use.rows for use in self.pictures) - sounds
        prompt = self.prompt_tokens + sum(use.beside for use in self.pictures)
        stream = self._stream
        return Usage(
            prompt, stream.cached, pictures, len(self.ids), self.pictures, sounds, stream.guessed, stream.right
        )  # fmt: skip

    @property
    def times(self) -> Times:
        """When it was made, up to now. Where there is no id yet, the first one comes now."""
        now = time.perf_counter()
        return Times(self._stream.started, self._first or now, self._last or self._first or now)

    @property
    def text(self) -> str:
        """The whole answer as one string, also of pieces that were read before. Waits for the end, raises its error.

        What the model thought, and the tools that it calls, are no part of it.
        """
        return "".join(self._whole().content)

    @property
    def thoughts(self) -> str:
        """What the model thought before it answered. Waits as `text` does."""
        return "".join(self._whole().thoughts)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools that it calls. Waits as `text` does."""
        return self._whole().calls

    @property
    def message(self) -> dict[str, object]:
        """It as a message of the assistant, for the conversation that goes on. Waits as `text` does."""
        said = self._whole()
        message: dict[str, object] = {"role": "assistant", "content": "".join(said.content)}
        if said.thoughts:
            message["reasoning_content"] = "".join(said.thoughts)
        if said.calls:
            message["tool_calls"] = [call.message for call in said.calls]
        return message

    @property
    def is_calling(self) -> bool:
        """Whether it calls a tool, by now."""
        return bool(self._reader.calls)

    def _whole(self) -> ReplyReader:
        for _ in self:
            pass
        if self._error is not None:
            raise self._error
        return self._reader

    @property
    def stopping_word(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self._stops.matched if self.reason == "stop" else None

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self.reason = self.reason or "cancelled"
        self._stream.cancel()

    def _take(self, output: TokenOutput) -> Piece | None:
        """What may be shown with one more output; None where that is nothing yet."""
        if output.progress is not None:
            return Piece("", at=output.at, progress=output.progress)
        new, self._first = "", self._first or output.at
        if output.id is not None:
            self.ids.append(output.id)
            self._last = output.at
            if output.logprobs is not None:
                begins = self._text.strips_space
                self.logprobs.append(replace(output.logprobs, begins=True) if begins else output.logprobs)
            new = self._text.push(output.id)
        if output.reason is not None:
            new += self._text.finish()
        out, stopped = self._stops.push(new)
        if stopped:
            self.reason = "stop"
            out += self._stops.matched or "" if self._ending.keep_stop else ""
        elif output.reason is not None:
            self.reason = output.reason
            out += self._stops.finish()
        out, cut = self._lines.push(out, output.at - (self._first or output.at))
        if cut:
            self.reason = "length"
        if stopped or cut:
            self._stream.cancel()
        deltas = self._reader.feed(out, last=self.reason is not None)
        end = output.logprobs if output.id is None else None
        return self._piece(deltas, output.at, end) if deltas or self.reason is not None else None

    def _piece(self, deltas: tuple[ReplyDelta, ...], at: float, end: Logprobs | None) -> Piece:
        """All ids that were in no piece yet."""
        told, self._told, count = self._told, len(self.ids), len(self.ids)
        text, thinks = "", False
        for delta in deltas:
            if isinstance(delta, Content):
                text += delta.text
            thinks |= isinstance(delta, Thought)
        if thinks:
            self.thought_tokens += count - told
        ids, logprobs = tuple(self.ids[told:]), tuple(self.logprobs[told:])
        return Piece(text, ids, logprobs, count, at, self.reason, end, deltas=deltas)
