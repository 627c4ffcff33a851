"""Forms that answers can be held to: JSON schemas, regular expressions, grammars. What may follow is llguidance's work.

A `Grammar` is of no model; `Grammars` starts one for the vocabulary of a model, and a `Matcher` follows one answer.
It knows nothing of engines, requests or files.
"""

from opsin.grammar.grammar import Grammar, Trigger
from opsin.grammar.grammars import Grammars
from opsin.grammar.matcher import LazyMatcher, Matcher

__all__ = ["Grammar", "Grammars", "LazyMatcher", "Matcher", "Trigger"]
