"""A tiny random Whisper of transformers, its folder with a tokenizer of bytes, and its file written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
import transformers
from tiny import tokens
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from opsin.gguf import NewTensor, write

WIDTH, HEADS, BANDS, ROWS, CONTEXT, HEARING, WRITING = 48, 4, 20, 50, 64, 3, 2
LANGUAGES = ("en", "de", "fr")
TIMES = tuple(f"<|{step / 50:.2f}|>" for step in range(1501))
SPECIALS = (
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES), "<|translate|>",
    "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
NORMAL, _, MERGES = tokens()
NORMAL = NORMAL[: NORMAL.index("<|endoftext|>")]
TEXTS = [*NORMAL, *SPECIALS, *TIMES]
NAMES = (
    (r"model\.encoder\.conv(\d)", r"a.conv1d.\1"),
    (r"model\.encoder\.embed_positions", "a.position_embd"),
    (r"model\.encoder\.layer_norm", "a.post_ln"),
    (r"model\.encoder\.layers\.(\d+)\.self_attn_layer_norm", r"a.blk.\1.ln1"),
    (r"model\.encoder\.layers\.(\d+)\.final_layer_norm", r"a.blk.\1.ln2"),
    (r"model\.encoder\.layers\.(\d+)\.self_attn\.out_proj", r"a.blk.\1.attn_out"),
    (r"model\.encoder\.layers\.(\d+)\.self_attn\.(.)_proj", r"a.blk.\1.attn_\2"),
    (r"model\.encoder\.layers\.(\d+)\.fc1", r"a.blk.\1.ffn_up"),
    (r"model\.encoder\.layers\.(\d+)\.fc2", r"a.blk.\1.ffn_down"),
    (r"model\.decoder\.embed_tokens", "token_embd"),
    (r"model\.decoder\.embed_positions", "position_embd"),
    (r"model\.decoder\.layer_norm", "output_norm"),
    (r"model\.decoder\.layers\.(\d+)\.self_attn_layer_norm", r"blk.\1.attn_norm"),
    (r"model\.decoder\.layers\.(\d+)\.encoder_attn_layer_norm", r"blk.\1.cross_attn_norm"),
    (r"model\.decoder\.layers\.(\d+)\.final_layer_norm", r"blk.\1.ffn_norm"),
    (r"model\.decoder\.layers\.(\d+)\.self_attn\.out_proj", r"blk.\1.attn_output"),
    (r"model\.decoder\.layers\.(\d+)\.self_attn\.(.)_proj", r"blk.\1.attn_\2"),
    (r"model\.decoder\.layers\.(\d+)\.encoder_attn\.out_proj", r"blk.\1.cross_attn_output"),
    (r"model\.decoder\.layers\.(\d+)\.encoder_attn\.(.)_proj", r"blk.\1.cross_attn_\2"),
    (r"model\.decoder\.layers\.(\d+)\.fc1", r"blk.\1.ffn_up"),
    (r"model\.decoder\.layers\.(\d+)\.fc2", r"blk.\1.ffn_down"),
)


def published(seed=0):
    """The model: attention is peaked, so that its mistakes show."""
    torch.manual_seed(seed)
    config = transformers.WhisperConfig(
        vocab_size=len(TEXTS), d_model=WIDTH, num_mel_bins=BANDS, max_source_positions=ROWS,
        max_target_positions=CONTEXT, encoder_layers=HEARING, decoder_layers=WRITING, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=96, decoder_ffn_dim=80, dropout=0.0,
        pad_token_id=id("<|endoftext|>"), bos_token_id=id("<|endoftext|>"), eos_token_id=id("<|endoftext|>"),
        decoder_start_token_id=id("<|startoftranscript|>"),
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith(("layer_norm.weight",)):
                values.copy_(1 + 0.3 * torch.randn_like(values))
            elif values.ndim == 1:
                values.copy_(0.2 * torch.randn_like(values))
            else:
                gain = 1.7 if re.search(r"[qk]_proj", name) else 1.0
                fan = values.shape[-1] if "embed" in name else values[0].numel()
                values.copy_(torch.randn_like(values) * gain * fan**-0.5 * (2 if "embed_tokens" in name else 1))
    return model


def id(text):
    return TEXTS.index(text)


def save(model, folder: Path):
    """The folder as transformers saves it, with a tokenizer."""
    told = model.generation_config
    told.suppress_tokens, told.begin_suppress_tokens = [3, 7], [5, id("<|endoftext|>")]
    told.no_timestamps_token_id, told.max_length = id("<|notimestamps|>"), CONTEXT
    model.save_pretrained(folder)
    vocabulary = {text: number for number, text in enumerate([*NORMAL, "<|endoftext|>"])}
    made = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in MERGES]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    made.add_tokens([AddedToken(text, special=False) for text in TIMES])
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "WhisperTokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def metadata():
    kinds = [1] * len(NORMAL) + [3] * (len(TEXTS) - len(NORMAL))
    return {
        "general.architecture": "whisper",
        "whisper.block_count": WRITING,
        "whisper.context_length": CONTEXT,
        "whisper.embedding_length": WIDTH,
        "whisper.feed_forward_length": 80,
        "whisper.attention.head_count": HEADS,
        "whisper.attention.layer_norm_epsilon": 1e-5,
        "whisper.begin_suppress_tokens": np.array([5, id("<|endoftext|>")], np.int32),
        "clip.has_audio_encoder": True,
        "clip.audio.projector_type": "whisper",
        "clip.audio.embedding_length": WIDTH,
        "clip.audio.projection_dim": WIDTH,
        "clip.audio.feed_forward_length": 96,
        "clip.audio.block_count": HEARING,
        "clip.audio.attention.head_count": HEADS,
        "clip.audio.attention.layer_norm_epsilon": 1e-5,
        "clip.audio.num_mel_bins": BANDS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": TEXTS,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": id("<|endoftext|>"),
        "tokenizer.ggml.suppress_tokens": np.array([3, 7], np.int32),
    }


def tensors(model):
    found = {}
    for name, values in model.state_dict().items():
        for theirs, ours in NAMES:
            stem, _, end = name.rpartition(".")
            if re.fullmatch(theirs, stem):
                found[f"{re.sub(theirs, ours, stem)}.{end}"] = values.numpy().astype(np.float32)
    return found


def write_by_hand(path: Path, model, changes=None):
    """The file, of which nothing is believed of the converter. `changes`: metadata that are others."""
    values = tensors(model)
    return write(path, {**metadata(), **(changes or {})}, [NewTensor.of(n, v) for n, v in values.items()])[0]


def heard(windows=1, seed=0):
    """Random log-mel frames [windows, frames, bands]."""
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, (windows, 2 * ROWS, BANDS)).astype(np.float32)
