"""Text: tokenizers from GGUF metadata, chat templates, and text out of tokens. It reads no files."""

from opsin.text.capabilities import Capabilities, ContentForm
from opsin.text.detokenizer import Detokenizer
from opsin.text.escaping import escape_special_tokens, split_at_marker, split_at_markers
from opsin.text.lines import LineLimits, Lines
from opsin.text.origin import Written, join, written
from opsin.text.stop import StopStrings
from opsin.text.template import ChatTemplate
from opsin.text.tokenizer import Tokenizer
from opsin.text.vocabulary import vocabulary_type

__all__ = [
    "Capabilities",
    "ChatTemplate",
    "ContentForm",
    "Detokenizer",
    "LineLimits",
    "Lines",
    "StopStrings",
    "Tokenizer",
    "Written",
    "join",
    "escape_special_tokens",
    "split_at_marker",
    "split_at_markers",
    "vocabulary_type",
    "written",
]
