"""Jina BERT v2: BERT without positions, whose scores fall with the distance instead (ALiBi), and a gated FFN.

jina-embeddings-v2 are checkpoints of it; those for code and of two languages also norm q and k, and add a layer's
input twice.

GGUF: general.architecture = "jina-bert-v2"; ffn_up may hold the gate, too, before the rest. Oracle: a float64
definition, and llama.cpp.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf.rules import Settings, Tensor
from opsin.models.bert_encoders import BERT
from opsin.nn.encoder import TextEncoder

TEXT_ENCODERS = {
    "jina-bert-v2": partial(TextEncoder.load, prefix="jina-bert-v2", activation="gelu_erf", places="alibi"),
}
_LAYER = "encoder.layer.{n}"
_OWN = {
    f"{_LAYER}.mlp.gated_layers": "blk.{n}.ffn_up",
    f"{_LAYER}.mlp.wo": "blk.{n}.ffn_down",
    f"{_LAYER}.mlp.layernorm": "blk.{n}.layer_output_norm",
    # of the kind whose q and k are normed
    f"{_LAYER}.attention.self.layer_norm_q": "blk.{n}.attn_q_norm",
    f"{_LAYER}.attention.self.layer_norm_k": "blk.{n}.attn_k_norm",
    f"{_LAYER}.layer_norm_1": "blk.{n}.attn_norm_2",
    f"{_LAYER}.mlp.down_layer": "blk.{n}.ffn_down",
    f"{_LAYER}.layer_norm_2": "blk.{n}.layer_output_norm",
}


def _gate_first(values: Floats, settings: Settings) -> Floats:
    """That kind writes the gate behind the rest."""
    up, gate = np.split(values, 2)
    return np.concatenate([gate, up])


def _check(settings: Settings) -> None:
    kind = settings.find("feed_forward_type")
    if kind != "geglu":
        raise ModelError(f"{settings.where}: feed_forward_type is {kind!r:.40}", hint="only 'geglu' can be converted")


RULES = (
    replace(
        BERT,
        architecture="jina-bert-v2",
        classes=("JinaBertModel", "JinaBertForMaskedLM"),
        assumed={"position_embedding_type": "alibi"},
        tensors=(
            *(tensor for tensor in BERT.tensors if "position" not in tensor.source),
            *(Tensor(begin + theirs, ours) for begin in ("", "bert.") for theirs, ours in _OWN.items()),
            *(Tensor(f"{begin}{_LAYER}.mlp.up_gated_layer", "blk.{n}.ffn_up", _gate_first) for begin in ("", "bert.")),
        ),
        check=_check,
    ),
)
