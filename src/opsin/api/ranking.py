"""Ranking: how well each of some documents answers a query, by the model's own head, or by what their embeddings share.

What a pair looks like is the file's template named `rerank`, else both texts with the tokens around and between them
that the model was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from opsin.api.arguments import check_texts, check_type
from opsin.api.embedding import Embeds
from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.nn.rank import RankHead
from opsin.spans import Prompt, TextSpan
from opsin.text import Written, escape_special_tokens, join

_QUERY, _DOCUMENT = "{query}", "{document}"


@dataclass(frozen=True)
class RankedDocument:
    """A document by its place in what was asked: the larger the score the better, on a scale of the model's own."""

    index: int
    score: float


class Ranks(Embeds):
    """The part of `Model` that ranks."""

    def rerank(
        self, query: str, documents: Sequence[str], *, check: Callable[[], None] = lambda: None
    ) -> list[RankedDocument]:  # fmt: skip
        """Documents from the best answer to a query to the worst; equal ones in their order.

        Scores are what the head of a model that ranks gives (of yes and no the probability of yes), else the cosine of
        two embeddings. `check` is called now and then: what it raises ends the work.
        """
        prompts = list(self.ranking_prompts(query, documents, check=check))
        return ranked(self.scores(prompts, check=check))

    def ranking_prompts(
        self, query: str, documents: Sequence[str], *, check: Callable[[], None] = lambda: None
    ) -> Iterator[Prompt]:
        """What `scores` takes, made one by one: each pair, or without a head the query and then each document."""
        check_type(query, str, "query")
        check_texts(documents, "documents")
        if self.text.rank_head is None:
            yield from (self.embedding_prompt(text, check=check) for text in (query, *documents))
            return
        for document in documents:
            check()
            self.text.prompting.refuse_too_long([query, document], (), self.text.engine.context + 1, special=False)
            yield self._pair(query, document, check)

    def scores(self, prompts: Sequence[Prompt], *, check: Callable[[], None] = lambda: None) -> Floats:
        """float32 [documents], of what `ranking_prompts` made."""
        text, head = self.text, self.text.rank_head
        if not isinstance(prompts, list | tuple) or not all(isinstance(one, Prompt) for one in prompts):
            raise RequestError(f"prompts={prompts!r:.80}", hint="give a list of what ranking_prompts made")
        if not prompts:
            return np.zeros(0, np.float32)
        if head is None:
            query, *others = self.embed(prompts, check=check)
            return np.array([other @ query for other in others], np.float32)
        states = text.pooler.pool(prompts, "last" if self.writes else head.pooling, check=check)
        return text.engine.call(lambda: _scores(head, text.runner.device.eager().constant, states))

    def _pair(self, query: str, document: str, check: Callable[[], None]) -> Prompt:
        tokenizer, template = self.text.tokenizer, self.text.facts.rank_template
        if template:
            before, _, rest = template.partition(_QUERY)
            between, _, behind = rest.partition(_DOCUMENT)
            said = join("", [before, Written(query), between, Written(document), behind])
            ids = tokenizer.encode(escape_special_tokens(said, tokenizer), special=True, add_special=True, check=check)
            return Prompt.of([ids])
        first = tokenizer.encode(query, add_special=True, check=check)
        second = tokenizer.encode(document, check=check)
        return Prompt.of([first, TextSpan((*tokenizer.between, *second, *tokenizer.behind), 1)])


def ranked(scores: Floats) -> list[RankedDocument]:
    """From the largest score to the smallest."""
    if not np.isfinite(scores).all():
        raise RequestError("the scores are no numbers", hint="the file is damaged, or overflows")
    return [RankedDocument(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")]


def _scores(head: RankHead, constant: Callable[..., object], states: Sequence[Floats]) -> Floats:
    return head.scores(constant(np.stack(states)))  # type: ignore[arg-type]
