"""Logits of a whole prompt, beside whatever else runs.

Thread: anybody's; what needs the device runs on the engine's, between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from opsin.arrays import Floats
from opsin.engine.engine import Engine
from opsin.engine.rows import PromptRows
from opsin.engine.runner import Runner
from opsin.spans import MediaSpan, Prompt


def score(engine: Engine, runner: Runner, prompt: Prompt, sizes: Sequence[int] = ()) -> Floats:
    """float32 [rows, vocabulary] after each row of a prompt; its media is encoded first. `sizes` as `Runner.score`."""
    media = [span for span in prompt.spans if isinstance(span, MediaSpan)]
    if media:
        engine.embed(media)

    def run() -> Floats:
        memory = engine.memory.borrow(PromptRows(prompt))
        try:
            pages = engine.borrow_pages(len(prompt))
            try:
                return runner.score(prompt, pages, sizes, memory=memory)
            finally:
                engine.return_pages(pages)
        finally:
            engine.memory.pool.give_back(memory)

    return engine.call(run)
