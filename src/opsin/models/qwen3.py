"""Qwen 3: a norm before each part, norms of the heads of q and k, rotary positions of halves, SwiGLU.

With experts, each row passes through a few, whose shares are those of a softmax over all, divided by their sum.

GGUF: general.architecture = "qwen3" or "qwen3moe". Oracle: transformers' Qwen3ForCausalLM and Qwen3MoeForCausalLM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from opsin.gguf.rules import Judge, Tensor, constant
from opsin.gguf.text_rules import EXPERT_KEYS, expert_tensors, pre_norm_rules
from opsin.nn.decoder import PreNormDecoder

DECODERS = {
    "qwen3": partial(PreNormDecoder.load, prefix="qwen3", pairing="halves"),
    "qwen3moe": partial(PreNormDecoder.load, prefix="qwen3moe", pairing="halves"),
}
_MIXTURE = pre_norm_rules("qwen3moe", ("Qwen3MoeForCausalLM",), ("qwen3_moe",), *EXPERT_KEYS)
_JUDGE = Judge(
    "qwen3-reranker",
    ("yes", "no"),
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web '
    "search query, retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",  # what it was trained with
)
_TEXT = replace(pre_norm_rules("qwen3", ("Qwen3ForCausalLM",), ("qwen3",)), judge=_JUDGE)
RULES = (
    replace(
        _TEXT,
        classes=("Qwen3ForSequenceClassification",),
        types=(),
        keys=(*_TEXT.keys, constant("{arch}.pooling_type", 4, "int")),  # llama.cpp's number of one that ranks
        tensors=(*_TEXT.tensors, Tensor("score", "cls.output")),
    ),
    _TEXT,
    replace(_MIXTURE, tensors=(*_MIXTURE.tensors, *expert_tensors())),
)
