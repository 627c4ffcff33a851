"""What sampling options say of single ids, with the texts among them read: biases, ids that never come, breakers.

Thread: whoever submits makes them; what they remember of tokens is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from opsin.engine.sampling import MOST_BIASES, Sampling
from opsin.errors import FieldError, RequestError

Ids = tuple[int, ...]

_LONGEST_BREAKER = 40  # bytes
_LONGEST_TAIL = 20  # ids


class Spelling(Protocol):
    """What is needed of a tokenizer to read texts among options."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, in which no special token is read."""
        ...

    def piece(self, id: int, *, special: bool = False) -> bytes:
        """What an id stands for."""
        ...


class Breakers:
    """Where runs of ids end that DRY looks at: wherever one of some texts stands.

    An id that holds such a text is a breaker alone; one that ends with the beginning of it is one together with
    the ids of the rest. An id is looked at when it is first met.
    """

    def __init__(self, texts: Iterable[str], spelling: Spelling | None) -> None:
        self._texts = [text.encode()[:_LONGEST_BREAKER] for text in texts]
        self._spelling = spelling
        self._known: dict[int, tuple[Ids, ...]] = {}

    def tails(self, id: int) -> tuple[Ids, ...]:
        """Ids that make it a breaker when they follow: none, if it is one alone; no tails at all if it never is."""
        found = self._known.get(id)
        if found is None:
            found = self._known[id] = self._find(id)
        return found

    def _find(self, id: int) -> tuple[Ids, ...]:
        if self._spelling is None or not self._texts:
            return ()
        word = self._spelling.piece(id, special=True)
        tails: list[Ids] = []
        for text in self._texts:
            if text in word:
                tails.append(())
                continue
            for length in range(min(len(text) - 1, len(word)), 0, -1):
                if word.endswith(text[:length]):
                    rest = text[length:].decode("utf-8", "replace")
                    tails.append(tuple(self._spelling.encode(rest)[:_LONGEST_TAIL]))
        return tuple(dict.fromkeys(tails))


NO_BREAKERS: Final = Breakers((), None)


@dataclass(frozen=True)
class TokenRules:
    """What holds for single ids, as long as an answer runs.

    Attributes:
        biases: what is added to logits, by id; minus infinity for ids that never come.
        banned: runs of ids of which the last may not follow the others, by the last but one.
        breakers: where runs of ids end that DRY looks at.
    """

    biases: Mapping[int, float] = field(default_factory=dict)
    banned: Mapping[int, Sequence[Ids]] = field(default_factory=dict)
    breakers: Breakers = NO_BREAKERS

    @classmethod
    def of(
        cls, sampling: Sampling, spelling: Spelling | None = None, *, vocabulary: int, suppressed: Iterable[int] = ()
    ) -> TokenRules:
        """Read the texts among options by `spelling`; ids that the model's file suppresses never come.

        Raises RequestError for ids outside the vocabulary, and for texts without a spelling.
        """
        biases: dict[int, float] = {}
        for token, bias in sampling.biases:
            for id in [token] if isinstance(token, int) else dict.fromkeys(_need(spelling).encode(token)):
                biases[id] = biases.get(id, 0.0) + bias
        banned = [run for text in sampling.bad_words for run in _runs(text, _need(spelling))]
        if len(biases) > MOST_BIASES:
            raise FieldError("logit_bias", f"on {len(biases)} tokens", hint=f"name at most {MOST_BIASES}")
        biases |= {run[0]: -math.inf for run in banned if len(run) == 1}
        biases |= dict.fromkeys((id for id in suppressed if id < vocabulary), -math.inf)
        named = {"logit_bias": biases, "stop_token_ids": sampling.stop_token_ids}
        for name, ids in (*named.items(), ("allowed_token_ids", sampling.allowed_token_ids)):
            for id in ids:
                if not 0 <= id < vocabulary:
                    raise FieldError(name, f"id {id} lies outside the vocabulary of {vocabulary}")
        breakers = Breakers(sampling.dry_sequence_breakers, spelling) if sampling.dry_multiplier else NO_BREAKERS
        longer: dict[int, list[Ids]] = {}
        for run in banned:
            if len(run) > 1:
                longer.setdefault(run[-2], []).append(run)
        return cls(biases, longer, breakers)


def _need(spelling: Spelling | None) -> Spelling:
    if spelling is None:
        raise RequestError("texts among options of sampling need a tokenizer", hint="give ids")
    return spelling


def _runs(text: str, spelling: Spelling) -> Iterable[Ids]:
    """How a word may stand in an answer: by itself, or after a space where that makes it other ids."""
    alone = tuple(spelling.encode(text.strip() or text))
    spaced = tuple(spelling.encode(" " + text.strip()))
    yield from (run for run in dict.fromkeys((alone, spaced)) if run)
