"""The tower of each family at its published width, random weights: its share of the peak, and llama.cpp beside it.

    python bench/towers.py [--peer [NAME=]FOLDER ...] [--only NAME ...] [--pairs 5] [--layers 4]

Each tower has so many of its layers (what a layer costs is what is measured), one picture, from prepared pixels to
embeddings. The share is that of the operations of matrix products and attention, counted as they are called, in the
machine's multiply-add peak. All programs read the same file, which `opsin convert` made of random weights. A ratio is
that of the medians by turns of seconds a row (of some families llama.cpp cuts a picture otherwise), against the fastest
peer, and of its two files the faster.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import limits
import numpy as np
import torch
import transformers as hf
from ours import CACHE
from peer import Peer, PeerError, add_peers
from random_smolvlm import write_text
from text import OPSIN, say
from vision_tasks import Worker, picture

from opsin.config import from_environment
from opsin.convert.hf import convert
from opsin.gguf import File
from opsin.media.decode import open_picture
from opsin.models import VisionEncoder, load_encoder
from opsin.nn.module import FileReader
from opsin.ops import Array, most
from opsin.ops.cpu import Cpu

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
import minicpmv_truth
from vision_truth import byte_tokenizer

HERE, THREADS = Path(__file__).parent, 2
FORMS = ("f16", "q8_0")
SPECIALS = ["<image>", "<a>", "<b>", "<c>", "<d>"]
TEXT = {
    "vocab_size": 262, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 1, "num_attention_heads": 9,
    "num_key_value_heads": 3, "head_dim": 64, "max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
}  # fmt: skip
SIGLIP_SO = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "patch_size": 14}
IMAGE = {"image_token_id": 257, "image_token_index": 257}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}}
VISION_TOKENS = {"vision_start_token_id": 258, "vision_end_token_id": 259, "video_token_id": 260}


@dataclass(frozen=True)
class Family:
    """A class of transformers, its sizes, and the side of a square picture that it sees as one unit of work."""

    kind: str
    side: int
    vision: dict[str, Any]
    text: str = "llama"
    more: dict[str, Any] | None = None
    depth: str = "num_hidden_layers"
    preprocessor: dict[str, Any] | None = None
    last: str = ""  # a setting that lists layers: here the last one
    told: dict[str, Any] | None = None  # more of the text

    @property
    def text_width(self) -> int:
        return int({**TEXT, **(self.told or {})}["hidden_size"])

    def model(self, layers: int) -> Any:
        """Random, in float16."""
        vision = {**self.vision, self.depth: layers, **({self.last: [layers - 1]} if self.last else {})}
        text = {"model_type": self.text, **TEXT, **(MROPE if "vl_text" in self.text else {}), **(self.told or {})}
        config = getattr(hf, f"{self.kind}Config")(
            text_config=text, vision_config=vision, dtype=torch.float16, **IMAGE, **(self.more or {})
        )
        torch.manual_seed(0)
        made: hf.PreTrainedModel = getattr(hf, f"{self.kind}ForConditionalGeneration")(config)
        return made.half()


class MiniCpmV(Family):
    """MiniCPM-V 2.6, of which transformers has no class."""

    def model(self, layers: int) -> Any:
        """Random, in float16; its resampler is as wide as its text."""
        torch.manual_seed(0)
        version = replace(minicpmv_truth.VERSIONS["2.6"], queries=64)
        seen, said = {**self.vision, self.depth: layers}, {**TEXT, **(self.told or {})}
        return minicpmv_truth.MiniCpmV(version, 70, side=self.side, seen=seen, said=said).half()


CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
PIXTRAL = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "hidden_act": "silu", "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
}  # fmt: skip
FAMILIES = {
    "SmolVLM": Family("Idefics3", 512, {
        "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 512, "patch_size": 16,
    }, more={"scale_factor": 4}, preprocessor={"do_image_splitting": True, "size": {"longest_edge": 512},
        "max_image_size": {"longest_edge": 512}}),
    "LLaVA 1.5": Family("Llava", 336, CLIP_L),
    "LLaVA 1.6": Family("LlavaNext", 336, CLIP_L, more={"image_grid_pinpoints": [[336, 336], [672, 672]]}),
    "LLaVA-OneVision": Family("LlavaOnevision", 384, {"model_type": "siglip_vision_model", **SIGLIP_SO,
        "image_size": 384, "vision_use_head": False}, "qwen2", {"image_grid_pinpoints": [[384, 384], [768, 768]]}),
    "Gemma 3": Family("Gemma3", 896, {"model_type": "siglip_vision_model", **SIGLIP_SO, "image_size": 896,
        "vision_use_head": False}, "gemma3_text", {"mm_tokens_per_image": 256, "boi_token_index": 258,
        "eoi_token_index": 259}),
    "Qwen2-VL": Family("Qwen2VL", 672, {"embed_dim": 1280, "hidden_size": 576, "num_heads": 16}, "qwen2_vl_text",
        VISION_TOKENS, "depth"),
    "Qwen2.5-VL": Family("Qwen2_5_VL", 672, {"hidden_size": 1280, "out_hidden_size": 576, "intermediate_size": 3420,
        "num_heads": 16}, "qwen2_5_vl_text", VISION_TOKENS, "depth", last="fullatt_block_indexes"),
    "Qwen3-VL": Family("Qwen3VL", 768, {"hidden_size": 1152, "out_hidden_size": 576, "intermediate_size": 4304,
        "num_heads": 16}, "qwen3_vl_text", VISION_TOKENS, "depth", last="deepstack_visual_indexes"),
    "InternVL": Family("InternVL", 448, {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
        "image_size": [448, 448], "patch_size": [14, 14]}, "qwen2"),
    "Pixtral": Family("Llava", 512, {**PIXTRAL, "image_size": 1024, "patch_size": 16},
        more={"vision_feature_select_strategy": "full", "vision_feature_layer": -1}),
    "Llama 3.2 Vision": Family("Mllama", 560, {"hidden_size": 1280, "intermediate_size": 5120, "attention_heads": 16,
        "image_size": 560, "patch_size": 14, "num_global_layers": 1, "intermediate_layers_indices": [0],
        "vision_output_dim": 2560}, "mllama_text_model", told={"num_hidden_layers": 2, "cross_attention_layers": [1],
        "tie_word_embeddings": False}),
    "MiniCPM-V 2.6": MiniCpmV("", 448, SIGLIP_SO, told={
        "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4, "head_dim": 128,
        "tie_word_embeddings": False}),
    "Mistral Small 3.1": Family("Mistral3", 560, {**PIXTRAL, "image_size": 1540, "patch_size": 14}, "mistral",
        {"spatial_merge_size": 2, "multimodal_projector_bias": False}),
}  # fmt: skip


def write_tower(folder: Path, name: str, form: str, layers: int) -> Path:
    """The tower's file, made when it is missing."""
    checkpoint = folder / f"tower-{name.lower().replace(' ', '-')}-{layers}"
    path = checkpoint.with_name(f"{checkpoint.name}.{form}.gguf")
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not checkpoint.exists():
            family = FAMILIES[name]
            family.model(layers).save_pretrained(checkpoint)
            settings = {"image_processor_type": "any", **(family.preprocessor or {})}
            (checkpoint / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
            byte_tokenizer(_specials(name), "<image>").save_pretrained(checkpoint)
        convert(checkpoint, _text(folder, name), mmproj=path, format=form)  # type: ignore[arg-type]
    return path


def _text(folder: Path, name: str) -> Path:
    """Where the text that a tower comes with is written."""
    return folder / f"text-of-a-tower-{FAMILIES[name].text_width}.gguf"


def text_for_peer(folder: Path, name: str) -> Path:
    """A text as wide as the tower's rows, without which llama.cpp opens no tower."""
    return write_text(folder, "q8_0") if FAMILIES[name].text_width == TEXT["hidden_size"] else _text(folder, name)


def _specials(name: str) -> list[str]:
    rows = name in ("Pixtral", "Mistral Small 3.1")
    return ["[IMG]", "[IMG_BREAK]", "[IMG_END]", *SPECIALS[3:]] if rows else SPECIALS


class Tower:
    """A tower in opsin, one picture before it."""

    def __init__(self, device: Cpu, path: Path, side: int) -> None:
        self._ops, self.operations = device.eager(), 0
        with File.open(path) as file:
            self._encoder: VisionEncoder = load_encoder(file, FileReader(file, self._ops))
        spans = self._encoder.layout(open_picture(picture(0, side))).spans
        whole = {
            span.digest: span.features for span in spans if span.features is not None
        }  # rows of one are shown apart
        self._features = [features.make() for features in whole.values()]

    def encode(self) -> tuple[float, int]:
        """Seconds, and rows."""
        began = time.perf_counter()
        rows = sum(len(self._encoder.encode(features[None]).numpy()) for features in self._features)
        return time.perf_counter() - began, rows

    def count(self) -> int:
        """Additions and multiplications of products and attention."""
        linear, attend, found = self._ops.linear, self._ops.attend_dense, [0]

        def counted(x: Array, w: Any, *rest: Any, **more: Any) -> Array:
            found[0] += 2 * most(x.shape[0]) * w.shape[0] * w.shape[1]
            return linear(x, w, *rest, **more)

        def attended(q: Array, k: Array, v: Array, first: Array, last: Array, **more: Any) -> Array:
            seen = int((last.numpy().astype(np.int64) - first.numpy()).sum())
            found[0] += 2 * seen * q.shape[1] * (most(q.shape[2]) + most(v.shape[2]))
            return attend(q, k, v, first, last, **more)

        self._ops.linear, self._ops.attend_dense = counted, attended  # type: ignore[method-assign]
        try:
            self.encode()
        finally:
            self._ops.linear, self._ops.attend_dense = linear, attend  # type: ignore[method-assign]
        return found[0]


def measure(
    name: str, device: Cpu, peers: Sequence[Peer], files: Path, pairs: int, layers: int
) -> Iterator[str]:  # fmt: skip
    """A line for each format."""
    side = FAMILIES[name].side
    paths = {form: write_tower(files, name, form, layers) for form in FORMS}
    text = text_for_peer(files, name)
    for form in FORMS:
        tower = Tower(device, paths[form], side)
        operations = tower.count()
        sides: dict[str, Callable[[], tuple[float, int]]] = {OPSIN: tower.encode}
        workers = [worker for peer in peers for worker in _workers(peer, text, paths, side, sides)]
        seconds: dict[str, list[float]] = {who: [] for who in sides}
        rows: dict[str, int] = {}
        peaks: list[float] = []
        for i in range(-1, pairs):
            for who in list(sides)[:: 1 if i % 2 else -1]:
                took, rows[who] = sides[who]()
                if i >= 0:
                    seconds[who].append(took)
            peaks.append(limits.float_peak(THREADS))
        for worker in workers:
            worker.close()
        rate = 1e-9 * operations / statistics.median(seconds[OPSIN])
        share = f"{rate:.0f} | {rate / statistics.median(peaks):.0%}"
        ours, *theirs, ratio = _beside(peers, seconds, rows)
        yield f"| {' | '.join([f'{name}, {form}', ours, share, *theirs, ratio])} |"


def _workers(
    peer: Peer, text: Path, paths: dict[str, Path], side: int, sides: dict[str, Callable[[], tuple[float, int]]]
) -> list[Worker]:
    """A peer with each file, as far as it can read it."""
    workers = []
    library = peer.library("llama") or peer.folder / "libllama.so"
    for form, path in paths.items():
        command = [sys.executable, str(HERE / "vision_peer.py"), str(library), str(text), str(path)]
        try:
            worker = Worker(form, [*command, "--threads", str(THREADS)])
            worker.ask("encode", pictures=[0], side=side)
        except (RuntimeError, OSError) as error:
            say(f"{peer.name} cannot encode {path.name}: {error}")
            continue

        def ask(worker: Worker = worker) -> tuple[float, int]:
            answer = worker.ask("encode", pictures=[0], side=side)
            return answer["seconds"], answer["rows"]

        sides[f"{peer.name} {form}"] = ask
        workers.append(worker)
    return workers


def _beside(peers: Sequence[Peer], seconds: dict[str, list[float]], rows: dict[str, int]) -> list[str]:
    """Cells of opsin, of each peer with the faster of its files, and of the ratio by rows."""
    each = {who: statistics.median(found) / rows[who] for who, found in seconds.items()}
    sides = [OPSIN]
    for peer in peers:
        sides.append(min((f"{peer.name} {form}" for form in FORMS), key=lambda who: each.get(who, math.inf)))
    cells = [f"{each[who] * rows[who]:.3f}, {rows[who]}" if who in each else "-" for who in sides]
    best = min((each[who] for who in sides[1:] if who in each), default=None)
    return [*cells, "-" if best is None else f"**{best / each[OPSIN]:.2f}**"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peers(parser)
    parser.add_argument("--alone", action="store_true", help="without peers")
    parser.add_argument("--files", type=Path, default=CACHE / "bench", help="where random files are kept")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="NAME")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    device, peers = Cpu(from_environment(), threads=THREADS), [] if args.alone else Peer.all(args.peer)
    heads = ["opsin: s, rows", "GFLOP/s", "of the peak", *(f"{peer.name}: s, rows" for peer in peers), "faster by"]
    print(f"| tower | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for name in args.only:
        say(name)
        for line in measure(name, device, peers, args.files, args.pairs, args.layers):
            print(line, flush=True)


if __name__ == "__main__":
    try:
        main()
    except PeerError as error:
        sys.exit(f"bench/towers.py: {error}")
