"""Prompts for the middle between two texts, for models that were taught to fill it in (Bavarian et al. 2022).

The layout and what is taken of long texts are llama-server's: texts of other files first, where the vocabulary has
tokens for repositories and files, then what stands before, what stands behind, and what is written already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opsin.api.model import Model
from opsin.api.question import Question
from opsin.errors import RequestError
from opsin.spans import Prompt, check_context
from opsin.text import Tokenizer

_BATCH = 2048  # tokens of both sides together, in a context of 4096 or more
_MARKERS = 4
_NEEDED = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_PROJECT, _FILE, _SNIPPET = "myproject\n", "filename\n", "\n\n--- snippet ---\n\n"

Texts = str | Sequence[str | Sequence[int]]  # a text, or texts and ids one after another


@dataclass(frozen=True)
class Gap:
    """What surrounds the text that is asked for.

    Attributes:
        prefix: what stands before it.
        suffix: what stands behind it.
        prompt: its beginning, which is gone on with.
        extra: names and texts of other files.
    """

    prefix: Texts
    suffix: Texts
    prompt: str = ""
    extra: tuple[tuple[str, str], ...] = ()


def missing_tokens(tokenizer: Tokenizer) -> list[str]:
    """Those without which nothing can be filled in; none for a model that was taught to."""
    return [name for role, name in _NEEDED.items() if tokenizer.fim[role] is None]


def infill(
    model: Model, gap: Gap, *, tokens: int = 0, check: Callable[[], None] = lambda: None, salt: bytes = b""
) -> Question:
    """The prompt for what stands in a gap. `tokens` are kept free for it. Raises RequestError where there is no way.

    `salt` as in `PromptOptions`.
    """
    tokenizer = model.tokenizer
    if missing := missing_tokens(tokenizer):
        raise RequestError(f"this model has no token for {', '.join(missing)}", hint="take one that fills in code")

    def ids(texts: Texts, *, special: bool = False) -> list[int]:
        pieces = [texts] if isinstance(texts, str) else texts
        return [
            id
            for piece in pieces
            for id in (tokenizer.encode(piece, special=special, check=check) if isinstance(piece, str) else piece)
        ]

    batch = min(_BATCH, model.context // 2)
    prompt = ids(gap.prompt, special=True)
    prefix, suffix = ids(gap.prefix)[-(3 * (batch // 4)) :], ids(gap.suffix)[: max(0, batch // 4 - 2 - len(prompt))]
    room = max(0, model.context - batch - 2 * tokens - _MARKERS)
    others = _extra(tokenizer, gap, ids)
    found = [
        *(others[-room:] if room else []),
        *([tokenizer.bos] if tokenizer.add_bos else []),
        *(tokenizer.fim["fim_pre"], *prefix, *prompt, tokenizer.fim["fim_suf"], *suffix, tokenizer.fim["fim_mid"]),
    ]
    known = [id for id in found if id is not None]
    check_context(len(known), model.context)
    return Question(Prompt.of([known], salt))


def _extra(tokenizer: Tokenizer, gap: Gap, ids: Callable[[Texts], list[int]]) -> list[int]:
    """Other files, and that the one that is asked for begins."""
    repository, file = tokenizer.fim["fim_rep"], tokenizer.fim["fim_sep"]
    found = [] if repository is None else [repository, *ids(_PROJECT)]
    for name, text in gap.extra:
        found += ids(_SNIPPET) if file is None else [file, *ids(f"{name}\n")]
        found += ids(text)
    return found if file is None else [*found, file, *ids(_FILE)]
