"""Jina BERT v2 by its definition, in float64, under the names that its checkpoints have."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def slopes(heads: int) -> list[float]:
    """Of a number of heads that is a power of 2, as the authors of ALiBi compute them."""
    assert heads & (heads - 1) == 0
    return [2 ** (-8 * (i + 1) / heads) for i in range(heads)]


class JinaTruth(nn.Module):
    """`is_normed`: the kind for code, whose q and k are normed."""

    def __init__(self, is_normed: bool = False, **settings: object) -> None:
        super().__init__()
        self.settings, self.is_normed = settings, is_normed
        width, middle = settings["hidden_size"], settings["intermediate_size"]
        norm = {"norm": nn.LayerNorm(width)}
        words = nn.Embedding(settings["vocab_size"], width), nn.Embedding(settings["type_vocab_size"], width)
        shapes: dict[str, nn.Module] = {
            "embeddings.word_embeddings": words[0], "embeddings.token_type_embeddings": words[1],
            "embeddings.LayerNorm": norm["norm"],
        }  # fmt: skip
        ends = (
            ("mlp.up_gated_layer", "mlp.down_layer", "layer_norm_2") if is_normed
            else ("mlp.gated_layers", "mlp.wo", "mlp.layernorm")
        )  # fmt: skip
        for n in range(settings["num_hidden_layers"]):
            layer = f"encoder.layer.{n}"
            for part in ("query", "key", "value"):
                shapes[f"{layer}.attention.self.{part}"] = nn.Linear(width, width)
            shapes[f"{layer}.attention.output.dense"] = nn.Linear(width, width)
            shapes[f"{layer}.attention.output.LayerNorm"] = nn.LayerNorm(width)
            shapes[f"{layer}.{ends[0]}"] = nn.Linear(width, 2 * middle, bias=False)
            shapes[f"{layer}.{ends[1]}"] = nn.Linear(middle, width)
            shapes[f"{layer}.{ends[2]}"] = nn.LayerNorm(width)
            for part in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1"):
                if is_normed:
                    shapes[f"{layer}.{part}"] = nn.LayerNorm(width)
        self.ends, self.parts = ends, nn.ModuleDict({name.replace(".", "/"): part for name, part in shapes.items()})

    def _of(self, name: str, x: Tensor) -> Tensor:
        part = self.parts[name.replace(".", "/")]
        weight, bias = part.weight.double(), None if part.bias is None else part.bias.double()
        if isinstance(part, nn.Linear):
            return nn.functional.linear(x, weight, bias)
        return nn.functional.layer_norm(x, weight.shape, weight, bias, self.settings["layer_norm_eps"])

    def _attention(self, x: Tensor, layer: str) -> Tensor:
        heads, own = self.settings["num_attention_heads"], f"{layer}.attention.self"
        q, k, v = (self._of(f"{own}.{part}", x) for part in ("query", "key", "value"))
        if self.is_normed:
            q, k = self._of(f"{own}.layer_norm_q", q), self._of(f"{own}.layer_norm_k", k)
        q, k, v = (part.reshape(len(x), heads, -1).transpose(0, 1) for part in (q, k, v))
        place = torch.arange(len(x))
        far = (place[:, None] - place).abs()
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5 - torch.tensor(slopes(heads))[:, None, None] * far
        return (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(x), -1)

    def forward(self, ids: Tensor) -> SimpleNamespace:
        words, kinds = (
            self.parts[f"embeddings/{name}"].weight for name in ("word_embeddings", "token_type_embeddings")
        )
        x = self._of("embeddings.LayerNorm", (words[ids[0]] + kinds[0]).double())
        for n in range(self.settings["num_hidden_layers"]):
            layer = f"encoder.layer.{n}"
            seen = self._of(f"{layer}.attention.output.dense", self._attention(x, layer))
            seen = self._of(f"{layer}.attention.output.LayerNorm", seen + x)
            if self.is_normed:
                seen = self._of(f"{layer}.layer_norm_1", seen + x)
            first, second = self._of(f"{layer}.{self.ends[0]}", seen).chunk(2, -1)
            up, gate = (first, second) if self.is_normed else (second, first)
            found = self._of(f"{layer}.{self.ends[1]}", nn.functional.gelu(gate) * up)
            x = self._of(f"{layer}.{self.ends[2]}", found + seen)
        return SimpleNamespace(last_hidden_state=x[None].float())

    def save_pretrained(self, folder: Path) -> None:
        """As its checkpoints lie."""
        folder.mkdir(parents=True, exist_ok=True)
        named = {name.removeprefix("parts.").replace("/", "."): values for name, values in self.state_dict().items()}
        save_file({name: values.contiguous() for name, values in named.items()}, folder / "model.safetensors")
        config = {**self.settings, "architectures": ["JinaBertModel"], "position_embedding_type": "alibi"}
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
