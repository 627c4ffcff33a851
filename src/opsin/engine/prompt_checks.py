"""What a prompt must be for a step to compute it: refused where it comes in, since a step's failure is everybody's.

Thread: anybody's.
"""

from __future__ import annotations

import numpy as np

from opsin.engine.memory import MemoryPages
from opsin.engine.rows import PromptRows
from opsin.engine.runner import Runner
from opsin.errors import RequestError
from opsin.nn.batch import MEMORY
from opsin.spans import MediaSpan, Prompt, TextSpan


class PromptChecks:
    """What one runner can compute."""

    def __init__(self, runner: Runner, memory: MemoryPages, *, takes_media: bool) -> None:
        self._runner, self._memory, self._takes_media = runner, memory, takes_media

    def check(self, prompt: Prompt) -> None:
        """Raises RequestError for an empty one, and for ids or media that cannot be computed."""
        if len(prompt) == 0:
            raise RequestError("the prompt is empty", hint="give at least one token")
        ids, remembers = self._runner.ids, False
        for span in prompt.spans:
            if not isinstance(span, TextSpan):
                self.check_media(span)
                remembers = remembers or span.memory > 0
                continue
            wrong = next((i for i in span.ids if not 0 <= i < ids), None)
            if wrong is not None:
                raise RequestError(f"id {wrong} lies outside the vocabulary of {ids}")
        if remembers:
            self._memory.check(PromptRows(prompt))

    def check_media(self, span: MediaSpan) -> None:
        """The same of one piece of media."""
        if not self._takes_media:
            raise RequestError("the prompt holds media", hint="this model takes text only")
        if span.atomic and span.rows > self._runner.limits.rows:
            raise RequestError(
                f"a picture takes {span.rows} tokens that see each other, a step holds {self._runner.limits.rows}",
                hint="give a smaller picture",
            )
        if not 0 <= span.first <= span.shown.stop <= span.kept:
            raise RequestError(f"a span shows embeddings {span.first} to {span.shown.stop} of {span.kept}")
        if span.memory and MEMORY not in self._runner.decoder.groups:
            raise RequestError("the prompt holds media for cross-attention", hint="this model has none")
        if span.embeddings is not None:
            wanted = (span.kept, self._runner.decoder.media_width)
            if span.embeddings.shape != wanted or not np.isfinite(span.embeddings).all():
                raise RequestError(
                    f"embeddings {span.embeddings.shape} of a picture, where {wanted} finite numbers are needed"
                )
        elif span.features is None:
            raise RequestError("a picture has neither features nor embeddings", hint="prepare it with this model")
