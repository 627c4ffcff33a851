"""What the tests of vision families share: random transformers models, their files, pictures of awkward sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import note
from numpy.typing import NDArray
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from opsin.gguf import File, NewTensor, write
from opsin.models import VisionEncoder, load_encoder
from opsin.nn.module import FileReader
from opsin.ops.cpu import Cpu
from opsin.spans import Patches

Floats = NDArray[np.float32]
Rules = Sequence[tuple[str, str]]  # a pattern of transformers' names, and the file's
SPECIAL = 257
MODES = ("RGBA", "L", "LA", "P", "CMYK", "1")
SIZES = ((1, 1), (1, 30), (30, 1), (2, 2), (100, 3), (3, 100), (56, 56), (57, 56), (56, 57), (112, 56), (64, 48),
         (301, 200), (640, 361))  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}MARKER{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
    "<assistant>"
)
SIGLIP: Rules = (
    (r"embeddings\.patch_embedding", "v.patch_embd"),
    (r"embeddings\.class_embedding", "v.class_embd"),
    (r"embeddings\.position_embedding", "v.position_embd"),
    (r"pre_layrnorm", "v.pre_ln"),
    (r"post_layernorm", "v.post_ln"),
    (r"encoder\.layers\.(\d+)\.layer_norm(\d)", r"v.blk.\1.ln\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj", r"v.blk.\1.attn_out"),
    (r"encoder\.layers\.(\d+)\.self_attn\.(.)_proj", r"v.blk.\1.attn_\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1", r"v.blk.\1.ffn_up"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2", r"v.blk.\1.ffn_down"),
)


@dataclass(frozen=True)
class Truth:
    """What transformers says of a family, on a tiny random model: what the tests of all families need of it.

    Attributes:
        projector: the name that files give its tower.
        make: the model.
        write_tower: (path, model, **options) -> the file of its tower, written by hand.
        processor: transformers' own, with a tokenizer of bytes.
        marker: what its template writes for a picture.
        options: of `write_tower`.
        like: another model whose tower it has: what is asked of files of towers is asked of that one's.
    """

    projector: str
    make: Callable[[], PreTrainedModel]
    write_tower: Callable[..., Path]
    processor: Callable[[], Any]
    marker: str
    options: Mapping[str, object] = field(default_factory=dict)
    like: str = ""

    def write(self, path: Path, model: PreTrainedModel | None = None) -> Path:
        return self.write_tower(path, model or self.make(), **self.options)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """The folder that the converter takes."""
        model.save_pretrained(folder)
        self.processor().image_processor.save_pretrained(folder)
        self.processor().tokenizer.save_pretrained(folder)


def opener(device: Cpu, truth: object, write: Callable[..., Path], folder: Path) -> Callable[..., VisionEncoder]:
    """Opens the tower of a truth: written by `write(path, truth, **options)`, read back."""

    def open_file(**options: object) -> VisionEncoder:
        with File.open(write(folder / "tower.gguf", truth, **options)) as file:
            return load_encoder(file, FileReader(file, device.eager()))

    return open_file


def enliven(model: nn.Module, seed: int = 0, peak: float = 3.0) -> None:
    """Random weights whose mistakes show: peaked attention, norms and biases that do something."""
    random, family = torch.Generator().manual_seed(seed), "Gemma3" in type(model).__name__
    with torch.no_grad():
        for name, values in model.named_parameters():
            noise = torch.randn(values.shape, generator=random)
            if "norm" in name or "ln_q" in name:
                from_zero = name.endswith("bias") or (family and _counts_from_zero(name))
                values.copy_(noise * 0.2 + (0.0 if from_zero else 1.0))
            elif values.ndim == 1 or "position_embedding" in name:
                values.copy_(noise * 0.5)
            else:
                gain = peak**0.5 if re.search(r"\b[qk]_proj|qkv", name) else 1.0
                values.copy_(noise * gain * values[0].numel() ** -0.5)


def _counts_from_zero(name: str) -> bool:
    """Whether this family keeps a norm's weight less one."""
    return "language_model" in name or "soft_emb_norm" in name


def write_mmproj(
    path: Path,
    keys: Mapping[str, object],
    tensors: Mapping[str, torch.Tensor],
    rules: Rules,
    *,
    half: bool = False,
    change: Callable[[str, Floats], Iterable[tuple[str, Floats]]] = lambda name, values: [(name, values)],
) -> Path:
    """The tensors that rules name, in float32, or matrices in f16; `change` is the last word on each."""
    written = []
    for name, tensor in tensors.items():
        for file_name, values in _renamed(name, tensor, rules):
            for last_name, last in change(file_name, values):
                small = half and last.ndim > 1 and "position_embd" not in last_name
                written.append(NewTensor.of(last_name, last.astype(np.float16 if small else np.float32)))
    write(
        path,
        {"general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True, **keys},
        written,
    )
    return path


def _renamed(name: str, tensor: torch.Tensor, rules: Rules) -> Iterable[tuple[str, Floats]]:
    for pattern, new in rules:
        found = re.search(rf"(?:^|\.){pattern}((?:\.weight|\.bias)?)$", name)
        if found:
            values = tensor.detach().float().numpy()
            return [(found.expand(new) + found.group(found.re.groups), values)]
    return []


def vision_keys(vision: object, projection: int, activation: str | None = "gelu") -> dict[str, object]:
    """`clip.vision.*` of a SigLIP or CLIP configuration."""
    sizes = {
        "image_size": vision.image_size, "patch_size": vision.patch_size, "embedding_length": vision.hidden_size,
        "feed_forward_length": vision.intermediate_size, "block_count": vision.num_hidden_layers,
        "attention.head_count": vision.num_attention_heads, "projection_dim": projection,
        "attention.layer_norm_epsilon": vision.layer_norm_eps,
    }  # fmt: skip
    used = {f"clip.use_{activation}": True} if activation else {}
    return {f"clip.vision.{key}": value for key, value in sizes.items()} | used


def look(mean: Sequence[float], std: Sequence[float]) -> dict[str, object]:
    return {"clip.vision.image_mean": np.float32(mean), "clip.vision.image_std": np.float32(std)}


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise over waves, so that neither smooth nor sharp mistakes hide."""
    random = np.random.default_rng([seed, width, height])
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + 1), np.cos(y / 7), np.sin((x + y) / 23)], -1) * 60 + 128
    pixels = np.clip(waves + random.normal(0, 40, waves.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.roll(pixels[..., 1], 3, 0)))
        return image
    return image.convert(mode)


def patch_rows(pixels: Floats, patch: int, block: int = 1) -> Floats:
    """The rows of [channels, height, width] as our towers take them, told one by one."""
    _, height, width = pixels.shape
    rows = []
    for top in range(0, height, patch * block):
        for left in range(0, width, patch * block):
            for y in range(top, top + patch * block, patch):
                for x in range(left, left + patch * block, patch):
                    rows.append(pixels[:, y : y + patch, x : x + patch].reshape(-1))
    return np.stack(rows)


def features(patches: Patches) -> list[Floats]:
    """What each span of a picture gives to the encoder; of the shape that it promised."""
    made = []
    for span in patches.spans:
        assert span.features is not None
        made.append(span.features.make())
        assert made[-1].shape == span.features.shape
        assert made[-1].dtype == np.float32
    return made


def spelt(patches: Patches, soft: str) -> str:
    """A picture as a processor spells it, `soft` for each row."""
    return "".join(part if isinstance(part, str) else soft * part.rows for part in patches.parts)


def byte_tokenizer(specials: Sequence[str], marker: str, **named: str) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 bytes, two newlines, and special tokens, the first of which is SPECIAL."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    texts = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]
    newline = chr(256 + hidden.index(10))
    texts.append(2 * newline)
    assert len(texts) == SPECIAL
    made = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=[(newline, newline)]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, extra_special_tokens=named, chat_template=TEMPLATE.replace("MARKER", marker)
    )


def written(messages: Sequence[Sequence[str | Image.Image]], marker: str) -> str:
    """What the template makes of messages of the user: lists of texts and pictures."""
    spoken = [
        "<user>" + "".join(marker if isinstance(part, Image.Image) else part for part in parts) for parts in messages
    ]
    return "\n".join([*spoken, "<assistant>"])


def plane_positions(ids: Sequence[int], layouts: Sequence[Patches], placeholder: int) -> list[list[int]]:
    """Time, row and column of each row of a sequence, by the rule for spans that have a grid."""
    found, at, spans = [], 0, iter(span for layout in layouts for span in layout.spans)
    i = 0
    while i < len(ids):
        if ids[i] != placeholder:
            found.append([at, at, at])
            at, i = at + 1, i + 1
            continue
        span = next(spans)
        wide = span.grid[1]
        found += [[at, at + row // wide, at + row % wide] for row in range(span.rows)]
        at, i = at + span.positions, i + span.rows
    return found


class WithoutVideos:
    """For processors that need torchvision for videos: they get none."""

    def check_argument_for_proper_class(self, name: str, argument: object) -> type:
        return type(argument)


def distance(ours: Floats, theirs: Floats) -> float:
    """The largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return note(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
