"""Models for people: open a file, ask, read the answer. The command, the server and Python users all stand here."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.config import Config, from_environment
from opsin.engine.engine import Engine
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.engine.sequence import Piece, Reason, Stream
from opsin.engine.trace import Edits, trace
from opsin.errors import ModelError, OpsinError, RequestError
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.ops import PAGE, PageType
from opsin.ops.cpu import Cpu
from opsin.ops.cpu.code import Notice
from opsin.spans import Prompt
from opsin.text import ChatTemplate, Detokenizer, StopStrings, Tokenizer, protect_values

Message = Mapping[str, object]
_CONTEXT = 8192  # rows of a sequence where nobody asks for more


class Answer:
    """A running answer: iterate for pieces of text. Afterwards `reason` says why it ended.

    The work ends with the last piece, with `cancel`, or when nobody holds the answer any more.
    """

    def __init__(self, stream: Stream, text: Detokenizer, stops: StopStrings, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.ids: list[int] = []
        self.reason: Reason | None = None
        self._stream, self._text, self._stops = stream, text, stops
        self._pieces = iter(stream)
        weakref.finalize(self, stream.cancel).atexit = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.reason is None:
            try:
                out = self._take(next(self._pieces))
            except OpsinError:
                self.reason = "error"
                raise
            except BaseException:  # such as Ctrl-C
                self.cancel()
                raise
            if out:
                return out
        raise StopIteration

    @property
    def text(self) -> str:
        """What is left of the answer, as one string."""
        return "".join(self)

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self.reason = self.reason or "cancelled"
        self._stream.cancel()

    def _take(self, piece: Piece) -> str:
        new = ""
        if piece.id is not None:
            self.ids.append(piece.id)
            new = self._text.push(piece.id)
        if piece.reason is not None:
            new += self._text.finish()
        out, stopped = self._stops.push(new)
        if stopped:
            self.reason = "stop"
            self._stream.cancel()
        elif piece.reason is not None:
            self.reason = piece.reason
            out += self._stops.finish()
        return out


class Model:
    """A model in memory, with its tokenizer, template and engine. Use `opsin.load`; close it, or use `with`."""

    def __init__(
        self, path: Path, device: Cpu, runner: Runner, tokenizer: Tokenizer, template: ChatTemplate | None,
        load_seconds: float,
    ) -> None:  # fmt: skip
        self.path, self.device, self.runner = path, device, runner
        self.tokenizer, self.template, self.load_seconds = tokenizer, template, load_seconds
        self.engine = Engine(runner, tokenizer.end_ids)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and its threads; running answers end with an error."""
        self.engine.close()
        self.device.close()

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.engine.context

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text. `special`: texts of special tokens become their ids; give it no stranger's text."""
        return self.tokenizer.encode(text, special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def chat_prompt(self, messages: Sequence[Message]) -> Prompt:
        """Messages as the file's template writes them. A file without one gets the contents as plain text."""
        _check_messages(messages)
        if self.template is None:
            plain = "\n".join(str(m.get("content") or "") for m in messages)
            return Prompt.of([self.tokenizer.encode(plain, add_special=True)])
        safe = [{name: protect_values(value, self.tokenizer) for name, value in m.items()} for m in messages]
        text = self.template.render(safe)
        ids = self.tokenizer.encode(text, special=True, add_special=False)
        bos = self.tokenizer.bos
        if self.tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return Prompt.of([ids])

    def chat(self, messages: Sequence[Message], *, stop: Sequence[str] = (), **sampling: object) -> Answer:
        """Answer a conversation. Keywords are those of `Sampling`, such as temperature, seed, max_tokens."""
        return self.generate(self.chat_prompt(messages), _sampling(sampling), stop=stop)

    def complete(self, text: str, *, stop: Sequence[str] = (), **sampling: object) -> Answer:
        """Go on with a text, without a template."""
        ids = self.tokenizer.encode(text, add_special=True)
        return self.generate(Prompt.of([ids]), _sampling(sampling), stop=stop)

    def generate(self, prompt: Prompt, sampling: Sampling, *, stop: Sequence[str] = ()) -> Answer:
        """Go on with a prompt. Work begins now; dropping the answer ends it."""
        if isinstance(stop, str) or not all(isinstance(text, str) for text in stop):
            raise RequestError(f"stop={stop!r:.80}", hint='give a list of texts, as ["END"]')
        stops = StopStrings(stop)
        return Answer(self.engine.submit(prompt, sampling), self.tokenizer.stream(), stops, len(prompt))

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """float32 [rows, vocabulary]: what the model expects after each of `ids` (teacher-forced)."""
        self._check_ids(ids)

        def score() -> npt.NDArray[np.float32]:
            pages = self.engine.borrow_pages(len(ids))
            try:
                return self.runner.score(ids, pages)
            finally:
                self.engine.return_pages(pages)

        return self.engine.call(score)

    def trace(
        self, ids: Sequence[int], taps: Sequence[str] = ("*",), edits: Edits | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Values inside a forward pass, by name.

        They are "embed", "blk.N.attn.weights" [rows, heads, keys], "blk.N.attn.sum", "blk.N.out" [rows, width],
        "norm" and "logits". `taps` are names or patterns ("blk.*.out").
        `edits` maps names to functions (array -> array of the same shape) whose results are used instead.
        """
        self._check_ids(ids)
        return self.engine.call(lambda: trace(self.device, self.runner.decoder, ids, taps, edits or {}))

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not 0 < len(ids) <= self.context:
            raise RequestError(f"{len(ids)} ids", hint=f"give 1 to {self.context}")
        wrong = [i for i in ids if not 0 <= i < self.runner.decoder.vocabulary]
        if wrong:
            raise RequestError(f"id {wrong[0]} lies outside the vocabulary of {self.runner.decoder.vocabulary}")


def _check_messages(messages: Sequence[Message]) -> None:
    hint = 'give [{"role": "user", "content": "..."}]'
    if isinstance(messages, str | Mapping) or not messages:
        raise RequestError("there are no messages", hint=hint)
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError(f"message {number} has no role", hint=hint)
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise RequestError(f"message {number} has a content of {type(content).__name__}", hint=hint)


def _sampling(knobs: Mapping[str, object]) -> Sampling:
    known = Sampling.__dataclass_fields__
    wrong = [name for name in knobs if name not in known]
    if wrong:
        raise RequestError(f"{wrong[0]} is no option of sampling", hint=", ".join(known))
    return Sampling(**knobs)  # type: ignore[arg-type]


def load(
    path: str | Path, *, threads: int | None = None, context: int | None = None, pages: PageType = "f16",
    sequences: int = 32, notice: Notice | None = None, config: Config | None = None,
) -> Model:  # fmt: skip
    """Read a model file into memory.

    Args:
        path: a GGUF file, or the first of its splits.
        threads: compute threads; None takes what this process may use.
        context: tokens that a prompt and its answer may have; None takes the model's own, at most 8192.
        pages: how the KV cache is kept: f16, q8_0 (half of it) or f32.
        sequences: how many may run at once. The cache is shared by all.
        notice: told in a line when something slow happens.

    Raises FileError or ModelError, saying what is wrong with the file.
    """
    start = time.perf_counter()
    device = Cpu(config or from_environment(), threads=threads, notice=notice)
    try:
        with File.open(path) as file, ThreadPoolExecutor(1) as beside:
            # A large vocabulary takes as long as the weights of a small model: both at once.
            coming = beside.submit(Tokenizer.from_metadata, file.metadata)
            decoder = load_decoder(file, FileReader(file, device.eager()))
            tokenizer = coming.result()
            template = ChatTemplate.from_metadata(file.metadata)
        if tokenizer.vocabulary_size > decoder.vocabulary:
            raise ModelError(
                f"{path}: the tokenizer has {tokenizer.vocabulary_size} tokens, the model {decoder.vocabulary}"
            )
        rows = min(decoder.context, _CONTEXT) if context is None else context
        if not 0 < rows <= decoder.context:
            raise RequestError(f"context={rows}", hint=f"this model was trained for 1 to {decoder.context}")
        limits = Limits(
            rows=max(512, sequences), outputs=max(64, sequences), sequences=sequences, context=rows,
            pages=-(-rows // PAGE) + sequences,
        )  # fmt: skip
        runner = Runner(device, decoder, limits, pages)
    except BaseException:
        device.close()
        raise
    return Model(Path(path), device, runner, tokenizer, template, time.perf_counter() - start)
