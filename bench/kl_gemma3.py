"""How exact Gemma 3's answers are: KL divergence from `transformers` in float32, of opsin and of llama.cpp.

    python bench/kl_gemma3.py FILE [--rows 640] [--pages f16] [--peer FOLDER]

Beginnings of the passages of tests/oracle, longer than the model's window. The truth is the file's weights as gguf-py
decodes them in `Gemma3ForCausalLM`. One passage after the other: logits of 262,144 tokens fill memory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import kl
import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from peer import Peer
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

import opsin

PASSAGES = Path(__file__).parents[1] / "tests" / "oracle" / "passages"
NAMES = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def truth(path: Path) -> Gemma3ForCausalLM:
    """The file in transformers' class, in float32."""
    reader = GGUFReader(path)
    values: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    numbers = {name.removeprefix("gemma3."): value for name, value in values.items() if name.startswith("gemma3.")}
    config = Gemma3TextConfig(
        vocab_size=len(values["tokenizer.ggml.tokens"]), hidden_size=numbers["embedding_length"],
        intermediate_size=numbers["feed_forward_length"], num_hidden_layers=numbers["block_count"],
        num_attention_heads=numbers["attention.head_count"], num_key_value_heads=numbers["attention.head_count_kv"],
        head_dim=numbers["attention.key_length"], rms_norm_eps=numbers["attention.layer_norm_rms_epsilon"],
        sliding_window=numbers["attention.sliding_window"], query_pre_attn_scalar=numbers["attention.key_length"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": numbers["rope.freq_base"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )  # fmt: skip
    config._attn_implementation = "eager"
    state = {}
    for tensor in reader.tensors:
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1])
        state[_rename(str(tensor.name))] = torch.from_numpy(value - 1 if "norm" in str(tensor.name) else value)
    model = Gemma3ForCausalLM(config)
    model.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]}, strict=True)
    return model.eval()


def _rename(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "blk":
        layer, inner, kind = rest.split(".")
        return f"model.layers.{layer}.{NAMES[inner]}.{kind}"
    return {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[part]


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--pages", nargs="+", default=["f16"])
    parser.add_argument("--passages", nargs="+", default=["english", "code"])
    parser.add_argument("--peer", type=Path, help="folder of llama.cpp's programs")
    args = parser.parse_args()
    reference, peer, results = truth(args.model), Peer.find(args.peer), []
    for name in args.passages:
        with opsin.load(args.model, threads=2) as model:
            text = (PASSAGES / f"{name}.txt").read_text("utf-8")
            ids = model.tokenizer.encode(text, add_special=True)[: args.rows]
        with torch.inference_mode():
            right = reference(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        work = [(name, ids)]
        results.append(kl.compare(f"llama.cpp, {name}", work, [right], peer.logits(args.model, [ids])))
        for pages in args.pages:
            with opsin.load(args.model, threads=2, pages=pages) as model:
                ours = [model.logits(ids)]
            results.append(kl.compare(f"opsin, {pages} pages, {name}", work, [right], ours))
    kl.show(results, args.rows * len(args.passages), as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
