"""The tokens by which a model of speech is asked, and tells languages and moments (Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opsin.errors import ModelError, RequestError
from opsin.text import Tokenizer

STEP = 0.02  # seconds from one moment to the next
_TASKS = ("transcribe", "translate")


@dataclass(frozen=True)
class SpeechIds:
    """Ids.

    Attributes:
        end: of what is written of a window; ids below it are text.
        start: of all that is asked.
        previous: what was written before stands behind it.
        bare: asks for text without moments.
        silent: says that nobody speaks.
        first_moment: the beginning of a window; each further one is 0.02 seconds later.
        tasks: by name.
        languages: by code.
    """

    end: int
    start: int
    previous: int
    bare: int
    silent: int
    first_moment: int
    tasks: Mapping[str, int]
    languages: Mapping[str, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, has_languages: bool) -> SpeechIds:
        """Found by their texts. Raises ModelError where one is missing."""

        def find(*names: str) -> int:
            for name in names:
                ids = tokenizer.encode(f"<|{name}|>", special=True)
                if len(ids) == 1:
                    return ids[0]
            raise ModelError(f"the vocabulary has no <|{names[0]}|>", hint="the file is no model that transcribes")

        start, bare = find("startoftranscript"), find("notimestamps")
        tasks = {name: find(name) for name in _TASKS} if has_languages else {}
        codes = range(start + 1, min(tasks.values())) if has_languages else range(0)
        languages = {tokenizer.piece(id, special=True).decode("utf-8", "replace").strip("<|>"): id for id in codes}
        silent = find("nospeech", "nocaptions")
        return cls(find("endoftext"), start, find("startofprev"), bare, silent, bare + 1, tasks, languages)

    def question(self, language: str | None, task: str, *, timed: bool) -> list[int]:
        """What is asked of a window, in ids."""
        told = [self.languages[language], self.tasks[task]] if language is not None else []
        return [self.start, *told, *([] if timed else [self.bare])]

    def check_language(self, code: str) -> str:
        """A code as the vocabulary has it. Raises RequestError for a language that the model does not know."""
        found = code.strip().lower().partition("-")[0]
        if found not in self.languages:
            known = ", ".join(sorted(self.languages)[:120]) or "English alone"
            raise RequestError(f"the model knows no language {code!r:.40}", hint=f"it knows {known}")
        return found

    def check_task(self, task: str) -> str:
        """Raises RequestError for what it cannot do."""
        if task not in _TASKS:
            raise RequestError(f"task={task!r:.40}", hint=f"give one of {', '.join(_TASKS)}")
        if task == "translate" and not self.tasks:
            raise RequestError("this model knows English alone", hint="load one of all languages to translate")
        return task
