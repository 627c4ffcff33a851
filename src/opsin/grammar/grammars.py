"""Grammars of one model: its vocabulary as llguidance reads it, and those that were used lately, warm.

Thread: anybody's.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from opsin.errors import RequestError
from opsin.grammar.form import Special
from opsin.grammar.grammar import Grammar
from opsin.grammar.matcher import LazyMatcher, Matcher
from opsin.grammar.table import table_of
from opsin.text import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_KEPT = 16  # grammars whose learnt states are kept
_STATES = 50_000  # of one grammar's lexer, which learns them: 1 to 2 kB each
_STACK = 256 << 20  # bytes of address space, touched only as far as a grammar needs
_STACKS = threading.Lock()  # the size is of the whole process, and models may be several
_HINT = "docs/grammar.md says what can be held to"
_LONGEST = 400  # characters of an error
_REFERENCE = tuple(f"the JSON schema: {word} " for word in ("Resource", "Pointer", "Anchor"))
_SCHEMA = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")  # a place that is in no text of the asker's


class Grammars:
    """Starts grammars for the vocabulary of a model, whose logits are `width`."""

    def __init__(self, tokenizer: Tokenizer, width: int) -> None:
        self.tokenizer, self._width = tokenizer, width
        self._lock = threading.Lock()
        self._made: LLTokenizer | None = None
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()

    @property
    def is_prepared(self) -> bool:
        """Whether the table of the vocabulary was built."""
        return self._made is not None

    def prepare(self) -> None:
        """Build the table of the vocabulary now, and not with the first grammar."""
        with self._lock:
            self._table()

    def start(self, grammar: Grammar) -> Matcher | LazyMatcher:
        """A matcher for one answer. Raises RequestError where the grammar is wrong, or cannot be met."""
        if not isinstance(grammar, Grammar):
            raise RequestError(f"a grammar of the type {type(grammar).__name__}", hint="give an opsin.Grammar")
        with self._lock:
            table = self._table()
        source = grammar.form.source(Special(self.tokenizer.split, tuple(sorted(self.tokenizer.end_ids))))
        copy = partial(self._copy, table, source)
        first = copy()
        if not grammar.triggers:
            return first
        piece = partial(self.tokenizer.piece, special=True)  # a trigger may be a special token's text
        return LazyMatcher(copy, grammar.triggers, piece, table.tokenize_bytes)

    def _copy(self, table: LLTokenizer, source: str) -> Matcher:
        with self._lock:
            warm = self._kept.get(source)
            if warm is not None:
                self._kept.move_to_end(source)
        if warm is None:
            warm = self._compile(table, source)
            with self._lock:
                self._kept[source] = warm
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return Matcher(warm.deep_copy(), table.vocab_size)

    def _compile(self, table: LLTokenizer, source: str) -> LLMatcher:
        """With its first mask, which takes longest. It lets the interpreter go.

        llguidance goes down into rules that name rules, on the stack, whose end would be the end of the process: the
        largest grammars need some 100 MB of it.
        """
        made: list[LLMatcher] = []
        thread = threading.Thread(target=lambda: made.append(_compiled(table, source)), daemon=True)
        with _STACKS:
            usual = threading.stack_size(_STACK)
            try:
                thread.start()
            finally:
                threading.stack_size(usual)
        thread.join()
        if not made or made[0].is_error():
            raise RequestError(_told(made[0].get_error() if made else "panic"), hint=_HINT)
        return made[0]

    def _table(self) -> LLTokenizer:
        if self._made is None:
            self._made = table_of(self.tokenizer, self._width)
        return self._made


def _compiled(table: LLTokenizer, source: str) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_lexer_states=_STATES, verbose_errors=False)
    matcher = LLMatcher(table, source, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()  # it raises nothing
    return matcher


def _told(error: str) -> str:
    """An error of llguidance in a line, without what it shows of the source, or of itself where it panicked."""
    if error.startswith("panic"):
        return "the grammar is too large, or too complex"
    if error.startswith("NoExtension"):
        return "nothing obeys the grammar"
    what = _SCHEMA.sub("the JSON schema: ", error.partition("\n   1 | ")[0].partition("\n<")[0])
    if what.startswith(_REFERENCE):
        what = what.replace("the JSON schema: ", "the JSON schema: $ref: ")
    return f"the grammar cannot be used: {' '.join(what.split())}"[:_LONGEST]
