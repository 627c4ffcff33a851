"""The part of a model that reads text, and writes it where it can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opsin.api.facts import Facts
from opsin.api.prompting import Prompting
from opsin.api.replies import Replies
from opsin.engine.engine import Engine
from opsin.engine.pooling import Pooler
from opsin.engine.runner import Runner
from opsin.grammar import Grammars
from opsin.nn.rank import RankHead
from opsin.text import Tokenizer

if TYPE_CHECKING:
    from opsin.api.speech.hearing import Hearing


@dataclass(frozen=True, eq=False)
class Text:
    """What such a part is made of."""

    runner: Runner
    engine: Engine
    pooler: Pooler
    tokenizer: Tokenizer
    grammars: Grammars
    prompting: Prompting
    replies: Replies
    facts: Facts
    hearing: Hearing | None = None
    rank_head: RankHead | None = None
