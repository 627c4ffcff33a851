"""A long conversation with a picture goes on: how soon the second turn's first token comes, beside the first turn's.

    python bench/second_turn.py [--peer [NAME=]FOLDER ...] [--tokens 3000] [--rounds 3] [--folder FOLDER]

The model has Qwen3.5-0.8B's shapes, random weights of 8 bits and recurrent layers, whose states cannot be cut back: a
server that keeps none computes the whole conversation again. llama-server answers the same requests, when it is found.
Each round is a new conversation; the ratio is that of the medians of both turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from load_clients import Server, picture, serving
from ours import CACHE
from peer import Peer, PeerError, add_peers

from opsin.convert.hf import convert

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
from vision_truth import SPECIAL, byte_tokenizer

THREADS, WANTED = 2, 20.0
SPECIALS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>", "<|im_end|>"]
TEXT = {
    "vocab_size": 264, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24, "head_dim": 256,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 32768, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
    "layer_types": [*["linear_attention"] * 3, "full_attention"] * 6, "eos_token_id": SPECIAL + 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "mrope_section": [11, 11, 10],
                        "mrope_interleaved": True, "partial_rotary_factor": 0.25},
}  # fmt: skip
VISION = {"depth": 12, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "out_hidden_size": 1024}
IMAGE = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "merge_size": 2,
         "temporal_patch_size": 2, "size": {"shortest_edge": 65536, "longest_edge": 16777216},
         "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip


def write(folder: Path) -> tuple[Path, Path]:
    """The model and its part for pictures, made when they are missing."""
    model, sight = folder / "random-qwen35-24x1024.q8_0.gguf", folder / "random-qwen35-sight.q8_0.gguf"
    if not (model.exists() and sight.exists()):
        checkpoint = folder / "random-qwen35-24x1024"
        ids = {"vision_start_token_id": SPECIAL, "image_token_id": SPECIAL + 1, "vision_end_token_id": SPECIAL + 2}
        config = hf.Qwen3_5Config(
            text_config=TEXT, vision_config=VISION, video_token_id=SPECIAL + 3, dtype=torch.float16, **ids
        )
        torch.manual_seed(0)
        hf.Qwen3_5ForConditionalGeneration(config).half().save_pretrained(checkpoint)
        (checkpoint / "preprocessor_config.json").write_text(json.dumps(IMAGE), encoding="utf-8")
        byte_tokenizer(SPECIALS, "".join(SPECIALS[:3]), eos_token=SPECIALS[4]).save_pretrained(checkpoint)
        convert(checkpoint, model, mmproj=sight, format="q8_0")
    return model, sight


def first_token(server: Server, messages: Sequence[dict[str, Any]]) -> tuple[float, str]:
    """Seconds to the first token of an answer, and the answer."""
    body = {"messages": messages, "temperature": 0, "max_tokens": 8, "ignore_eos": True, "cache_prompt": True}
    begun, first, said = time.perf_counter(), 0.0, ""
    for second, event in server.stream("/v1/chat/completions", body):
        if event.get("choices") and (
            event["choices"][0]["delta"].get("content") or event["choices"][0]["finish_reason"]
        ):
            first = first or second - begun
            said += event["choices"][0]["delta"].get("content") or ""
    return first, said


def turns(server: Server, seed: int, tokens: int) -> tuple[float, float]:
    """Seconds to the first token of both turns of a conversation of so many tokens that nobody had before."""
    letters = "".join(map(chr, np.random.default_rng(seed).integers(97, 123, tokens - 256 - 60)))
    parts = [{"type": "image_url", "image_url": {"url": picture(seed)}}, {"type": "text", "text": letters}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    first, said = first_token(server, messages)
    more = [{"type": "text", "text": "And then?"}]
    answer = [{"type": "text", "text": said or "a"}]
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": more}]
    return first, first_token(server, messages)[0]


def measure(server: Server, rounds: int, tokens: int) -> str:
    """What one server does, in a line."""
    turns(server, 1, 400)
    seen = [turns(server, 100 + seed, tokens) for seed in range(rounds)]
    first, second = (statistics.median(pair[turn] for pair in seen) for turn in (0, 1))
    return f"{server.name}: first turn {first:.2f} s, second {second:.3f} s: {first / second:.1f} times sooner"


def main() -> None:
    """Print a line for each server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peers(parser)
    parser.add_argument("--opsin", default="opsin", help="the command")
    parser.add_argument("--folder", type=Path, default=CACHE / "second-turn", help="of random files")
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model, sight = write(args.folder.resolve())
    options = ["-m", str(model), "--mmproj", str(sight), "-c", "8192", "-t", str(THREADS)]
    with serving("opsin", [args.opsin, "serve", "--guesses", "0", *options]) as server:
        print(measure(server, args.rounds, args.tokens) + f" (wanted {WANTED:.0f})", flush=True)
    try:
        peers = Peer.all(args.peer)
    except PeerError as error:
        print(error)
        return
    for peer in peers:
        line = [str(peer.folder / "llama-server"), *options, "--jinja", "-np", "1"]
        with serving(peer.name, line, args.folder) as server:
            print(measure(server, args.rounds, args.tokens), flush=True)


if __name__ == "__main__":
    main()
