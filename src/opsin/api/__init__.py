"""Models for people: open a file, ask, read the answer. The command, the server and Python users all stand here."""

from opsin.api.answer import Answer, PictureUse, Piece, TextEnding, Times, Usage
from opsin.api.byte_budget import ByteBudget
from opsin.api.files import Files
from opsin.api.loading import load
from opsin.api.media_folder import MediaFolder
from opsin.api.messages import Message
from opsin.api.model import Model
from opsin.api.question import Question
from opsin.engine.logprobs import Logprobs
from opsin.engine.sampling import Sampling

__all__ = [
    "Answer",
    "ByteBudget",
    "Files",
    "Logprobs",
    "MediaFolder",
    "Message",
    "Model",
    "Piece",
    "PictureUse",
    "Question",
    "Sampling",
    "TextEnding",
    "Times",
    "Usage",
    "load",
]
