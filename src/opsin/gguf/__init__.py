"""GGUF files: one view over a file, its splits, or a model with its projector; and a writer.

This room knows the container: metadata, tensor shapes and raw blocks. What blocks mean is for `quants`, what keys
mean is for the rooms that ask for them.
"""

from opsin.gguf.file import File
from opsin.gguf.header import TensorInfo
from opsin.gguf.new_tensor import MadeRows, NewTensor
from opsin.gguf.strings import Strings
from opsin.gguf.tensor_type import TENSOR_TYPES, TensorType
from opsin.gguf.unwritten import open_unwritten
from opsin.gguf.value import Typed, Value, ValueType
from opsin.gguf.writer import check_target, write

__all__ = [
    "TENSOR_TYPES",
    "File",
    "NewTensor",
    "MadeRows",
    "Strings",
    "TensorInfo",
    "TensorType",
    "Typed",
    "Value",
    "ValueType",
    "check_target",
    "open_unwritten",
    "write",
]
