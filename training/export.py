"""Writes the model as GGUF, as llama.cpp names it: `python -m training.export`.

Two files a format: the decoder with its tokenizer, and the tower with its projector (mmproj). Norms are stored with
their one added, the projection in transformers' orientation. Formats: F16, Q8_0, Q4_K (its embedding stays Q8_0, the
tower goes with it in Q8_0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from training.evaluate import load_model
from training.model import Nano, Shape
from training.quantize import encode_q4_k
from training.text import BOS, END_OF_TURN, EOS, MERGES, PAD, SPECIALS, TEMPLATE, load_tokens
from training.weights import gguf_name, holds_one

FOLDER = Path(__file__).parent / "runs" / "gguf"
FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_K": 14}


def stored(name: str, tensor: Tensor) -> np.ndarray:
    """The values that the file holds: RMS norms with their one."""
    values = tensor.detach().float().numpy()
    return values + 1 if holds_one(name) else values


def add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, form: str) -> None:
    """Add a tensor in the format, or in a finer one where the format does not fit."""
    plain = values.ndim == 1 or "position_embd" in name
    if plain:
        writer.add_tensor(name, values.astype(np.float32))
    elif form == "F16" or name in ("v.patch_embd.weight", "mm.input_projection.weight"):
        writer.add_tensor(name, values.astype(np.float16))
    elif form == "Q4_K" and name != "token_embd.weight" and not name.startswith("v."):
        writer.add_tensor(name, encode_q4_k(values), raw_dtype=Kind.Q4_K)
    else:
        writer.add_tensor(name, gguf.quants.quantize(values.astype(np.float32), Kind.Q8_0), raw_dtype=Kind.Q8_0)


def describe(writer: gguf.GGUFWriter, form: str) -> None:
    """The keys that say what this is."""
    writer.add_name("opsin-nano")
    writer.add_description("A small model that answers simple questions about drawn pictures")
    writer.add_license("apache-2.0")
    writer.add_file_type(FILE_TYPES[form])
    writer.add_quantization_version(2)


def write_decoder(model: Nano, form: str, path: Path) -> None:
    """The decoder and the tokenizer."""
    shape, writer = model.shape, gguf.GGUFWriter(path, "gemma3")
    writer.add_type("model")
    describe(writer, form)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.groups)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_sliding_window(shape.window)
    writer.add_rope_freq_base(shape.base_global)
    writer.add_float32("gemma3.rope.freq_base_swa", shape.base_local)
    writer.add_vocab_size(shape.vocabulary)
    write_tokenizer(writer)
    for name, tensor in model.language_model.state_dict().items():
        full = f"language_model.{name}"
        add(writer, gguf_name(full), stored(full, tensor), form)
    finish(writer)


def write_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Tokens, their kinds, the one merge and the chat template."""
    tokens = load_tokens()
    kinds = [gguf.TokenType.CONTROL if token in SPECIALS else
             gguf.TokenType.UNUSED if token.startswith("<unused") else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_eot_token_id(END_OF_TURN)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    writer.add_float32("general.sampling.temp", 0.0)  # an answer is right or wrong, not one of many


def write_tower(model: Nano, form: str, path: Path) -> None:
    """The tower and the projector."""
    shape, writer = model.shape, gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    describe(writer, form)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    writer.add_bool("clip.use_gelu", True)
    for key, value in tower_sizes(shape).items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", shape.epsilon)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, tensor in model.state_dict().items():
        if not name.startswith("language_model"):
            add(writer, gguf_name(name), stored(name, tensor), form)
    finish(writer)


def tower_sizes(shape: Shape) -> dict[str, int]:
    """The tower's whole numbers under their keys."""
    return {"image_size": shape.side, "patch_size": shape.patch, "embedding_length": shape.tower_width,
            "feed_forward_length": shape.tower_inner, "block_count": shape.tower_layers,
            "attention.head_count": shape.tower_heads, "projection_dim": shape.width,
            "projector.scale_factor": shape.pool}


def finish(writer: gguf.GGUFWriter) -> None:
    """Write the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def export(model: Nano, form: str, folder: Path) -> tuple[Path, Path]:
    """Write both files; returns the model's and the mmproj's path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"opsin-nano-{form}.gguf", folder / f"mmproj-opsin-nano-{form}.gguf"
    write_decoder(model, form, paths[0])
    write_tower(model, "Q8_0" if form == "Q4_K" else form, paths[1])
    return paths


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="a run below training/runs; else the weights in the package")
    parser.add_argument("--out", type=Path, default=FOLDER)
    chosen = parser.parse_args()
    model = load_model(chosen.run)
    for form in FILE_TYPES:
        for path in export(model, form, chosen.out):
            print(f"{path.stat().st_size / 1e6:6.1f} MB  {path}")


if __name__ == "__main__":
    main()
