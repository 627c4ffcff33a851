"""A tiny random Gemma 4 that hears and sees, in transformers' class; each matrix of its conformer has bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gemma4_vision_truth import HEAD, PATCH, POOL, SHARING, SIDE, TEXT
from sound_truth import BANDS, HEADS, LAYERS, TEXT_WIDTH, WIDTH, SoundTruth, enliven, tower_keys, write_mmproj
from transformers import Gemma4AudioFeatureExtractor, Gemma4Config, Gemma4ForConditionalGeneration
from vision_truth import SPECIAL

from opsin.media import htk_mel, mel
from opsin.models import gemma4_audio
from opsin.nn import conformer

CHANNELS, WINDOW = 6, 30 * 16_000
# One sample, less than a frame, a frame, odd numbers of them, more rows than one sees, and a second window.
SECONDS = (1 / 16_000, 0.0321, 0.131, 0.25, 0.4, 0.73, 1.4567, 30.4)
LAYER, OURS = r"audio_tower\.layers\.(\d+)", r"a.blk.\1"
MATRICES = {
    r"feed_forward1\.ffw_layer_1": "ffn_up", r"feed_forward1\.ffw_layer_2": "ffn_down",
    r"feed_forward2\.ffw_layer_1": "ffn_up_1", r"feed_forward2\.ffw_layer_2": "ffn_down_1",
    r"self_attn\.q_proj": "attn_q", r"self_attn\.k_proj": "attn_k", r"self_attn\.v_proj": "attn_v",
    r"self_attn\.post": "attn_out", r"lconv1d\.linear_start": "conv_pw1", r"lconv1d\.linear_end": "conv_pw2",
}  # fmt: skip
PARTS = {
    r"feed_forward1\.pre_layer_norm": "ffn_norm", r"feed_forward1\.post_layer_norm": "ffn_post_norm",
    r"feed_forward2\.pre_layer_norm": "ffn_norm_1", r"feed_forward2\.post_layer_norm": "ffn_post_norm_1",
    "norm_pre_attn": "attn_pre_norm", "norm_post_attn": "attn_post_norm", "norm_out": "ln2",
    r"self_attn\.relative_k_proj": "attn_k_rel", r"self_attn\.per_dim_scale": "per_dim_scale.weight",
    r"lconv1d\.pre_layer_norm": "conv_norm", r"lconv1d\.conv_norm": "norm_conv",
    r"lconv1d\.depthwise_conv1d": "conv_dw",
}  # fmt: skip
NAMES = tuple((rf"model\.{theirs}", ours) for theirs, ours in (
    (r"audio_tower\.subsample_conv_projection\.layer(\d)\.conv", r"a.conv1d.\1"),
    (r"audio_tower\.subsample_conv_projection\.layer(\d)\.norm", r"a.conv1d.\1.norm"),
    (r"audio_tower\.subsample_conv_projection\.input_proj_linear", "a.input_projection"),
    *((rf"{LAYER}\.{theirs}\.linear", f"{OURS}.{ours}") for theirs, ours in MATRICES.items()),
    *((rf"{LAYER}\.{theirs}\.((?:in|out)put_m\w\w)", rf"{OURS}.{ours}.\2") for theirs, ours in MATRICES.items()),
    *((rf"{LAYER}\.{theirs}", f"{OURS}.{ours}") for theirs, ours in PARTS.items()),
    (r"audio_tower\.output_proj", "a.pre_encode.out"),
    (r"embed_audio\.embedding_projection", "mm.a.input_projection"),
))  # fmt: skip


def gemma4_audio_truth() -> Gemma4ForConditionalGeneration:
    audio = {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "subsampling_conv_channels": [BANDS, CHANNELS], "output_proj_dims": 56, "use_clipped_linears": True,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": HEAD, "patch_size": PATCH, "pooling_kernel_size": POOL,
        "position_embedding_size": SIDE, "use_clipped_linears": False, "standardize": False,
    }  # fmt: skip
    config = Gemma4Config(
        text_config={**TEXT, **SHARING}, vision_config=vision, audio_config=audio, audio_token_id=SPECIAL,
        boa_token_id=SPECIAL + 1, eoa_token_index=SPECIAL + 2, image_token_id=SPECIAL + 3, boi_token_id=SPECIAL + 4,
        eoi_token_id=SPECIAL + 5, video_token_id=SPECIAL + 6, tie_word_embeddings=True, attn_implementation="eager",
        dtype=torch.float32,
    )  # fmt: skip
    model = Gemma4ForConditionalGeneration(config).eval()
    enliven(model)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in model.named_buffers():
            for end, bounds in {"layer_scalar": (0.6, 1.4), "_min": (-3.0, -1.5), "_max": (1.5, 3.0)}.items():
                if name.endswith(end):
                    values.uniform_(*bounds, generator=random)
    return model


def heard(samples: np.ndarray) -> dict[str, torch.Tensor]:
    """A window, which is a frame and more."""
    extractor = Gemma4AudioFeatureExtractor(feature_size=BANDS)
    made = extractor([np.pad(samples, (0, max(0, 161 - len(samples))))], return_tensors="pt")
    return {"input_features": made.input_features, "input_features_mask": made.input_features_mask}


def logits(model: Gemma4ForConditionalGeneration, ids: list[int], samples: np.ndarray) -> np.ndarray:
    given = torch.tensor([ids])
    return model(input_ids=given, use_cache=False, **heard(samples)).logits[0].numpy()


def embed(model: Gemma4ForConditionalGeneration, samples: np.ndarray) -> np.ndarray:
    rows = []
    for first in range(0, len(samples), WINDOW):
        made = model.model.get_audio_features(**heard(samples[first : first + WINDOW]))
        rows.append(made.pooler_output[0][made.attention_mask[0]])
    return torch.cat(rows).numpy()


def write_tower(
    path: Path, model: Gemma4ForConditionalGeneration, *, keys: dict[str, object] | None = None, **options: object
) -> Path:
    """As llama.cpp writes it, with an epsilon that nobody has."""
    more = {"feed_forward_length": 4 * WIDTH, "attention.layer_norm_epsilon": 1e-2}
    told = {**tower_keys("gemma4a", TEXT_WIDTH, **more), **(keys or {})}
    told["clip.audio.projector_type"] = told.pop("clip.projector_type")
    return write_mmproj(path, told, model, NAMES, change=changed, **options)


def changed(name: str, values: np.ndarray) -> np.ndarray:
    if name.endswith("per_dim_scale.weight"):
        return np.log1p(np.exp(values))
    return values.reshape(len(values), -1) if name.endswith("conv_dw.weight") else np.atleast_1d(values)


def another_scale(right):
    """Slaney's in place of HTK's."""
    return lambda bands: np.pad(mel.mel_filters(bands) * 20, ((0, 56), (0, 0)))


def whole_ffn(right):
    return lambda ffn, x: x + 2.0 * (right(ffn, x) + -1.0 * x)


SOUNDS = {
    "gemma4_audio": SoundTruth(
        "gemma4a", gemma4_audio_truth, embed, write_tower, "<|audio|>",
        ("a.blk.1.conv_norm.weight", "a.blk.1.norm_conv.weight"), (("<|audio>",), ("<audio|>",)), gemma4_audio_truth,
        logits, SECONDS, (htk_mel, "htk_filters", another_scale),
        {
            "rows see twelve before": (conformer, "SEEN", lambda right: right + 1),
            "scores with another cap": (gemma4_audio, "CAP", lambda right: 3.0),
            "keys of another size": (conformer, "KEYS", lambda right: 1.0),
            "another epsilon": (conformer, "EPS", lambda right: 1e-2),
            "another floor": (htk_mel, "_FLOOR", lambda right: 0.1),
            "the whole of a feed-forward part": (conformer.HalfFfn, "__call__", whole_ffn),
        },
        ("<|image>", "<image|>"),
    )
}  # fmt: skip
