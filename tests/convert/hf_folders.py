"""Folders as transformers saves them: tiny checkpoints with tokenizers of several kinds."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny import SPECIALS, TEMPLATE, tokens
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import checkpoints

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXT = [
    "The quick brown fox jumps over the lazy dog, doesn't it? 123 4567 \n\n héllo wörld 漢字 don't they're we'll"
] * 4


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytewise])


# Byte-level ones by the name that GGUF gives them, and whether they take a whole token before they merge.
BYTE_LEVEL = {
    "llama-bpe": (_split(CONTRACTIONS + r"|\p{N}{1,3}" + REST), True),
    "qwen2": (_split(CONTRACTIONS + r"|\p{N}" + REST), False),
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                 pre_tokenizers.ByteLevel(add_prefix_space=False)]), False,
    ),
}  # fmt: skip


def byte_level(name: str, size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, trained on a few words."""
    pre, whole = BYTE_LEVEL[name]
    made = Tokenizer(models.BPE(ignore_merges=whole))
    made.pre_tokenizer, made.decoder = pre, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=size - 4, initial_alphabet=alphabet))
    made.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    made.add_tokens([AddedToken("<tool_call>", special=False)])
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=SPECIALS[1], eos_token=SPECIALS[2], pad_token=SPECIALS[0],
        chat_template=TEMPLATE,
    )  # fmt: skip


def with_bytes_behind(*, prefix: bool, size: int = 400) -> PreTrainedTokenizerFast:
    """A tokenizer made from SentencePiece's, as those of the second Llama (with a prefix) or of Gemma."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    space = normalizers.Replace(" ", "\u2581")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space]) if prefix else space
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, initial_alphabet=["\u2581"])
    made.train_from_iterator(TEXT, trainer)
    made = Tokenizer.from_str(_without_byte_specials(made.to_str()))
    made.add_tokens(
        [AddedToken("<start_of_turn>", special=False, normalized=False), AddedToken("\n\n", normalized=False)]
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _without_byte_specials(source: str) -> str:
    import json

    tree = json.loads(source)
    tree["added_tokens"] = [token for token in tree["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(tree)


def plain() -> PreTrainedTokenizerFast:
    """The vocabulary of `tiny.tokens`, which the checkpoints have."""
    texts, kinds, merges = tokens()
    vocabulary = {text: id for id, (text, kind) in enumerate(zip(texts, kinds, strict=True)) if kind == 1}
    made = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=SPECIALS[1], eos_token=SPECIALS[2], chat_template=TEMPLATE
    )


def save(folder: Path, family: str, **options: object):
    """A tiny checkpoint with its tokenizer; gives the model."""
    model = checkpoints.make(family, **options)
    model.save_pretrained(folder)
    plain().save_pretrained(folder)
    return model
