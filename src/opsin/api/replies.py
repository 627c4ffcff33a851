"""How a model's replies are read and held: its format, found from its chat template, in the ids of its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from opsin.api.call_forms import CallForms
from opsin.api.question import Question
from opsin.api.reply_reader import ReplyReader
from opsin.api.tools import NO_TOOLS, Tools
from opsin.engine.constraint import Constraint
from opsin.engine.thinking import Thinking, ThoughtMarkers
from opsin.grammar import Grammar, Grammars
from opsin.text import ChatTemplate, Detokenizer, Tokenizer
from opsin.text.calls import ReplyFormat

_NINE: Final = 9  # letters of an id, where a template takes no others
_USUAL: Final = 24


@dataclass(frozen=True)
class ReplyOptions:
    """What is wanted of a reply, beside how its tokens are chosen.

    Attributes:
        tools: functions that it may call.
        thoughts: whether thoughts are told apart from the answer, or within it, between the model's own markers. raw
            for a text in which nothing is looked for, and that has no control tokens.
        thought_tokens: at most so many; None for no limit.
        last_thought: what thoughts end with that became too long.
    """

    tools: Tools = NO_TOOLS
    thoughts: Literal["apart", "within", "raw"] = "apart"
    thought_tokens: int | None = None
    last_thought: str = ""


class Replies:
    """Of one model. Any number of threads may share it.

    Args:
        template: None for a model without one, whose replies are all answer.
        width: of the logits.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, grammars: Grammars, width: int) -> None:
        self.format = ReplyFormat() if template is None else ReplyFormat.of(template)
        calls = template.capabilities.calls if template is not None else None
        self._letters = _NINE if calls is not None and calls.nine_letters else _USUAL
        self._tokenizer, self._width = tokenizer, width
        self._grammars, self._forms = grammars, CallForms(self.format, tokenizer, grammars)
        self._shown = tokenizer.control_ids(self.format.shows)

    @property
    def thinks(self) -> bool:
        """Whether the model has thoughts that are told from its answers."""
        return self.format.thoughts is not None

    def begin(
        self, options: ReplyOptions | None, asked: Question, grammar: Grammar | None
    ) -> tuple[Detokenizer, ReplyReader, Constraint | None]:
        """What makes text of a reply's ids, what reads it, and what holds it. None: text as it comes, in this form."""
        if options is None:
            form = None if grammar is None else self._grammars.start(grammar)
            return self._tokenizer.stream(after=asked.last_id), ReplyReader(), form
        is_raw = options.thoughts == "raw"
        # Those control tokens are shown that mean something to the reader.
        text = self._tokenizer.stream(after=asked.last_id) if is_raw else self._tokenizer.stream(shown=self._shown)
        return text, self.reader(options, asked.text), self.hold(options, asked.text, grammar)

    def reader(self, options: ReplyOptions, prompt: str) -> ReplyReader:
        """Of one reply to this prompt, as the template wrote it."""
        tools, thoughts = options.tools.callable, self.format.thoughts
        if options.thoughts == "raw" or not (tools or self.format.has_parts):
            return ReplyReader()
        parser = self.format.parser(tools=tools or None, prompt=prompt)
        if thoughts is None or options.thoughts == "apart":
            return ReplyReader(parser, letters=self._letters)
        around, opened = (thoughts.open, thoughts.close), self.format.beginning(prompt).thinking
        if not tools:
            return ReplyReader()  # as it stands, to the last space
        return ReplyReader(parser, around, opened, self._letters)

    def hold(self, options: ReplyOptions, prompt: str, grammar: Grammar | None) -> Constraint | None:
        """A constraint of one reply to this prompt: the length of its thoughts, and a form of what comes after."""
        form = self._forms.start(options.tools, prompt, grammar)
        if form is None and options.thought_tokens is None:
            return None
        markers = self._markers(options.last_thought)
        if markers is None:
            return form
        beginning = self.format.beginning(prompt)
        if beginning.answering and form is None:
            return None  # the prompt ended thoughts
        return Thinking(
            markers, self._width, thinking=None if beginning.answering else beginning.thinking,
            most=options.thought_tokens, form=form, ends=self._tokenizer.end_ids,
        )  # fmt: skip

    def _markers(self, last_thought: str) -> ThoughtMarkers | None:
        around, tokenizer = self.format.thoughts, self._tokenizer
        if around is None or not around.close:
            return None

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, special=True))

        closing = (*tokenizer.encode(last_thought, first=False), *ids(around.close))
        spaces = [ids(text) for text in ("\n", "\n\n")]
        return ThoughtMarkers(
            around.open.encode(), around.close.encode(), ids(around.open), closing,
            tuple(space[0] for space in spaces if len(space) == 1),
            lambda id: tokenizer.piece(id, special=True),
        )  # fmt: skip
