"""Embeddings of texts: what they are asked with, and how the vectors look in the end.

An embedding is what a model's states after its last norm come to: their mean, the first one's or the last one's
(`Pooling`), as the file says, or as is usual: the last one's of a decoder, the mean of an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, get_args, overload

import numpy as np

from opsin.api.arguments import check_ids, check_type, check_whole
from opsin.api.question import Question
from opsin.api.text_part import Text
from opsin.arrays import Floats
from opsin.engine.pooling import Pooling
from opsin.errors import RequestError
from opsin.process import Stays
from opsin.spans import Prompt

EmbeddingInput = str | Sequence[int] | Question | Prompt
POOLINGS = get_args(Pooling)
L2, _INT16 = 2, 32760
_INPUTS = 'give a text, ids, or what `raw` makes; or a list of such, as ["one", "two"]'


class Embeds(Stays):
    """The part of `Model` that makes vectors."""

    @property
    def text(self) -> Text:
        """The part that reads."""
        raise NotImplementedError

    @overload
    def embed(  # type: ignore[overload-overlap]  # a text is one
        self, inputs: str | Question | Prompt, *, pooling: Pooling | None = None, normalize: bool = True,
        dimensions: int | None = None, check: Callable[[], None] = lambda: None,
    ) -> Floats: ...  # fmt: skip
    @overload
    def embed(
        self, inputs: Sequence[EmbeddingInput], *, pooling: Pooling | None = None, normalize: bool = True,
        dimensions: int | None = None, check: Callable[[], None] = lambda: None,
    ) -> list[Floats]: ...  # fmt: skip
    def embed(
        self, inputs: EmbeddingInput | Sequence[EmbeddingInput], *, pooling: Pooling | None = None,
        normalize: bool = True, dimensions: int | None = None, check: Callable[[], None] = lambda: None,
    ) -> Floats | list[Floats]:  # fmt: skip
        """A vector float32 [width] of an input, or one of each of a list, which are computed together.

        An input is a text, a list of ids, or what `raw` and `question` make, with or without pictures. What the file
        adds to texts (BOS, EOS) is added to texts alone; texts of special tokens are ordinary text here.

        Args:
            pooling: "mean", "cls" (the first token's), "last" or "none": one vector of each token
                [tokens, width]. None takes the file's, else what is usual.
            normalize: to a length of 1 (L2); not where nothing is pooled.
            dimensions: keep so many of the first values, before that (Matryoshka embeddings, Kusupati et al. 2022,
                arXiv 2205.13147).
            check: called now and then; what it raises ends the work.
        """
        single = isinstance(inputs, str | Question | Prompt)
        many = cast("Sequence[EmbeddingInput]", [inputs] if single else inputs)
        check_type(many, Sequence, "inputs", _INPUTS)  # type: ignore[type-abstract]
        check_type(normalize, bool, "normalize")
        pooling = self.pooling if pooling is None else check_pooling(pooling)
        if dimensions is not None:
            self.check_dimensions(dimensions)
        prompts = [self.embedding_prompt(one, check=check) for one in many]
        found = self.text.pooler.pool(prompts, pooling, check=check)
        made = [shortened(one, dimensions, L2 if normalize and pooling != "none" else -1) for one in found]
        return made[0] if single else made

    @property
    def pooling(self) -> Pooling:
        """What becomes of a text's states where nobody says otherwise."""
        return self.text.facts.pooling or ("last" if self.writes else "mean")

    @property
    def writes(self) -> bool:
        """Whether it answers; other models make embeddings alone."""
        return self.text.runner.writes

    def embedding_prompt(self, given: EmbeddingInput, *, check: Callable[[], None] = lambda: None) -> Prompt:
        """An input of `embed` as rows. Raises RequestError for what is none."""
        if isinstance(given, Question | Prompt):
            return given.prompt if isinstance(given, Question) else given
        if not isinstance(given, str):
            return Prompt.of([check_ids(given, self.text.runner.ids)])
        self.text.prompting.refuse_too_long([given], (), self.text.engine.context + 1, special=False)
        return Prompt.of([self.text.tokenizer.encode(given, add_special=True, check=check)])

    def check_dimensions(self, dimensions: int) -> None:
        """Raises RequestError where an embedding has not so many values."""
        check_whole(dimensions, "dimensions")
        width = self.text.pooler.width
        if dimensions > width:
            raise RequestError(f"dimensions={dimensions}", hint=f"embeddings of this model have {width}")


def check_pooling(given: object) -> Pooling:
    """The same, if it is one; else RequestError."""
    if not isinstance(given, str) or given not in POOLINGS:
        raise RequestError(f"pooling={given!r:.80}", hint=f"give one of {', '.join(POOLINGS)}")
    return cast(Pooling, given)


def shortened(values: Floats, dimensions: int | None, norm: int) -> Floats:
    """values [width] or [tokens, width], of each so many of the first (None: all), made as long as `norm` says.

    -1 leaves them, 0 makes the largest 32760 (as llama.cpp does for int16), p makes their p-norm 1.
    """
    cut = values[..., :dimensions].astype(np.float64)
    if norm < 0:
        return cast(Floats, cut.astype(np.float32))
    sizes = np.abs(cut)
    largest = np.maximum(sizes.max(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    if norm == 0:
        return cast(Floats, (cut / largest * _INT16).astype(np.float32))
    length = largest * ((sizes / largest) ** norm).sum(axis=-1, keepdims=True) ** (1 / norm)
    return cast(Floats, (cut / length).astype(np.float32))
