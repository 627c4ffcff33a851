"""The form of calls as a constraint: of those that must be made, and of those that a model begins by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from opsin.api.tools import Declaration, Tools
from opsin.engine.constraint import Constraint
from opsin.errors import FieldError, RequestError
from opsin.grammar import Grammar, Grammars, Trigger
from opsin.grammar.schema import inline
from opsin.text import Tokenizer
from opsin.text.calls import CallSpelling, ReplyFormat

_ANYTHING: Final = {"type": "object"}
_NOTHING: Final = {"type": "object", "properties": {}, "additionalProperties": False}


class CallForms:
    """Of one model. Any number of threads may share it."""

    def __init__(self, format: ReplyFormat, tokenizer: Tokenizer, grammars: Grammars) -> None:
        self._format, self._grammars = format, grammars
        self._spelling = CallSpelling(tokenizer.split, inline, tokenizer.end_ids)

    def start(self, tools: Tools, prompt: str, form: Grammar | None = None) -> Constraint | None:
        """What holds one reply to this prompt; None where nothing does.

        A form of the answer holds beside calls that may be made, and gives way to those that must be. Where a model
        may call, a schema that cannot be held to lets any arguments be. Raises FieldError, naming the schema, for such
        a one where it must call, or that is strict.
        """
        may, must = tools.callable, tools.mode == "required"
        if not may or not (must or self._format.trigger):
            return None if form is None else self._grammars.start(form)
        if form is not None and not must:
            return self._grammars.start(Grammar.either(self._calls(may, tools, prompt), form))
        try:
            return self._grammars.start(self._form(may, tools, prompt))
        except RequestError as error:
            known = [self._with_known_schema(number, tool, tools, prompt) for number, tool in enumerate(may)]
            if known == list(may):
                raise error
            return self._grammars.start(self._form(known, tools, prompt))

    def _form(self, may: Sequence[Declaration], tools: Tools, prompt: str) -> Grammar:
        grammar = self._calls(may, tools, prompt)
        return grammar if tools.mode == "required" else grammar.lazy(Trigger(self._format.trigger))

    def _calls(self, may: Sequence[Declaration], tools: Tools, prompt: str) -> Grammar:
        must, several = tools.mode == "required", tools.parallel is not False
        may = [_with_parameters(tool) for tool in may]
        text = self._format.grammar(may, self._spelling, required=must, several=several, prompt=prompt)
        return Grammar.lark(text)

    def _with_known_schema(self, number: int, tool: Declaration, tools: Tools, prompt: str) -> Declaration:
        """The tool, or the same with any arguments where its schema is what cannot be held to."""
        try:
            self._grammars.start(self._calls([tool], tools, prompt))
        except RequestError as error:
            function = tool["function"]
            assert isinstance(function, Mapping)
            if tools.mode == "required" or function.get("strict"):
                path = f"tools[{number}].function.parameters"
                raise FieldError(path, error.message, hint=error.hint) from None
            return {**tool, "function": {**function, "parameters": _ANYTHING}}
        return tool


def _with_parameters(tool: Declaration) -> Declaration:
    """A tool that says nothing of parameters has none."""
    function = tool["function"]
    assert isinstance(function, Mapping)
    return (
        tool if function.get("parameters") is not None else {**tool, "function": {**function, "parameters": _NOTHING}}
    )
