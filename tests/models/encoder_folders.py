"""Tiny random encoders of text as transformers and sentence-transformers save them, with tokenizers of their kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from jina_truth import JinaTruth
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "héllo WÖRLD 漢字 and so on",
    "a",
    "rain in Spain " * 12,
]
SIZE, WIDTH, LAYERS, HEADS, FFN, CONTEXT = 300, 64, 3, 4, 96, 256


def word_pieces() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=SIZE - 10, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **{f"{role}_token": text for role, text in roles.items()})


def unigram() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Replace(" {2,}", " ")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(
        TEXTS * 3, trainers.UnigramTrainer(vocab_size=SIZE - 10, special_tokens=special, unk_token="<unk>")
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **{f"{role}_token": text for role, text in roles.items()})


def byte_pairs() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.normalizer, made.decoder = normalizers.NFC(), decoders.ByteLevel()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=SIZE - 10, special_tokens=special, initial_alphabet=letters)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **{f"{role}_token": text for role, text in roles.items()})


@dataclass(frozen=True)
class Encoder:
    """An encoder as transformers has it: its class without "Model", settings, tokenizer, and how it is pooled.

    `truth`: what makes a model that transformers does not have.
    """

    name: str
    tokenizer: Callable[[], PreTrainedTokenizerFast] = word_pieces
    pooling: str = "mean"
    settings: dict[str, object] = field(default_factory=dict)
    truth: Callable[..., torch.nn.Module] | None = None
    shared: dict[str, object] = field(
        default_factory=lambda: {
            "vocab_size": SIZE, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": FFN, "max_position_embeddings": CONTEXT, "type_vocab_size": 2, "layer_norm_eps": 1e-6,
            "pad_token_id": 0,
        }
    )  # fmt: skip


ENCODERS = {
    "bert": Encoder("Bert", pooling="cls"),
    "xlm-roberta": Encoder(
        "XLMRoberta",
        unigram,
        settings={"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": CONTEXT + 2},
    ),
    "nomic-bert": Encoder("NomicBert"),
    "modern-bert": Encoder(
        "ModernBert",
        byte_pairs,
        settings={"num_hidden_layers": 4, "local_attention": 20, "norm_eps": 1e-6, "type_vocab_size": None,
                  "layer_norm_eps": None},
    ),
    "jina-bert-v2": Encoder("JinaBert", settings={"feed_forward_type": "geglu"}, truth=JinaTruth),
    "jina-bert-v2-code": Encoder(
        "JinaBert", settings={"feed_forward_type": "geglu"}, truth=partial(JinaTruth, is_normed=True)
    ),
    "gemma-embedding": Encoder(
        "Gemma3Text",
        settings={"use_bidirectional_attention": True, "sliding_window": 20, "num_key_value_heads": 2, "head_dim": 24,
                  "query_pre_attn_scalar": 24, "layer_types": ["sliding_attention", "full_attention"] * 2,
                  "num_hidden_layers": 4, "type_vocab_size": None, "layer_norm_eps": None},
    ),
}  # fmt: skip


def save(folder: Path, kind: str) -> torch.nn.Module:
    """A folder of sentence-transformers; the model of transformers that is in it."""
    told = ENCODERS[kind]
    torch.manual_seed(1)
    settings = {name: value for name, value in {**told.shared, **told.settings}.items() if value is not None}
    if told.truth is not None:
        model = told.truth(**settings).eval()
    else:
        config = getattr(transformers, f"{told.name}Config")(**settings)
        config._attn_implementation = "eager"
        model = getattr(transformers, f"{told.name}Model")(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" in name.lower():
                middle = 1.0 if name.endswith("weight") and "Gemma" not in told.name else 0.0
                values.copy_(middle + 0.3 * torch.randn_like(values))
            else:
                values.copy_(torch.randn_like(values) * (2.5 if "query" in name or "key" in name else 1.0)
                             * (values.shape[-1] ** -0.5 if values.dim() > 1 else 0.1))  # fmt: skip
    model.save_pretrained(folder)
    told.tokenizer().save_pretrained(folder)
    modes = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in parts]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {f"pooling_mode_{name}": mode == told.pooling for mode, name in modes.items()}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return model


def add_dense(folder: Path, name: str, tensors: dict[str, np.ndarray], activation: str) -> None:
    """A matrix behind the pooling of such a folder."""
    modules = [one for one in json.loads((folder / "modules.json").read_text()) if one["path"] != name]
    modules.insert(-1, {"path": name, "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / name).mkdir(exist_ok=True)
    save_file({f"linear.{part}": values for part, values in tensors.items()}, folder / name / "model.safetensors")
    (folder / name / "config.json").write_text(json.dumps({"activation_function": activation}))


def save_judge(folder: Path, head: str) -> torch.nn.Module:
    """A tiny Qwen3-Reranker: one that writes yes and no ("lm"), or one whose head was cut out ("cls")."""
    torch.manual_seed(3)
    tokenizer = byte_pairs()
    tokenizer.add_tokens(["yes", "no"])
    settings = {
        "vocab_size": SIZE, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": FFN, "tie_word_embeddings": head == "tied",
        "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 3,
    }  # fmt: skip
    if head == "cls":
        model = transformers.Qwen3ForSequenceClassification(transformers.Qwen3Config(**settings, num_labels=1)).eval()
    else:
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings)).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" not in name:
                values.copy_(torch.randn_like(values) * values.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Qwen3-Reranker-0.6B\n")
    return model


def save_ranking(folder: Path, kind: str) -> torch.nn.Module:
    """The same encoder with a head that gives a score, as transformers saves it. "-mean": of the mean of all tokens."""
    told = ENCODERS[kind.removesuffix("-mean")]
    torch.manual_seed(2)
    settings = {**told.shared, **told.settings, "num_labels": 1}
    if kind.startswith("modern"):
        settings["classifier_pooling"] = "mean" if kind.endswith("-mean") else "cls"
    settings = {name: value for name, value in settings.items() if value is not None}
    config = getattr(transformers, f"{told.name}Config")(**settings)
    model = getattr(transformers, f"{told.name}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" not in name.lower():
                values.copy_(torch.randn_like(values) * (values.shape[-1] ** -0.5 if values.dim() > 1 else 0.1))
    model.save_pretrained(folder)
    told.tokenizer().save_pretrained(folder)
    return model
