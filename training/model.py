"""The model in torch: the shape of Gemma 3, its parameters named as transformers names them.

A tower of the SigLIP kind reads pictures of 192 x 192; 2 x 2 patches are averaged to 36 rows; a projection hands them
to a decoder of the Gemma 3 kind. `tests/training` proves it equal to `Gemma3ForConditionalGeneration`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

WAVE = 1.0  # height of the waves that tell a patch's place
LOOK = 1.0  # how sharply heads look at their offsets in the beginning
CALM = 0.25  # how much less the blocks say in the beginning, so that they do not drown the waves
# Where the heads of the first blocks look in the beginning: patches (down, across).
OFFSETS = (((-1, 0), (1, 0), (0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1)),
           ((-2, 0), (2, 0), (0, -2), (0, 2)), ((-1, 0), (1, 0), (0, -1), (0, 1)))


@dataclass(frozen=True)
class Shape:
    """Every size of the model."""

    vocabulary: int = 1024
    width: int = 256
    layers: int = 6
    heads: int = 4
    groups: int = 2
    head: int = 64
    inner: int = 768
    tower_width: int = 256
    tower_layers: int = 6
    tower_heads: int = 4
    tower_inner: int = 1024
    side: int = 192
    patch: int = 16
    pool: int = 2
    window: int = 512
    context: int = 1024
    base_local: float = 10_000.0
    base_global: float = 100_000.0
    epsilon: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.side // self.patch

    @property
    def rows(self) -> int:
        """Rows that one picture takes."""
        return (self.grid // self.pool) ** 2

    def dictionary(self) -> dict[str, int | float]:
        """The sizes as plain values."""
        return asdict(self)


class Norm(nn.Module):
    """RMS norm whose weight is stored minus one."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis in float32."""
        return fn.rms_norm(x.float(), (x.shape[-1],), 1 + self.weight, self.epsilon).to(x.dtype)


class TowerAttention(nn.Module):
    """Attention among all patches of a picture."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.tower_width
        self.heads = shape.tower_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[pictures, patches, width] -> the same."""
        split = (*x.shape[:2], self.heads, -1)
        q, k, v = (f(x).view(split).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        # Written out: torch's fused kernel for the CPU is a third slower here, forward and backward.
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


class TowerMlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.tower_width, shape.tower_inner)
        self.fc2 = nn.Linear(shape.tower_inner, shape.tower_width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return self.fc2(fn.gelu(self.fc1(x), approximate="tanh"))


class TowerLayer(nn.Module):
    """One block of the tower."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(shape.tower_width, shape.epsilon)
        self.self_attn = TowerAttention(shape)
        self.layer_norm2 = nn.LayerNorm(shape.tower_width, shape.epsilon)
        self.mlp = TowerMlp(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[pictures, patches, width] -> the same."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TowerEmbeddings(nn.Module):
    """Patches and their places."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, shape.tower_width, shape.patch, shape.patch)
        self.position_embedding = nn.Embedding(shape.grid**2, shape.tower_width)
        self.shape = shape

    def forward(self, pixels: Tensor) -> Tensor:
        """[pictures, 3, side, side] from -1 to 1 -> [pictures, patches, width]."""
        grid, patch = self.shape.grid, self.shape.patch
        cut = pixels.unflatten(3, (grid, patch)).unflatten(2, (grid, patch)).permute(0, 2, 4, 1, 3, 5)
        weight = self.patch_embedding.weight.flatten(1)
        return fn.linear(cut.flatten(3).flatten(1, 2), weight, self.patch_embedding.bias) \
            + self.position_embedding.weight


class Encoder(nn.Module):
    """The list of the tower's blocks."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TowerLayer(shape) for _ in range(shape.tower_layers))


class Tower(nn.Module):
    """Pictures to patches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embeddings = TowerEmbeddings(shape)
        self.encoder = Encoder(shape)
        self.post_layernorm = nn.LayerNorm(shape.tower_width, shape.epsilon)

    def forward(self, pixels: Tensor) -> Tensor:
        """[pictures, 3, side, side] -> [pictures, patches, width]."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


class Projector(nn.Module):
    """Average neighbours, normalise, project to the decoder's width."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mm_input_projection_weight = nn.Parameter(torch.zeros(shape.tower_width, shape.width))
        self.mm_soft_emb_norm = Norm(shape.tower_width, shape.epsilon)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """[pictures, patches, tower width] -> [pictures, rows, width]."""
        grid, pool = self.shape.grid, self.shape.pool
        x = x.view(-1, grid // pool, pool, grid // pool, pool, x.shape[-1]).mean((2, 4)).flatten(1, 2)
        return self.mm_soft_emb_norm(x) @ self.mm_input_projection_weight


def rotation(positions: Tensor, head: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., rows, head] of rotary embedding."""
    frequency = base ** (-torch.arange(0, head, 2, device=positions.device, dtype=torch.float32) / head)
    angle = positions[..., None].float() * frequency
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of [batch, heads, rows, head], halves paired."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return (x * turn[0] + turned * turn[1]).to(x.dtype)


class DecoderAttention(nn.Module):
    """Grouped attention with normalised queries and keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.groups * shape.head, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.groups * shape.head, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.width, bias=False)
        self.q_norm, self.k_norm = Norm(shape.head, shape.epsilon), Norm(shape.head, shape.epsilon)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        """[batch, rows, width], bias [batch, 1, 1, rows, rows] added to the scores -> the same as x."""
        split = (*x.shape[:2], -1, self.shape.head)
        q = rotate(self.q_norm(self.q_proj(x).view(split)).transpose(1, 2), turn)
        k = rotate(self.k_norm(self.k_proj(x).view(split)).transpose(1, 2), turn)
        v = self.v_proj(x).view(split).transpose(1, 2)
        # Written out: torch's fused kernel for the CPU takes four times as long with a mask.
        q = (q * self.shape.head**-0.5).unflatten(1, (self.shape.groups, -1))  # [batch, groups, repeat, rows, head]
        scores = (q.flatten(2, 3) @ k.transpose(-1, -2)).unflatten(2, (-1, x.shape[1])) + bias
        seen = torch.softmax(scores, -1).flatten(2, 3) @ v
        return self.o_proj(seen.unflatten(2, (-1, x.shape[1])).flatten(1, 2).transpose(1, 2).flatten(2))


class DecoderMlp(nn.Module):
    """Gated linear layers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return self.down_proj(fn.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class DecoderLayer(nn.Module):
    """One block of the decoder, normalised before and after each part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(shape)
        self.mlp = DecoderMlp(shape)
        self.input_layernorm = Norm(shape.width, shape.epsilon)
        self.post_attention_layernorm = Norm(shape.width, shape.epsilon)
        self.pre_feedforward_layernorm = Norm(shape.width, shape.epsilon)
        self.post_feedforward_layernorm = Norm(shape.width, shape.epsilon)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        """[batch, rows, width] -> the same."""
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), turn, bias))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Decoder(nn.Module):
    """Rows to rows; logits are the product with the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)

    def embed(self, ids: Tensor) -> Tensor:
        """[batch, rows] -> [batch, rows, width], scaled as the family scales text."""
        return self.embed_tokens(ids) * self.shape.width**0.5

    @property
    def middle(self) -> int:
        """The last block of the first two thirds."""
        return max(0, len(self.layers) * 2 // 3 - 1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[batch, rows, width] -> normalised rows, and the rows before each block and after the last."""
        positions, dtype = torch.arange(x.shape[1], device=x.device), self.layers[0].self_attn.q_proj(x[:, :1]).dtype
        near = rotation(positions, self.shape.head, self.shape.base_local)
        far = rotation(positions, self.shape.head, self.shape.base_global)
        local = mask & (positions[:, None] - positions[None, :] < self.shape.window)
        near, far = ((cos.to(dtype), sin.to(dtype)) for cos, sin in (near, far))
        bias, local_bias = (torch.zeros_like(m, dtype=dtype).masked_fill(~m, -torch.inf)[:, None]
                            for m in (mask, local))
        between = []
        for index, layer in enumerate(self.layers):
            wide = index % 6 == 5
            between.append(x)
            x = layer(x, far if wide else near, bias if wide else local_bias)
        return self.norm(x), [*between, x]


class Nano(nn.Module):
    """The whole model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.vision_tower = Tower(shape)
        self.multi_modal_projector = Projector(shape)
        self.language_model = Decoder(shape)
        self.apply(initialise)
        nn.init.normal_(self.multi_modal_projector.mm_input_projection_weight, std=shape.tower_width**-0.5)
        nn.init.normal_(self.language_model.embed_tokens.weight, std=shape.width**-0.5)
        look_nearby(self.vision_tower, shape)

    def encode(self, pixels: Tensor) -> Tensor:
        """[pictures, 3, side, side] from -1 to 1 -> [pictures, rows, width]."""
        return self.multi_modal_projector(self.vision_tower(pixels))

    def forward(self, ids: Tensor, blocks: Tensor, rows: Tensor) -> Tensor:
        """Hidden rows of a batch."""
        return self.think(ids, blocks, rows)[0]

    def think(self, ids: Tensor, blocks: Tensor, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Hidden rows of a batch, at the end and between the decoder's blocks.

        ids [batch, rows]; blocks [batch, rows] is 0 for text and the picture's number (from 1) in its rows;
        rows [all picture rows in order, width] replace the embeddings where blocks > 0.
        """
        x = self.language_model.embed(ids)
        x = x.masked_scatter((blocks > 0)[..., None], rows.to(x.dtype))
        return self.language_model(x, sight(blocks))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocabulary]."""
        return fn.linear(hidden, self.language_model.embed_tokens.weight)


def sight(blocks: Tensor) -> Tensor:
    """Who sees whom: earlier rows, and the rows of one picture each other. [batch, 1, rows, rows]."""
    count = blocks.shape[1]
    causal = torch.ones(count, count, dtype=torch.bool, device=blocks.device).tril()
    together = (blocks[:, :, None] == blocks[:, None, :]) & (blocks[:, :, None] > 0)
    return (causal | together)[:, None]


def initialise(module: nn.Module) -> None:
    """Small normal weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def look_nearby(tower: Tower, shape: Shape) -> None:
    """Start so that patches look at given neighbours, as a convolution does.

    The last values of a row hold waves of its place, the same in every block; queries turn the waves by an offset, so
    that a head attends to the patch that lies there. After "Structured Initialization for Attention in Vision
    Transformers" (Zheng, Li and Lucey, 2024), here with waves, whose turning is exact. The last blocks look for patches
    like themselves: keys that begin as queries, after "Mimetic Initialization of Self-Attention Layers" (Trockman and
    Kolter, 2023).
    """
    count = waves_of(shape)
    frequencies = torch.pi * (torch.arange(count) + 0.5) / count
    angle = torch.arange(shape.grid)[:, None] * frequencies
    waves = WAVE * torch.cat((angle.sin(), angle.cos()), 1)  # [grid, 2 * count]
    down, across = waves[:, None].expand(-1, shape.grid, -1), waves[None].expand(shape.grid, -1, -1)
    places = torch.cat((down, across), 2).flatten(0, 1)  # [patches, 4 * count]
    width, head = shape.tower_width, shape.tower_width // shape.tower_heads
    with torch.no_grad():
        tower.embeddings.position_embedding.weight.zero_()
        tower.embeddings.position_embedding.weight[:, width - 4 * count:] = places
        for index, layer in enumerate(tower.encoder.layers):
            layer.self_attn.out_proj.weight.mul_(CALM)
            layer.mlp.fc2.weight.mul_(CALM)
            q, k = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            if index >= len(OFFSETS):
                k.copy_(q)
                continue
            for number in range(shape.tower_heads):
                offset = OFFSETS[index][number % len(OFFSETS[index])]
                rows, columns = slice(number * head, number * head + 4 * count), slice(width - 4 * count, width)
                for weight, (y, x) in ((q, offset), (k, (0, 0))):
                    weight[number * head:(number + 1) * head].mul_(0.3)
                    weight[rows, columns] = LOOK * torch.block_diag(turn_of(y * frequencies), turn_of(x * frequencies))


def waves_of(shape: Shape) -> int:
    """How many waves along each axis tell a patch's place; they take four values each."""
    return min(shape.grid, shape.tower_width // shape.tower_heads // 4, shape.tower_width // 16)


def turn_of(angle: Tensor) -> Tensor:
    """The matrix that moves sines and cosines [2 * count] on by the angles."""
    cos, sin = torch.diag(angle.cos()), torch.diag(angle.sin())
    return torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1)))


def prepare(pixels: Tensor) -> Tensor:
    """Bytes [pictures, side, side, 3] -> [pictures, 3, side, side] from -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
