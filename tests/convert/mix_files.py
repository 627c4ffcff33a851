"""Files to plan mixes for: headers of many kinds of models, with hardly any weights.

python tests/convert/mix_files.py LLAMA_QUANTIZE       # records what llama.cpp makes of them in mix_types.json
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from opsin.convert.mix import MIXES
from opsin.gguf import NewTensor, write

RECORD = Path(__file__).with_name("mix_types.json")
F16 = 1


def tensor(name: str, *shape: int) -> NewTensor:
    """Zeros: F16 if it is a matrix, else F32."""
    if len(shape) == 1:
        return NewTensor.of(name, np.zeros(shape, np.float32))
    return NewTensor(name, shape, F16, np.zeros(2 * int(np.prod(shape)), np.uint8))


def text_model(
    path: Path, *, layers: int, width: int = 256, hidden: int = 512, heads: int = 8, kv_heads: int = 8,
    experts: int = 0, untied: bool = False, fused: bool = False, shared: bool = False,
) -> Path:  # fmt: skip
    """A llama whose matrices have two rows."""
    keys = {
        "general.architecture": "llama", "llama.block_count": layers, "llama.context_length": 64,
        "llama.embedding_length": width, "llama.feed_forward_length": hidden, "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": 2,
        **({"llama.expert_count": experts, "llama.expert_used_count": 2} if experts else {}),
    }  # fmt: skip
    tensors = [tensor("token_embd.weight", 2, width), tensor("output_norm.weight", width)]
    tensors += [tensor("output.weight", 2, width)] if untied else []
    for layer in reversed(range(layers)):  # not in the order in which rules count
        attention = ["attn_qkv"] if fused else ["attn_q", "attn_k", "attn_v"]
        rows = {f"{name}.weight": (2, width) for name in [*attention, "attn_output"]}
        if experts:
            rows |= {"ffn_gate_inp.weight": (experts, width), "ffn_down_exps.weight": (experts, 2, hidden)}
            rows |= {f"ffn_{name}_exps.weight": (experts, 2, width) for name in ("gate", "up")}
        if shared or not experts:
            end = "_shexp" if shared else ""
            rows |= {f"ffn_{name}{end}.weight": (2, width) for name in ("gate", "up")}
            rows |= {f"ffn_down{end}.weight": (2, hidden)}
        tensors += [tensor(f"blk.{layer}.{name}", *shape) for name, shape in rows.items()]
        tensors += [tensor(f"blk.{layer}.attn_norm.weight", width), tensor(f"blk.{layer}.attn_q.bias", width)]
    write(path, keys, tensors)
    return path


def projector(path: Path, *, layers: int = 12, width: int = 256, hidden: int = 1104, fused: bool = False) -> Path:
    """A vision part. 1104 is no multiple of 32, like the feed-forward width of the largest SigLIP."""
    keys = {"general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True}
    tensors = [
        tensor("v.patch_embd.weight", width, 3, 2, 16), tensor("v.patch_embd.bias", width),
        tensor("v.position_embd.weight", 4, width), tensor("v.class_embd", width), tensor("v.post_ln.weight", width),
        tensor("mm.0.weight", 2, width), tensor("mm.0.bias", 2), tensor("mm.2.weight", 1, 512),
        tensor("mm.model.fc.weight", 2, 1024), tensor("mm.input_projection.weight", width, 2),
        tensor("mm.soft_emb_norm.weight", width), tensor("v.image_newline", width),
        tensor("mm.patch_merger.weight", 2, 2, 4, 256), tensor("resampler.kv.weight", 2, 512),
    ]  # fmt: skip
    for layer in range(layers):
        names = ["attn_qkv"] if fused else ["attn_q", "attn_k", "attn_v"]
        for name in [*names, "attn_out", "ffn_up"]:
            tensors.append(tensor(f"v.blk.{layer}.{name}.weight", 2, width))
        tensors += [tensor(f"v.blk.{layer}.ffn_down.weight", 2, hidden), tensor(f"v.blk.{layer}.ln1.weight", width)]
    write(path, keys, tensors)
    return path


CASES = {
    "small": lambda path: text_model(path, layers=6),
    "grouped": lambda path: text_model(path, layers=18, kv_heads=2),
    "untied": lambda path: text_model(path, layers=32, untied=True),
    "narrow": lambda path: text_model(path, layers=30, width=576, hidden=1536, heads=9, kv_heads=3),
    "odd": lambda path: text_model(path, layers=4, width=80, hidden=208, untied=True),
    "large": lambda path: text_model(path, layers=80, kv_heads=1, untied=True),
    "fused": lambda path: text_model(path, layers=12, kv_heads=4, fused=True),
    "eight experts": lambda path: text_model(path, layers=10, kv_heads=2, experts=8, untied=True),
    "many experts": lambda path: text_model(path, layers=10, experts=16, shared=True, untied=True),
    "projector": projector,
    "fused projector": lambda path: projector(path, layers=27, hidden=768, fused=True),
}


def arrange(names: Iterable[str]) -> list[str]:
    """The order of a record: tensors of one kind together, so that runs are long."""
    return sorted(names, key=lambda name: [name.rsplit(".", 2)[-2:], name])


def pack(types: list[str]) -> str:
    """Runs of equal types, as "F32*3 Q4_K"."""
    runs = [(kind, len(list(run))) for kind, run in groupby(types)]
    return " ".join(kind if count == 1 else f"{kind}*{count}" for kind, count in runs)


def unpack(text: str) -> list[str]:
    return [kind for run in text.split() for kind, _, count in [run.partition("*")] for _ in range(int(count or 1))]


def ask(program: str, path: Path, mix: str) -> dict[str, str]:
    """The type that llama.cpp gives to each tensor; none where it aborts."""
    done = subprocess.run(
        [program, "--dry-run", str(path), str(path.with_suffix(".out")), mix],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        print(f"{path}, {mix}: no answer", file=sys.stderr)
        return {}
    found = {}
    for line in (done.stdout + done.stderr).splitlines():
        if head := re.match(r"\[ *\d+/ *\d+\] (\S+) +- \[.*\], type = +(\S+?),", line):
            to = re.search(r"\((\w+)\)$", line)
            found[head[1]] = (to[1] if to else head[2]).upper()
    return found


def main() -> None:
    record: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in CASES.items():
            path = make(Path(folder) / "model.gguf")
            record[name] = {}
            for mix in MIXES:
                types = ask(sys.argv[1], path, mix)
                if types:
                    record[name][mix] = pack([types[each] for each in arrange(types)])
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
