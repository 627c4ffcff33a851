"""A model for people: messages and pictures in, text out. Safe to be asked from many threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack, cast

import numpy as np
import numpy.typing as npt

from opsin.api.answer import Answer, TextEnding
from opsin.api.arguments import check_functions, check_ids, check_texts, check_type, check_whole
from opsin.api.contents import PreparedMessages, read_messages
from opsin.api.facts import Facts
from opsin.api.forms import Schema, form_of
from opsin.api.perceiving import Medium, Perceives
from opsin.api.prompt_options import PLAIN, PromptOptions
from opsin.api.question import Question
from opsin.api.ranking import Ranks
from opsin.api.replies import ReplyOptions
from opsin.api.reply_keywords import REPLY_WORDS, ChatOptions, ReplyKeywords, reply_options
from opsin.api.sampling_options import SamplingOptions, sampling_from
from opsin.api.senses import Senses
from opsin.api.shorthand import Messages, to_messages
from opsin.api.speech.transcript import Transcribes
from opsin.api.text_part import Text
from opsin.engine.engine import Engine
from opsin.engine.logprobs import Logprobs
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scoring import prompt_logprobs, score
from opsin.engine.token_rules import TokenRules
from opsin.engine.trace import Edits, trace
from opsin.errors import ModelError, RequestError
from opsin.grammar import Grammar
from opsin.media.budget import USUAL, WORDS, PictureBudget
from opsin.ops.device import Device
from opsin.spans import Patches, Prompt, check_context
from opsin.text import ChatTemplate, Tokenizer

_ASKED = "give what `question` or `raw` makes, or use `chat` and `complete`"


class Model(Perceives, Ranks, Transcribes):
    """A model in memory: a part that writes, one that sees, or both. Use `opsin.load`; close it, or use `with`."""

    def __init__(
        self, path: Path, device: Device, text: Text | None, senses: Senses | None, *, no_media_hint: str,
        notes: tuple[str, ...], load_seconds: float, name: str,
    ) -> None:  # fmt: skip
        self.name = name  # its file's without the ending, or a store's
        super().__init__(senses, device, no_media_hint, writes=text is not None)
        self.path, self.device, self.load_seconds = path, device, load_seconds
        self.notes = notes  # what a person should know: a file for pictures that was left out
        self._text = text

    def __repr__(self) -> str:
        writes = f", context {self.context}" if self._text is not None else ", which writes nothing"
        senses = [word for word, has in (("sees", self.has_vision), ("hears", self.has_audio)) if has]
        return f"<Model {self.path.name!r}: {' and '.join(senses) or 'reads'}{writes}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and its threads; running answers end with an error."""
        if self._text is not None:
            self._text.engine.close()
        if self.senses is not None:
            self.senses.close()
        self.device.close()

    @property
    def text(self) -> Text:
        """The part that writes. Raises RequestError where there is none."""
        if self._text is None:
            raise RequestError("the file holds no text model", hint="load the model's .gguf with it as mmproj")
        return self._text

    @property
    def has_text(self) -> bool:
        """Whether there is a part that writes."""
        return self._text is not None

    def with_text(self) -> Model:
        """This model. Raises ModelError for an mmproj file given as one, and closes it: Python can use it alone."""
        if not self.has_text:
            self.close()
            what = f"{self.path} holds no text model: it is a part for pictures or sound (mmproj)"
            raise ModelError(what, hint="give it as --mmproj, and the model that it is of as -m")
        return self

    @property
    def engine(self) -> Engine:
        return self.text.engine

    @property
    def runner(self) -> Runner:
        return self.text.runner

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.tokenizer

    @property
    def template(self) -> ChatTemplate | None:
        return self.text.prompting.template

    @property
    def facts(self) -> Facts:
        """What the text model's file says of itself."""
        return self.text.facts

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.engine.context

    @property
    def trained_context(self) -> int:
        """Tokens that it was trained for."""
        return self.runner.decoder.context

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.text.pooler.width

    @property
    def sequences(self) -> int:
        """Answers that run at once; others wait."""
        return self.runner.limits.sequences

    @property
    def guesses(self) -> tuple[str, ...]:
        """What guesses tokens ahead.

        "draft-simple" (a draft model) or "draft-mtp" (a layer of the model's own), and "ngram-simple" (what a text
        repeats).
        """
        guessing = self.engine.guessing
        return () if guessing is None else guessing.kinds

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text. `special`: texts of special tokens become their ids; give it no stranger's text."""
        return self.tokenizer.encode(check_type(text, str, "the text"), special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens have none."""
        return self.tokenizer.decode(check_ids(ids, self.tokenizer.vocabulary_size))

    # Prompts

    def question(
        self, messages: Messages, options: PromptOptions = PLAIN, *, check: Callable[[], None] = lambda: None,
        budget: PictureBudget = USUAL,
    ) -> Question:  # fmt: skip
        """Messages as the file's template writes them. A file without one gets the contents as plain text.

        A text alone is what one user says. A content is a text, or a list of parts: texts, pictures in any form that
        `prepare` takes but for paths as strings, `Embeddings`, and parts as OpenAI writes them. Strings in these are
        URLs, which are fetched by the rules that `load` was given.
        `check` is called before each part: what it raises ends the work.
        `budget` is how finely to look at pictures; each part of OpenAI's kind may say more of its own.
        `options` are tools, and variables of the template.
        """
        return self._question(messages, options, check, self.context, budget)

    def _question(
        self, messages: Messages, options: PromptOptions, check: Callable[[], None], context: int | None,
        budget: PictureBudget,
    ) -> Question:  # fmt: skip
        prompting = self.text.prompting
        self.check_talks()
        try:
            conversation = self._read(messages, check, context, budget)
            return prompting.question(conversation, options, context=context, check=check)
        except RecursionError as error:
            raise RequestError("a message is nested too deeply", hint="send plain messages") from error

    def write(
        self, messages: Messages, options: PromptOptions = PLAIN, *, check: Callable[[], None] = lambda: None
    ) -> str:
        """What the template makes of messages: a text for `raw`, with `picture_marker` in place of each picture.

        Where people wrote what looks like special tokens, invisible marks keep `raw` from reading them so.
        """
        return self.text.prompting.write(self._read(to_messages(messages), check, None, USUAL), options)

    def _read(
        self, messages: Messages, check: Callable[[], None], context: int | None, budget: PictureBudget
    ) -> PreparedMessages:
        knows = self.text.prompting.knows_role
        read = read_messages(
            to_messages(messages), self.senses, no_media_hint=self.no_media_hint, knows_role=knows, check=check,
            context=context, budget=check_type(budget, PictureBudget, "budget"),
        )  # fmt: skip
        return read.with_system(self.facts.system)

    def raw(
        self, pieces: Sequence[str | Sequence[int]], pictures: Sequence[Medium] = (), *,
        check: Callable[[], None] = lambda: None, budget: PictureBudget = USUAL, salt: bytes = b"",
    ) -> Question:  # fmt: skip
        """Texts and ids as they stand, without a template; special tokens are read, so give no stranger's text.

        Each `picture_marker` in the texts is the place of a picture. Raises RequestError where they are not as many.
        `budget` is how finely to look at pictures, `salt` as in `PromptOptions`.
        """
        prompting = self.text.prompting
        check_type(pictures, Sequence, "pictures", "give a list")  # type: ignore[type-abstract]
        check_type(budget, PictureBudget, "budget")
        pieces = self._pieces(pieces)
        prompting.refuse_too_long(pieces, (), self.context)
        prompting.check_places(pieces, len(pictures))
        prepared: list[tuple[str, Patches]] = []
        for number, picture in enumerate(pictures):
            check()
            name = f"picture {number + 1}"
            prepared.append((name, self._prepared(picture, name, budget)))
            rows = sum(patches.rows for _, patches in prepared)
            check_context(rows, self.context, at_least=True, picture=f"{name} of {len(pictures)}")
        patches = [patches for _, patches in prepared]
        text = "".join(piece for piece in pieces if isinstance(piece, str))
        made = prompting.raw(pieces, patches, context=self.context, check=check, salt=salt)
        return Question.of(made, prepared, text)

    def content(
        self, parts: Sequence[object], *, check: Callable[[], None] = lambda: None, budget: PictureBudget = USUAL
    ) -> Prompt:
        """A message's content without a template or a role, for `embed`: texts and pictures, as in `question`."""
        if not isinstance(parts, list | tuple):
            raise RequestError(f"parts of the type {type(parts).__name__}", hint="give a list of texts and pictures")
        read = self._read([{"role": "user", "content": parts}], check, self.context, budget)
        said = cast("list[dict[str, str]]", read.messages[-1]["content"])
        if not read.media:
            return self.embedding_prompt("".join(part["text"] for part in said), check=check)
        patches = [patches for _, patches in read.media]
        return self.text.prompting.content(said, patches, context=self.context, check=check)

    def _pieces(self, pieces: Sequence[str | Sequence[int]]) -> Sequence[str | Sequence[int]]:
        if not isinstance(pieces, list | tuple):
            raise RequestError(f"pieces of the type {type(pieces).__name__}", hint='give a list, as ["Once", [3, 7]]')
        known = self.runner.ids
        return [piece if isinstance(piece, str) else check_ids(piece, known) for piece in pieces]

    @property
    def picture_marker(self) -> str:
        """What stands for a picture in texts for `raw`: another one in each process."""
        return self.text.prompting.own

    def chat_prompt(self, messages: Messages) -> Prompt:
        """The prompt of `question`."""
        return self.question(messages).prompt

    def count(
        self, messages: Messages, options: PromptOptions = PLAIN, *, check: Callable[[], None] = lambda: None,
        budget: PictureBudget = USUAL,
    ) -> int:  # fmt: skip
        """Tokens of a conversation, pictures included. Computes nothing. The rest is as in `question`."""
        return self._question(messages, options, check, None, budget).tokens

    # Answers

    def chat(
        self, messages: Messages, *, stop: Sequence[str] | None = None, schema: Schema | None = None,
        grammar: Grammar | str | None = None, **options: Unpack[ChatOptions],
    ) -> Answer:  # fmt: skip
        """Answer a conversation. Keywords are those of `Sampling`, such as temperature, seed, max_tokens.

        Those of `PictureBudget`, such as detail, say how finely to look at all its pictures; those of `ReplyKeywords`,
        such as tools and think, what the answer may hold beside its text. `schema` is a JSON schema that
        the answer obeys, `grammar` another form of it: a `Grammar`, or GBNF.

        What is not named is as the model's file or store recommends (`facts.sampling`, `facts.stop`).
        """
        rest = dict(options)
        seen, told = ({word: rest.pop(word) for word in words if word in rest} for words in (WORDS, REPLY_WORDS))
        sampling = sampling_from(self.facts.sampling, rest)
        budget = PictureBudget(**seen)  # type: ignore[arg-type]  # checked there
        prompt, reply = reply_options(cast(ReplyKeywords, told))
        form, question = form_of(schema, grammar), self.question(messages, prompt, budget=budget)
        return self.generate(question, sampling, stop=stop, reply=reply, grammar=form)

    def complete(
        self, text: str, *, stop: Sequence[str] | None = None, schema: Schema | None = None,
        grammar: Grammar | str | None = None, **sampling: Unpack[SamplingOptions],
    ) -> Answer:  # fmt: skip
        """Go on with a text, without a template. Keywords as in `chat`."""
        self.text.prompting.refuse_too_long([check_type(text, str, "the text")], (), self.context, special=False)
        ids = self.tokenizer.encode(text, add_special=True)
        form = form_of(schema, grammar)
        return self.generate(Prompt.of([ids]), sampling_from(self.facts.sampling, sampling), stop=stop, grammar=form)

    def generate(
        self, question: Question | Prompt, sampling: Sampling, *, stop: Sequence[str] | TextEnding | None = None,
        progress: bool = False, reply: ReplyOptions | None = None,
        grammar: Grammar | None = None,
    ) -> Answer:  # fmt: skip
        """Go on with a prompt. Work begins now; dropping the answer ends it. `stop`: None takes `facts.stop`.

        A `TextEnding` in place of texts says more of where the answer's text ends. `reply` is what is wanted of it,
        where it is read as the model's template writes replies: thoughts apart. None for text as it comes.
        `progress`: pieces (`Answer.next_piece`) tell how much of the prompt is done, too.
        `grammar` is the form of what is answered. Raises RequestError where it is wrong, or cannot be met.
        """
        stop = self.facts.stop if stop is None else stop
        if not isinstance(stop, TextEnding):
            check_texts(stop, "stop")
            stop = TextEnding(tuple(stop))
        asked = Question(question) if isinstance(question, Prompt) else question
        check_type(asked, Question, "question", _ASKED)
        check_type(sampling, Sampling, "sampling")
        asked.check_pictures(self.context)
        text, reader, constraint = self.text.replies.begin(reply, asked, grammar)
        known, never = self.runner.vocabulary, self.facts.suppressed
        rules = TokenRules.of(sampling, self.tokenizer, vocabulary=known, suppressed=never)
        stream = self.engine.submit(asked.prompt, sampling, progress=progress, constraint=constraint, rules=rules)
        return Answer(stream, text, stop, len(asked.prompt), asked.pictures, reader)

    # Looking inside

    def logits(self, ids: Sequence[int] | Prompt) -> npt.NDArray[np.float32]:
        """float32 [rows, vocabulary]: what the model expects after each of `ids`, or each row of a prompt.

        It is teacher-forced.
        """
        prompt = ids if isinstance(ids, Prompt) else Prompt.of([self._ids(ids)])
        self._check_length(len(prompt))
        return score(self.engine, self.runner, prompt)

    def prompt_logprobs(
        self, prompt: Sequence[int] | Prompt, most: int = 0, *, check: Callable[[], None] = lambda: None
    ) -> list[Logprobs]:
        """How likely each id of a prompt of text but the first was after those before it, with `most` likeliest ids.

        Answers of others go on meanwhile. `check` is called now and then: what it raises ends the work.
        """
        asked = prompt if isinstance(prompt, Prompt) else Prompt.of([self._ids(prompt)])
        self._check_length(len(asked))
        check_whole(most, "most", least=0)
        return prompt_logprobs(self.engine, self.runner, asked, most, check=check)

    def trace(
        self, ids: Sequence[int], taps: Sequence[str] = ("*",), edits: Edits | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Values inside a forward pass, by name.

        They are "embed", "blk.N.attn.weights" [rows, heads, keys], "blk.N.attn.sum", "blk.N.out" [rows, width],
        "norm" and "logits". `taps` are names or patterns ("blk.*.out").
        `edits` maps names to functions (array -> array of the same shape) whose results are used instead.
        """
        known = self._ids(ids)
        check_texts(taps, "taps")
        check_functions(edits, "edits")
        runner = self.runner
        return self.engine.call(
            lambda: trace(self.device, runner.decoder, known, taps, edits or {}, runner.limits.context)
        )

    def _ids(self, ids: Sequence[int]) -> list[int]:
        found = check_ids(ids, self.runner.ids)
        self._check_length(len(found))
        return found

    def _check_length(self, tokens: int) -> None:
        if not 0 < tokens <= self.context:
            raise RequestError(f"a prompt of {tokens} tokens", hint=f"give 1 to {self.context}")
