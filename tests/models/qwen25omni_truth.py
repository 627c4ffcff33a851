"""A tiny random Qwen2.5-Omni, in transformers' class of what writes; its windows are as long as those of real ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from qwen2vl_truth import COMMON, LEAST, MEAN, MERGE, MOST, PATCH, STD, TEXT, WINDOW, StillProcessor
from qwen2vl_truth import WIDTH as SEEN_WIDTH
from qwen2vl_truth import write_tower as write_seeing
from sound_truth import (
    BANDS,
    FFN,
    HEADS,
    LAYERS,
    TEXT_WIDTH,
    TOWER,
    WIDTH,
    SoundTruth,
    extractor,
    tower_keys,
    write_mmproj,
)
from sound_truth import enliven as enliven_hearing
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision_truth import SPECIAL, Truth, byte_tokenizer, enliven

from opsin.models import qwen25omni

MARKER, TURN = "<|audio_bos|><|AUDIO|><|audio_eos|>", "<|vision_bos|><|IMAGE|><|vision_eos|>"
SPECIALS = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|vision_bos|>", "<|IMAGE|>", "<|vision_eos|>", "<|VIDEO|>"]
AUDIO, AUDIO_BOS, AUDIO_EOS, VISION_BOS, IMAGE, VISION_EOS, VIDEO = range(SPECIAL, SPECIAL + len(SPECIALS))
PACE, PLACES = 25, 128  # positions a second; rows of the table of places, of which a window needs 100
NAMES = (
    *((rf"model\.audio_tower\.{pattern}", name) for pattern, name in TOWER if pattern != "layer_norm"),
    (r"model\.audio_tower\.ln_post", "a.post_ln"), (r"model\.audio_tower\.proj", "mm.a.fc"),
)  # fmt: skip
# One sample, less than three frames, odd and even numbers of them, windows, and what is left for no row, one and more.
SECONDS = (1 / 16_000, 0.0199, 0.0321, 0.131, 0.73, 2.0, 2.015, 2.031, 4.4567)


def omni_truth(seed: int = 0) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Layers 1 and 3 see the whole picture."""
    torch.manual_seed(seed)
    vision = {
        **COMMON, "hidden_size": SEEN_WIDTH, "out_hidden_size": TEXT_WIDTH, "intermediate_size": 80,
        "window_size": WINDOW, "fullatt_block_indexes": [1, 3], "tokens_per_second": PACE,
    }  # fmt: skip
    audio = {
        "d_model": WIDTH, "num_mel_bins": BANDS, "max_source_positions": PLACES, "encoder_layers": LAYERS,
        "encoder_attention_heads": HEADS, "encoder_ffn_dim": FFN, "output_dim": TEXT_WIDTH,
    }  # fmt: skip
    config = Qwen2_5OmniThinkerConfig(
        text_config=TEXT, vision_config=vision, audio_config=audio, audio_token_index=AUDIO, image_token_index=IMAGE,
        video_token_index=VIDEO, audio_start_token_id=AUDIO_BOS, audio_end_token_id=AUDIO_EOS,
        vision_start_token_id=VISION_BOS, vision_end_token_id=VISION_EOS, attn_implementation="eager",
        dtype=torch.float32,
    )  # fmt: skip
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    enliven(model, seed)
    enliven_hearing(model.model.audio_tower, seed)
    return model


def heard(samples: np.ndarray) -> dict[str, torch.Tensor]:
    """Frames of a sound, of which those behind it are masked, but for three that are heard in any case."""
    made = extractor(BANDS)(
        samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    mask = made.attention_mask
    mask[:, :3] = 1
    return {"input_features": made.input_features, "feature_attention_mask": mask}


def logits(model: Qwen2_5OmniThinkerForConditionalGeneration, ids: list[int], samples: np.ndarray) -> np.ndarray:
    given = torch.tensor([ids])
    made = model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=False, **heard(samples))
    return made.logits[0].numpy()


def embed(model: Qwen2_5OmniThinkerForConditionalGeneration, samples: np.ndarray) -> np.ndarray:
    return model.get_audio_features(**heard(samples)).last_hidden_state.numpy()


def write_hearing(
    path: Path, model: Qwen2_5OmniThinkerForConditionalGeneration, *, keys: dict[str, object] | None = None,
    **options: object,
) -> Path:  # fmt: skip
    """As llama.cpp writes it: the table of places is longer than a window, and activations are those of pictures."""
    turns = np.arange(1500)[:, None] / 10000 ** (np.arange(WIDTH // 2) / (WIDTH // 2 - 1))
    table = np.concatenate([np.sin(turns), np.cos(turns)], axis=1).astype(np.float32)
    told = {**tower_keys("qwen2.5o", TEXT_WIDTH), **(keys or {})}
    del told["clip.use_gelu"]
    return write_mmproj(path, told, model, NAMES, more={"a.position_embd.weight": table}, **options)


def write_tower(
    path: Path, model: Qwen2_5OmniThinkerForConditionalGeneration, *, keys: dict[str, object] | None = None,
    **options: object,
) -> Path:  # fmt: skip
    return write_seeing(path, model, keys={"clip.projector_type": "qwen2.5o", **(keys or {})}, **options)


class OmniProcessor(StillProcessor):
    """Of pictures in Omni's words: sound is tested by itself."""

    def __call__(self, **given: object) -> object:
        made = super().__call__(**given)
        made.pop("mm_token_type_ids", None)
        return made


@cache
def processor() -> OmniProcessor:
    pictures = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, size={"shortest_edge": LEAST, "longest_edge": MOST}, image_mean=MEAN,
        image_std=STD,
    )  # fmt: skip
    return OmniProcessor(pictures, byte_tokenizer(SPECIALS, TURN, image_token="<|IMAGE|>", video_token="<|VIDEO|>"))


def next_window(right):
    return lambda logs, first, frames: right(logs, max(0, first - 1), frames)


TOWERS = {"qwen2.5o": Truth("qwen2.5o", omni_truth, write_tower, processor, TURN)}
SOUNDS = {
    "qwen25omni": SoundTruth(
        "qwen2.5o", omni_truth, embed, write_hearing, MARKER, ("a.blk.1.ln1.weight", "a.post_ln.weight"),
        (("<|audio_bos|>",), ("<|audio_eos|>",)), omni_truth, logits, SECONDS,
        mistakes={
            "windows half as long": (qwen25omni, "WINDOW", lambda right: right // 2),
            "windows that begin a frame early": (qwen25omni, "window", next_window),
        },
        tokens=("<|vision_bos|>", "<|vision_eos|>"),
    )
}  # fmt: skip
