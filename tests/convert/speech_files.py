"""Files of CTranslate2 and whisper.cpp, written from a model of transformers."""

from __future__ import annotations

import json
import re
import struct

import numpy as np

CT2 = (
    ("conv1", "conv1"), ("conv2", "conv2"), ("layer_norm", "layer_norm"),
    ("self_attn.out_proj", "self_attention/linear_1"), ("self_attn_layer_norm", "self_attention/layer_norm"),
    ("encoder_attn.q_proj", "attention/linear_0"), ("encoder_attn.out_proj", "attention/linear_2"),
    ("encoder_attn_layer_norm", "attention/layer_norm"), ("fc1", "ffn/linear_0"), ("fc2", "ffn/linear_1"),
    ("final_layer_norm", "ffn/layer_norm"),
)  # fmt: skip
GGML = (
    ("self_attn.q_proj", "attn.query"), ("self_attn.k_proj", "attn.key"), ("self_attn.v_proj", "attn.value"),
    ("self_attn.out_proj", "attn.out"), ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn.q_proj", "cross_attn.query"),
    ("encoder_attn.k_proj", "cross_attn.key"), ("encoder_attn.v_proj", "cross_attn.value"),
    ("encoder_attn.out_proj", "cross_attn.out"), ("encoder_attn_layer_norm", "cross_attn_ln"), ("fc1", "mlp.0"),
    ("fc2", "mlp.2"), ("final_layer_norm", "mlp_ln"),
)  # fmt: skip
WHOLE = {
    "encoder.embed_positions.weight": "encoder.positional_embedding", "encoder.layer_norm": "encoder.ln_post",
    "decoder.embed_positions.weight": "decoder.positional_embedding", "decoder.layer_norm": "decoder.ln",
    "decoder.embed_tokens": "decoder.token_embedding",
}  # fmt: skip


def states(model):
    """Tensors by their names in the model, without those that are tied."""
    found = {name: values.numpy() for name, values in model.state_dict().items() if not name.startswith("proj_out")}
    return {name.removeprefix("model."): values.astype(np.float32) for name, values in found.items()}


def _text(text):
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def _variable(name, values, kind):
    data = values.tobytes()
    return _text(name) + struct.pack(f"<B{values.ndim}IBI", values.ndim, *values.shape, kind, len(data)) + data


def ctranslate2(folder, model, tokenizer, heads, kind=np.float32, number=0):
    """The folder: model.bin, config.json, and the tokenizer of another one."""
    values = states(model)
    made = {}
    for part in ("encoder", "decoder"):
        made[f"{part}/position_encodings/encodings"] = values[f"{part}.embed_positions.weight"]
    made["decoder/embeddings/weight"] = values["decoder.embed_tokens.weight"]
    for name, value in values.items():
        part, _, rest = name.partition(".")
        layer = re.match(r"layers\.(\d+)\.", rest)
        stem, _, end = rest[layer.end() if layer else 0 :].rpartition(".")
        known = dict(CT2).get(stem)
        if known:
            end = {"weight": "gamma", "bias": "beta"}[end] if "norm" in stem else end
            made[f"{part}/{f'layer_{layer[1]}/' if layer else ''}{known}/{end}"] = value
        elif stem == "self_attn.q_proj" or stem == "encoder_attn.k_proj":
            names = "qkv" if stem.startswith("self") else "kv"
            head = name[: name.rindex(f"{names[0]}_proj")]
            for own in ("weight", "bias"):
                parts = [values.get(f"{head}{one}_proj.{own}", np.zeros(len(value), np.float32)) for one in names]
                target = (
                    f"{part}/layer_{layer[1]}/{'self_attention/linear_0' if len(names) == 3 else 'attention/linear_1'}"
                )
                made[f"{target}/{own}"] = np.concatenate(parts)
    variables = [_variable(name, value.astype(kind), number) for name, value in sorted(made.items())]
    variables += [_variable(f"{part}/num_heads", np.array(heads, np.int16), 2) for part in ("decoder", "encoder")]
    alias = _text("decoder/projection/weight") + _text("decoder/embeddings/weight")
    folder.mkdir(exist_ok=True)
    head = struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    data = head + b"".join(variables) + struct.pack("<I", 1) + alias
    (folder / "model.bin").write_bytes(data)
    config = {"suppress_ids": [3, 7], "suppress_ids_begin": [5, 262]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    return data


def ggml(path, model, words, numbers):
    """A file of f32; `numbers` are the eleven of its beginning."""
    bands = numbers[9]
    data = b"lmgg" + struct.pack("<11i", *numbers) + struct.pack("<ii", bands, 3) + bytes(4 * 3 * bands)
    data += struct.pack("<i", len(words)) + b"".join(struct.pack("<i", len(word)) + word for word in words)
    for name, value in states(model).items():
        layer = re.match(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)$", name)
        stem, _, end = name.rpartition(".")
        if layer:
            own = f"{layer[1]}.blocks.{layer[2]}.{dict(GGML)[layer[3]]}.{layer[4]}"
        else:
            own = WHOLE[name] if name in WHOLE else f"{WHOLE.get(stem, stem)}.{end}"
        value = value[:, None] if "conv" in own and end == "bias" else value
        data += struct.pack(f"<iii{value.ndim}i", value.ndim, len(own), 0, *value.shape[::-1]) + own.encode()
        data += value.tobytes()
    path.write_bytes(data)
    return data
