"""Models for people: open a file, ask, read the answer. The command, the server and Python users all stand here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.config import Config, from_environment
from opsin.engine.engine import Engine
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.engine.sequence import Reason
from opsin.engine.trace import Edits, trace
from opsin.errors import ModelError, RequestError
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.ops import PAGE, PageType
from opsin.ops.cpu import Cpu
from opsin.ops.cpu.code import Notice
from opsin.spans import Prompt
from opsin.text import ChatTemplate, StopStrings, Tokenizer, protect

Message = Mapping[str, object]
_CONTEXT = 8192  # rows of a sequence where nobody asks for more


@dataclass
class Answer:
    """A running answer: iterate for pieces of text. Afterwards `reason` says why it ended."""

    _pieces: Iterator[str]
    prompt_tokens: int
    ids: list[int] = field(default_factory=list)
    reason: Reason | None = None

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def text(self) -> str:
        """What is left of the answer, as one string."""
        return "".join(self._pieces)


class Model:
    """A model in memory, with its tokenizer, template and engine. Use `opsin.load`; close it, or use `with`."""

    def __init__(
        self, path: Path, device: Cpu, runner: Runner, tokenizer: Tokenizer, template: ChatTemplate | None, load_seconds: float
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
        if not messages:
            raise RequestError("there are no messages", hint='give [{"role": "user", "content": "..."}]')
        if self.template is None:
            plain = "\n".join(str(m.get("content", "")) for m in messages)
            return Prompt.of([self.tokenizer.encode(plain, add_special=True)])
        safe = [{k: protect(v, self.tokenizer) if isinstance(v, str) else v for k, v in m.items()} for m in messages]
        text = self.template.render(safe)
        ids = self.tokenizer.encode(text, special=True, add_special=False)
        bos = self.tokenizer.bos
        if self.tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return Prompt.of([ids])

    def chat(self, messages: Sequence[Message], *, stop: Sequence[str] = (), **sampling: object) -> Answer:
        """Answer a conversation. Keywords are those of `Sampling`: temperature, top_k, top_p, min_p, seed, max_tokens."""
        return self.generate(self.chat_prompt(messages), _sampling(sampling), stop=stop)

    def complete(self, text: str, *, stop: Sequence[str] = (), **sampling: object) -> Answer:
        """Go on with a text, without a template."""
        ids = self.tokenizer.encode(text, add_special=True)
        return self.generate(Prompt.of([ids]), _sampling(sampling), stop=stop)

    def generate(self, prompt: Prompt, sampling: Sampling, *, stop: Sequence[str] = ()) -> Answer:
        """Go on with a prompt. Work begins now; dropping the answer's iterator ends it."""
        stream = self.engine.submit(prompt, sampling)
        answer = Answer(iter(()), len(prompt))
        stops, text = StopStrings(stop), self.tokenizer.stream()

        def pieces() -> Iterator[str]:
            try:
                for piece in stream:
                    new = ""
                    if piece.id is not None:
                        answer.ids.append(piece.id)
                        new = text.push(piece.id)
                    if piece.reason is not None:
                        new += text.finish()
                    out, stopped = stops.push(new)
                    if piece.reason is not None and not stopped:
                        out += stops.finish()
                    answer.reason = "stop" if stopped else piece.reason
                    if out:
                        yield out
                    if stopped:
                        return
            finally:
                stream.cancel()

        answer._pieces = pieces()
        return answer

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
        """Values inside a forward pass, by name: "embed", "blk.N.attn.weights" [rows, heads, keys], "blk.N.attn.sum",
        "blk.N.out" [rows, width], "norm", "logits". `taps` are names or patterns ("blk.*.out").

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
        with File.open(path) as file:
            reader = FileReader(file, device.eager())
            decoder = load_decoder(file, reader)
            tokenizer = Tokenizer.from_metadata(file.metadata)
            template = ChatTemplate.from_metadata(file.metadata)
        if tokenizer.vocabulary_size > decoder.vocabulary:
            raise ModelError(
                f"{path}: the tokenizer has {tokenizer.vocabulary_size} tokens, the model {decoder.vocabulary}"
            )
        rows = context or min(decoder.context, _CONTEXT)
        if not 0 < rows <= decoder.context:
            raise RequestError(f"context={rows}", hint=f"this model was trained for 1 to {decoder.context}")
        limits = Limits(context=rows, sequences=sequences, pages=-(-rows // PAGE) + sequences)
        runner = Runner(device, decoder, limits, pages)
    except BaseException:
        device.close()
        raise
    return Model(Path(path), device, runner, tokenizer, template, time.perf_counter() - start)
