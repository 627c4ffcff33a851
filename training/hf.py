"""The model as transformers knows it: configuration, class, and a folder that other programs can read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from training.model import Nano, Shape
from training.text import BOS, END_OF_IMAGE, EOS, PAD, SOFT, START_OF_IMAGE, TEMPLATE, load_tokenizer


def hf_config(shape: Shape) -> Gemma3Config:
    """The sizes in transformers' words."""
    text = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.width, "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.groups,
        "head_dim": shape.head, "query_pre_attn_scalar": shape.head, "sliding_window": shape.window,
        "max_position_embeddings": shape.context, "rms_norm_eps": shape.epsilon,
        "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(shape.layers)],
        "rope_parameters": {
            "full_attention": {"rope_theta": shape.base_global, "rope_type": "default"},
            "sliding_attention": {"rope_theta": shape.base_local, "rope_type": "default"}},
        "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS,
    }
    vision = {
        "hidden_size": shape.tower_width, "intermediate_size": shape.tower_inner,
        "num_hidden_layers": shape.tower_layers, "num_attention_heads": shape.tower_heads, "image_size": shape.side,
        "patch_size": shape.patch, "vision_use_head": False, "layer_norm_eps": shape.epsilon,
    }
    return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=shape.rows, image_token_id=SOFT,
                        image_token_index=SOFT, boi_token_index=START_OF_IMAGE, eoi_token_index=END_OF_IMAGE,
                        tie_word_embeddings=True)


def hf_model(model: Nano) -> Gemma3ForConditionalGeneration:
    """The same weights in transformers' class."""
    theirs = Gemma3ForConditionalGeneration(hf_config(model.shape)).eval()
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    weights["lm_head.weight"] = model.language_model.embed_tokens.weight
    theirs.load_state_dict(weights)
    return theirs


def save_hf(model: Nano, folder: Path) -> None:
    """Write a folder as `save_pretrained` does: weights, configuration, tokenizer, picture preparation."""
    hf_model(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer: Tokenizer = load_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>", "unk_token": "<unk>",
             "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {**names, "add_bos_token": True, "tokenizer_class": "PreTrainedTokenizerFast",
         "model_max_length": model.shape.context}, indent=1))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "Gemma3ImageProcessor", "do_resize": True, "resample": 2, "do_convert_rgb": None,
        "size": {"height": model.shape.side, "width": model.shape.side}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_seq_length": model.shape.rows, "processor_class": "Gemma3Processor", "do_pan_and_scan": None}, indent=1))
    (folder / "processor_config.json").write_text(json.dumps(
        {"processor_class": "Gemma3Processor", "image_seq_length": model.shape.rows}, indent=1))
