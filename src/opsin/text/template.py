"""Chat templates: a conversation becomes the text that a model was trained on.

The template is a Jinja program out of the model's file; `sandbox` keeps it within limits. Texts that are `Written` stay
so in the result: whoever encodes it escapes them first (see `origin`, `escaping`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import CodeType

import jinja2

from opsin.errors import ModelError, RequestError, TemplateError
from opsin.text.budget import Budget, LimitError
from opsin.text.capabilities import Capabilities, ContentForm
from opsin.text.generator import MAX_CODE, MAX_SOURCE
from opsin.text.history import fit
from opsin.text.keys import read_int, read_text, read_texts
from opsin.text.origin import Written, join
from opsin.text.sandbox import RefusalError, RenderEnvironment, shorten
from opsin.text.vocabulary import PREFIX

KEY = "tokenizer.chat_template"
_REASONING = ("reasoning_content", "thinking", "reasoning")
_TRIAL_SECONDS = 0.45  # of all trials together
_COMPILE_SECONDS = 0.4
_FAILURES = (
    jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, NameError,
    AssertionError, RuntimeError, MemoryError, SyntaxError,
)  # fmt: skip  # what a stranger's program may raise
_TOKENS = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "sep_token": "seperator",
    "mask_token": "mask",
}  # fmt: skip


class ChatTemplate:
    """The template of a model, with its named variants (`tool_use` and the like)."""

    def __init__(self, source: str, *, variants: Mapping[str, str] | None = None,
                 tokens: Mapping[str, str] | None = None) -> None:  # fmt: skip
        self.source = source
        self.variants = dict(variants or {})
        self._tokens = dict(tokens or {})
        self._compiled: dict[str, CodeType | TemplateError] = {}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> ChatTemplate | None:
        """The file's template, or None where it has none. `tokenizer.chat_template.NAME` are its variants."""
        prefix = f"{KEY}."
        found = {key.removeprefix(prefix): read_text(metadata, key) for key in metadata if key.startswith(prefix)}
        variants = {name: text for name, text in found.items() if text is not None}
        source = read_text(metadata, KEY) if KEY in metadata else variants.get("default")
        if source is None:
            return None
        return cls(source, variants=variants, tokens=_read_tokens(metadata))

    def render(
        self, messages: Sequence[Mapping[str, object]], *, add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None, **extra: object,
    ) -> str:  # fmt: skip
        """The conversation as text. `extra` are variables of the template (`enable_thinking`, `documents`).

        A list of parts as content goes to the template as it is, or as their joined text where the template wants
        text. Raises RequestError where the template refuses the conversation, ModelError where it fails by itself.
        """
        conversation = [self._in_form(_to_plain(_with_thoughts(message))) for message in messages]
        variables = {name: _to_plain(value) for name, value in extra.items()}
        return self._run(
            self._choose(tools),
            {
                **self._tokens, "tools": _to_plain(list(tools)) if tools is not None else None, "documents": None,
                **variables, "messages": conversation, "add_generation_prompt": add_generation_prompt,
            },
            Budget(),
        )  # fmt: skip

    def fit(self, messages: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
        """A history as OpenAI's clients write it, as `render` takes it: see `history`."""
        return fit(messages, self.capabilities)

    def names(self, role: str) -> bool:
        """Whether it speaks of this role."""
        return any(f"{quote}{role}{quote}" in self.source for quote in "'\"")

    @cached_property
    def capabilities(self) -> Capabilities:
        """What it can take, found by trying. Ask once before threads do."""
        trial = self.trial()
        asked = [{"role": "user", "content": ""}]
        needs_tools = not trial(asked, add_generation_prompt=True, tools=None)  # a variant for tools alone

        def shown(messages: Sequence[Mapping[str, object]]) -> str:
            return trial(messages, add_generation_prompt=True, tools=[] if needs_tools else None)

        return Capabilities.of(self.source, shown)

    def trial(self) -> Callable[..., str]:
        """Renders small conversations as they are, with any variables; "" where it fails.

        All of them have one budget of time together. Raises TemplateError, caused by a LimitError, once it is spent:
        whoever tries goes on without.
        """
        left = _TRIAL_SECONDS

        def trial(messages: Sequence[Mapping[str, object]], *, tools: object, **variables: object) -> str:
            nonlocal left
            given = {**self._tokens, "tools": tools, "documents": None, **variables, "messages": messages}
            budget = Budget(left)
            try:
                return self._run(self._choose(tools), given, budget)
            except (RequestError, ModelError) as error:
                if isinstance(error.__cause__, LimitError):
                    raise  # it would be asked in vain once more
                return ""
            finally:
                left -= budget.spent

        self._compile(self.source)  # which takes longer than all trials
        return trial

    def _choose(self, tools: object) -> str:
        return self.variants["tool_use"] if tools and "tool_use" in self.variants else self.source

    def _in_form(self, message: object) -> object:
        """The message with its content in the form that the template wants."""
        if not isinstance(message, dict) or not isinstance(content := message.get("content"), str | list):
            return message
        form, is_result = self.capabilities.content, message.get("role") == "tool"
        if isinstance(content, list) and (
            form == ContentForm.TEXT or (is_result and not self.capabilities.tool_parts and _are_texts(content))
        ):
            return {**message, "content": _joined(content)}
        if isinstance(content, str) and form == ContentForm.PARTS:
            return {**message, "content": [{"type": "text", "text": content}]}
        return message

    def _run(self, source: str, variables: Mapping[str, object], budget: Budget) -> str:
        code = self._compile(source)
        if isinstance(code, TemplateError):
            raise TemplateError(code.message, hint=code.hint) from code.__cause__
        with _errors_of_templates(), budget:
            environment = RenderEnvironment(budget)
            template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
            context = template.new_context(dict(variables))
            try:
                return _collect(template.root_render_func(context), budget)
            finally:
                context.vars.clear()
                context.parent.clear()
                environment.forget()

    def _compile(self, source: str) -> CodeType | TemplateError:
        """Once, also where it fails."""
        if source not in self._compiled:
            try:
                self._compiled[source] = _to_code(source)
            except TemplateError as error:
                failure = TemplateError(error.message, hint=error.hint)
                failure.__cause__ = error.__cause__ and error.__cause__.with_traceback(None)
                self._compiled[source] = failure
        return self._compiled[source]


def _to_code(source: str) -> CodeType:
    with _errors_of_templates():
        if len(source) > MAX_SOURCE:
            raise LimitError(f"the chat template has {len(source)} characters")
        with Budget(_COMPILE_SECONDS) as budget:
            python = RenderEnvironment(budget).compile(source, raw=True)
        if len(python) > MAX_CODE:
            raise LimitError(f"the chat template becomes {len(python)} characters of Python")
        return compile(python, "<chat template>", "exec")


@contextmanager
def _errors_of_templates() -> Iterator[None]:
    """Whatever a stranger's program raises becomes an error of ours."""
    try:
        yield
    except RefusalError as error:
        raise RequestError(f"the chat template refuses this conversation: {error}",
                           hint="change roles or contents of the messages") from error  # fmt: skip
    except RecursionError as error:
        raise TemplateError("the chat template recurses without end", hint="give another template") from error
    except LimitError as error:
        raise TemplateError(str(error), hint="give another template, or fewer and shorter messages") from error
    except _FAILURES as error:
        raise TemplateError(f"the chat template fails: {type(error).__name__}: {shorten(str(error))}",
                            hint="give another template, or messages of the form it expects") from error  # fmt: skip


def _collect(pieces: Iterator[str], budget: Budget) -> str:
    texts: list[str] = []
    letters, wide = 0, 1
    for piece in pieces:
        letters, wide = letters + len(piece), wide if piece.isascii() else 4
        budget.make(8)
        budget.expect(letters * wide)
        texts.append(piece)
    return budget.check(join("", budget.walk(texts)))


def _read_tokens(metadata: Mapping[str, object]) -> dict[str, str]:
    """Texts of the special tokens that templates write by name; a token that the file does not name is left out."""
    texts = read_texts(metadata, f"{PREFIX}tokens")
    found = {}
    for name, role in _TOKENS.items():
        id = read_int(metadata, f"{PREFIX}{role}_token_id")
        if id is not None and 0 <= id < len(texts):
            found[name] = texts[id]
    return found


def _with_thoughts(message: Mapping[str, object]) -> Mapping[str, object]:
    """Templates read what an assistant thought under different names; each finds it under its own."""
    thought = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


def _to_plain(value: object) -> object:
    """A copy out of plain JSON types: templates come from strangers, and get no objects with methods."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Written):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _are_texts(parts: Sequence[object]) -> bool:
    return all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in parts)


def _joined(parts: Sequence[object]) -> str:
    texts = []
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(text := part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RequestError(f"the chat template has no place for content of the kind {kind!r}",
                               hint="give text only, or a model that takes such content")  # fmt: skip
        texts.append(text)
    return join("\n", texts)
