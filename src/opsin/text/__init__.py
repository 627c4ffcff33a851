"""Text: tokenizers from GGUF metadata, chat templates, and text out of tokens. It reads no files."""

from opsin.text.detokenizer import Detokenizer
from opsin.text.protection import protect, protect_values, split_at_marker
from opsin.text.stop import StopStrings
from opsin.text.template import ChatTemplate, ContentForm
from opsin.text.tokenizer import Tokenizer
from opsin.text.vocabulary import vocabulary_type

__all__ = [
    "ChatTemplate",
    "ContentForm",
    "Detokenizer",
    "StopStrings",
    "Tokenizer",
    "protect",
    "protect_values",
    "split_at_marker",
    "vocabulary_type",
]
