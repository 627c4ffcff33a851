"""Models for people: open a file, ask, read the answer. The command, the server and Python users all stand here."""

from opsin.api.answer import Answer, PictureUse, Usage
from opsin.api.files import Files
from opsin.api.loading import load
from opsin.api.messages import Message
from opsin.api.model import Model, Question
from opsin.api.vision import Embeddings

__all__ = ["Answer", "Embeddings", "Files", "Message", "Model", "PictureUse", "Question", "Usage", "load"]
