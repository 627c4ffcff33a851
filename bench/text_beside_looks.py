"""What layers that look at pictures cost those who send none: 32 texts at once in a Llama 3.2 Vision's text part.

    python bench/text_beside_looks.py [--pairs 7] [--streams 32]

Beside it stands the same decoder without those layers, as a Llama of its own: by turns, one process a measurement. Both
have random weights, 1024 wide, 8 layers; the first has two more that look. Rows of text compute none of these.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from ours import CACHE, Opsin
from text import say
from towers import byte_tokenizer

from opsin.convert.hf import convert

LAYERS, LOOKING = 8, [3, 8]
TEXT: dict[str, Any] = {
    "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16,
    "num_key_value_heads": 4, "max_position_embeddings": 16384, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
TOWER = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 4,
    "image_size": 56, "patch_size": 14, "intermediate_layers_indices": [0], "vision_output_dim": 128,
}  # fmt: skip


def models() -> dict[str, hf.PreTrainedModel]:
    """Both, of the same sizes."""
    torch.manual_seed(0)
    layers = {"num_hidden_layers": LAYERS + len(LOOKING), "cross_attention_layers": LOOKING}
    looks = hf.MllamaConfig(text_config={**TEXT, **layers}, vision_config=TOWER, image_token_index=258)
    plain = hf.LlamaConfig(**TEXT, num_hidden_layers=LAYERS)
    return {"looks": hf.MllamaForConditionalGeneration(looks), "plain": hf.LlamaForCausalLM(plain)}


def write(folder: Path) -> dict[str, Path]:
    """Their files, made when they are missing."""
    paths = {name: folder / f"text-beside-looks.{name}.gguf" for name in ("looks", "plain")}
    if not all(path.exists() for path in paths.values()):
        for name, model in models().items():
            checkpoint = folder / f"text-beside-looks-{name}"
            model.half().save_pretrained(checkpoint)
            byte_tokenizer(["<|image|>", "<a>"], "<|image|>").save_pretrained(checkpoint)
            convert(checkpoint, paths[name], format="q8_0", vision=False)
    return paths


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opsin", type=Path, help="the opsin command")
    parser.add_argument("--files", type=Path, default=CACHE / "bench", help="where random files are kept")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--streams", type=int, default=32)
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    opsin, paths = Opsin.find(args.opsin), write(args.files)
    rates: dict[str, list[float]] = {name: [] for name in paths}
    for i in range(-1, args.pairs):
        for name in list(paths)[:: 1 if i % 2 else -1]:
            got = opsin.bench(paths[name], "--parallel", str(args.streams), prompt=32, decode=64)
            say(f"{name}: {got['decode_tokens_per_second']:.1f} tokens/s")
            if i >= 0:
                rates[name].append(got["decode_tokens_per_second"])
    each = sorted(plain / looks for plain, looks in zip(rates["plain"], rates["looks"], strict=True))
    more = statistics.median(rates["plain"]) / statistics.median(rates["looks"]) - 1
    print(
        f"{args.streams} texts at once: a token takes {more:+.1%} time beside layers that look; pairs: "
        f"{statistics.median(each) - 1:+.1%} ({each[0] - 1:+.1%} to {each[-1] - 1:+.1%}); wanted at most +5 %"
    )


if __name__ == "__main__":
    main()
