"""BERT, RoBERTa, XLM-R and nomic-bert: learned positions, a norm after each part, every token sees all.

bge, MiniLM, e5 and their like are checkpoints of it. Nomic's has rotary positions and a gated FFN.

GGUF: general.architecture = "bert" or "nomic-bert". Oracle: transformers' BertModel, XLMRobertaModel and
NomicBertModel.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from opsin.arrays import Floats
from opsin.gguf.rules import Key, Rules, Settings, Shape, Tensor, constant
from opsin.gguf.text_rules import HEADS
from opsin.nn.encoder import TextEncoder

TEXT_ENCODERS = {
    "bert": partial(TextEncoder.load, prefix="bert", activation="gelu_erf", places="table"),
    "nomic-bert": partial(TextEncoder.load, prefix="nomic-bert", activation="silu", places="rope"),
}


def _skipped(settings: Settings) -> int:
    """Rows of RoBERTa's table of positions that no token has: it counts from behind the padding's id."""
    return settings.number("pad_token_id", 1) + 1


def _behind(values: Floats, settings: Settings) -> Floats:
    return values[_skipped(settings) :]


def _fewer(shape: Shape, settings: Settings) -> Shape:
    return (shape[0] - _skipped(settings), *shape[1:])


_NAMES = {
    "hidden_size": "hidden_size|n_embd", "num_hidden_layers": "num_hidden_layers|n_layer",
    "intermediate_size": "intermediate_size|n_inner", "max_position_embeddings": "max_position_embeddings|n_positions",
}  # fmt: skip
_KEYS = (
    Key("{arch}.context_length", _NAMES["max_position_embeddings"]),
    Key("{arch}.embedding_length", _NAMES["hidden_size"]),
    Key("{arch}.block_count", _NAMES["num_hidden_layers"]),
    Key("{arch}.feed_forward_length", _NAMES["intermediate_size"]),
    Key("{arch}.attention.head_count", f"{HEADS}|n_head"),
    Key("{arch}.attention.layer_norm_epsilon", "layer_norm_eps|layer_norm_epsilon", "float", 1e-12),
    constant("{arch}.attention.causal", False, "bool"),
    Key("tokenizer.ggml.token_type_count", "type_vocab_size", "int", 2),
)


def _tensors(*begins: str, positions: Tensor) -> tuple[Tensor, ...]:
    """Those of BERT's own names, which heads of checkpoints put something before."""
    layer = "encoder.layer.{n}"
    names = {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.LayerNorm": "token_embd_norm",
        f"{layer}.attention.self.query": "blk.{n}.attn_q",
        f"{layer}.attention.self.key": "blk.{n}.attn_k",
        f"{layer}.attention.self.value": "blk.{n}.attn_v",
        f"{layer}.attention.output.dense": "blk.{n}.attn_output",
        f"{layer}.attention.output.LayerNorm": "blk.{n}.attn_output_norm",
        f"{layer}.intermediate.dense": "blk.{n}.ffn_up",
        f"{layer}.output.dense": "blk.{n}.ffn_down",
        f"{layer}.output.LayerNorm": "blk.{n}.layer_output_norm",
    }
    found = [Tensor(begin + theirs, ours) for begin in begins for theirs, ours in names.items()]
    return (*found, *(replace(positions, source=begin + positions.source) for begin in begins))


_RANKS = constant("{arch}.pooling_type", 4, "int")  # llama.cpp's number
_POSITIONS = Tensor("embeddings.position_embeddings.weight", "position_embd.weight", type="F32")
_HEADS = ("*pooler.*", "cls.*", "lm_head.*")  # of other tasks
_NOMIC = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "layers.{n}.self_attn.q_proj": "blk.{n}.attn_q",
    "layers.{n}.self_attn.k_proj": "blk.{n}.attn_k",
    "layers.{n}.self_attn.v_proj": "blk.{n}.attn_v",
    "layers.{n}.self_attn.o_proj": "blk.{n}.attn_output",
    "layers.{n}.post_attention_layernorm": "blk.{n}.attn_output_norm",
    "layers.{n}.mlp.gate_proj": "blk.{n}.ffn_gate",
    "layers.{n}.mlp.up_proj": "blk.{n}.ffn_up",
    "layers.{n}.mlp.down_proj": "blk.{n}.ffn_down",
    "layers.{n}.post_mlp_layernorm": "blk.{n}.layer_output_norm",
    # as nomic's own code names them
    "emb_ln": "token_embd_norm",
    "encoder.layers.{n}.attn.Wqkv": "blk.{n}.attn_qkv",
    "encoder.layers.{n}.attn.out_proj": "blk.{n}.attn_output",
    "encoder.layers.{n}.norm1": "blk.{n}.attn_output_norm",
    "encoder.layers.{n}.mlp.fc12": "blk.{n}.ffn_gate",
    "encoder.layers.{n}.mlp.fc11": "blk.{n}.ffn_up",
    "encoder.layers.{n}.mlp.fc2": "blk.{n}.ffn_down",
    "encoder.layers.{n}.norm2": "blk.{n}.layer_output_norm",
}
BERT = Rules(
    part="text",
    architecture="bert",
    classes=("BertModel", "BertForMaskedLM"),
    assumed={"hidden_act": "gelu", "position_embedding_type": "absolute"},
    keys=_KEYS,
    tensors=_tensors("", "bert.", positions=_POSITIONS),
    dropped=_HEADS,
)
_ROBERTA = replace(
    BERT,
    classes=("RobertaModel", "RobertaForMaskedLM", "XLMRobertaModel", "XLMRobertaForMaskedLM", "CamembertModel"),
    keys=(*_KEYS, Key("{arch}.context_length", lambda s: s.number("max_position_embeddings") - _skipped(s))),
    tensors=_tensors("", "roberta.", positions=replace(_POSITIONS, change=_behind, shape=_fewer)),
)
_NOMIC_BERT = Rules(
    part="text",
    architecture="nomic-bert",
    classes=("NomicBertModel",),
    layers=_NAMES["num_hidden_layers"],
    assumed={"hidden_act": "silu"},
    keys=(
        *_KEYS,
        Key("{arch}.rope.freq_base", "rope_parameters.rope_theta|rope_theta|rotary_emb_base", "float", 1000.0),
    ),
    tensors=tuple(Tensor(theirs, ours) for theirs, ours in _NOMIC.items()),
    dropped=_HEADS,
)


def _ranking(rules: Rules, classes: tuple[str, ...], **heads: str) -> Rules:
    """The same with a head that gives a score."""
    tensors = tuple(Tensor(theirs, ours) for ours, theirs in heads.items())
    return replace(rules, classes=classes, keys=(*rules.keys, _RANKS), tensors=(*rules.tensors, *tensors), dropped=())


RULES = (
    BERT,
    _ROBERTA,
    _NOMIC_BERT,
    _ranking(BERT, ("BertForSequenceClassification",), **{"cls": "bert.pooler.dense", "cls.output": "classifier"}),
    _ranking(
        _ROBERTA,
        ("RobertaForSequenceClassification", "XLMRobertaForSequenceClassification"),
        **{"cls": "classifier.dense", "cls.output": "classifier.out_proj"},
    ),
)
