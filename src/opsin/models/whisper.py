"""Whisper: an encoder hears 30 seconds of sound, and a decoder writes what is said, looking at all of it.

What the encoder gives is remembered beside the sequence, and every row of text looks at it in every layer. Positions
are learnt. llama.cpp has no such files; ours hold both parts: keys and tensors of the encoder are its of
`clip.audio.*` and `a.*`, those of the decoder are called as its decoders' are, with `cross_attn_q`, `cross_attn_k`,
`cross_attn_v`, `cross_attn_output` and `cross_attn_norm` beside them. `whisper.begin_suppress_tokens` are ids that no
window begins with.

GGUF: general.architecture = "whisper". Oracle: transformers' WhisperForConditionalGeneration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.vision_rules import expect
from opsin.nn.attention import Heads, SelfAttention, attend, heads_of
from opsin.nn.batch import MEMORY, Batch, GroupShape, Memory
from opsin.nn.decoder import DecoderWeights, OverWeights
from opsin.nn.hearing import HearingTower
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, LayerNorm, Linear
from opsin.nn.writing import Writing
from opsin.ops import Array, Pages
from opsin.spans import Features, MediaSpan

_ENGLISH = 51864  # tokens of models that know no other language, although their vocabulary names some


class LookingAttention(Module):
    """Attention to what the encoder gave."""

    q: Annotated[Linear, at("cross_attn_q")]
    k: Annotated[Linear, at("cross_attn_k")]
    v: Annotated[Linear, at("cross_attn_v")]
    o: Annotated[Linear, at("cross_attn_output")]


class WhisperBlock(Module):
    attn_norm: LayerNorm
    attn: Annotated[SelfAttention, at("")]
    cross_attn_norm: LayerNorm
    looking: Annotated[LookingAttention, at("")]
    ffn_norm: LayerNorm
    ffn_up: Linear
    ffn_down: Linear

    def check(self, heads: Heads, width: int, ffn: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        for norm in (self.attn_norm, self.cross_attn_norm, self.ffn_norm):
            norm.check(width)
        look = self.looking
        for matrix in (*self.attn.check(heads), self.attn.attn_output, look.q, look.k, look.v, look.o):
            matrix.check(width, width)
        self.ffn_up.check(width, ffn)
        self.ffn_down.check(ffn, width)


class WhisperWeights(DecoderWeights):
    position_embd: Embedding
    blk: list[WhisperBlock]
    output_norm: LayerNorm  # type: ignore[assignment]  # of another kind


@dataclass(frozen=True, eq=False)
class WhisperDecoder(OverWeights):
    weights: WhisperWeights
    heads: Heads
    eps: float
    context: int
    axes: ClassVar[int] = 1

    @classmethod
    def load(cls, file: File, source: Reader) -> WhisperDecoder:
        heads, w, context = (
            heads_of(file, "whisper"),
            WhisperWeights.read(source),
            positive_int(file, "whisper.context_length"),
        )
        width, layers = w.token_embd.weight.shape[1], positive_int(file, "whisper.block_count")
        if len(w.blk) != layers:
            raise ModelError(f"{file.path} holds {len(w.blk)} of its {layers} layers", hint="it is incomplete")
        if w.position_embd.weight.shape != (context, width) or heads.query * heads.width != width:
            raise ModelError(
                f"position_embd.weight is {w.position_embd.weight.shape}, for {context} positions of {width} values "
                f"and {heads.query} heads of {heads.width}", hint="the file is damaged",
            )  # fmt: skip
        w.output_norm.check(width)
        for block in w.blk:
            block.check(heads, width, positive_int(file, "whisper.feed_forward_length"))
        return cls(w, heads, positive_float(file, "whisper.attention.layer_norm_epsilon"), context)

    @property
    def groups(self) -> dict[str, GroupShape]:
        shape = GroupShape(len(self.weights.blk), self.heads.kv, self.heads.width)
        return {"self": shape, MEMORY: shape}

    def remember(self, memory: Array, pages: Pages, slots: Array) -> None:
        for layer, block in enumerate(self.weights.blk):
            k, v = (
                part(memory).reshape(self.heads.kv, self.heads.width) for part in (block.looking.k, block.looking.v)
            )
            memory.ops.store(pages, layer, k, v, slots)

    def hidden(self, batch: Batch) -> Array:
        w, tap, eps = self.weights, batch.tap, self.eps
        x = tap("embed", w.token_embd(batch.ids) + w.position_embd(batch.positions))
        for i, block in enumerate(w.blk):
            x = block.attn(
                block.attn_norm(x, eps), batch, layer=i, heads=self.heads, rope=None, pairing="halves", eps=eps,
                name=f"blk.{i}.attn", residual=x,
            )  # fmt: skip
            if batch.memory is not None:
                x = self._look(block, x, batch, batch.memory, i)
            x = tap(f"blk.{i}.out", block.ffn_down(block.ffn_up(block.ffn_norm(x, eps), activation="gelu_erf"), x))
        return tap("norm", w.output_norm(x.ops.take(x, batch.outputs), eps))

    def _look(self, block: WhisperBlock, x: Array, batch: Batch, kept: Memory, layer: int) -> Array:
        """Rows that remember sound look at it."""
        look, heads = block.looking, self.heads
        rows = x.ops.take(x, kept.rows)
        q = look.q(block.cross_attn_norm(rows, self.eps)).reshape(heads.query, heads.width)
        seen = attend(q, batch, kept, layer=layer, heads=heads, name=f"blk.{layer}.cross_attn")
        return x.ops.put(x, look.o(seen.reshape(heads.query * heads.width), rows), kept.places)


@dataclass(frozen=True, eq=False)
class WhisperEncoder:
    tower: HearingTower
    writing: Writing

    @classmethod
    def load(cls, file: File, source: Reader) -> WhisperEncoder:
        begins = file.get_ints("whisper.begin_suppress_tokens", [])
        rows, _ = file.tensors["token_embd.weight"].shape if "token_embd.weight" in file.tensors else (0, 0)
        writing = Writing(tuple(int(id) for id in begins), has_languages=rows != _ENGLISH)
        return cls(HearingTower.load(file, source), writing)

    @property
    def width(self) -> int:
        return self.tower.shape.width

    @property
    def bands(self) -> int:
        return self.tower.bands

    @property
    def frames(self) -> int:
        return self.tower.frames

    def span(self, logs: Floats) -> MediaSpan:
        assert logs.shape == (self.frames, self.bands)
        digest = blake2b(logs.tobytes(), digest_size=16, person=b"log-mel").digest()
        features = Features(logs.shape, lambda: logs)
        return MediaSpan(digest, rows=0, positions=0, memory=self.tower.rows, features=features)

    def encode(self, features: Floats) -> Array:
        return self.tower.encode(features)


DECODERS = {"whisper": WhisperDecoder.load}
HEARERS = {"whisper": WhisperEncoder.load}


def _told(name: str) -> str:
    """Where a setting of writing stands, today and once."""
    return f"generation.{name}|{name}"


def _check(settings: Settings) -> None:
    expect(settings, {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True})


def _layer(theirs: str, ours: str, names: Mapping[str, str]) -> tuple[Tensor, ...]:
    return tuple(Tensor(f"{theirs}.layers.{{n}}.{name}", f"{ours}blk.{{n}}.{own}") for name, own in names.items())


_ENCODER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "self_attn_layer_norm": "ln1", "fc1": "ffn_up", "fc2": "ffn_down",
    "final_layer_norm": "ln2",
}  # fmt: skip
_DECODER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_output", "self_attn_layer_norm": "attn_norm", "encoder_attn.q_proj": "cross_attn_q",
    "encoder_attn.k_proj": "cross_attn_k", "encoder_attn.v_proj": "cross_attn_v",
    "encoder_attn.out_proj": "cross_attn_output", "encoder_attn_layer_norm": "cross_attn_norm", "fc1": "ffn_up",
    "fc2": "ffn_down", "final_layer_norm": "ffn_norm",
}  # fmt: skip
_SIZES = {"block_count": "layers", "feed_forward_length": "ffn_dim", "attention.head_count": "attention_heads"}
RULES = (
    Rules(
        part="text",
        architecture="whisper",
        classes=("WhisperForConditionalGeneration",),
        layers="decoder_layers",
        keys=(
            *(Key(f"whisper.{key}", f"decoder_{path}") for key, path in _SIZES.items()),
            *(Key(f"clip.audio.{key}", f"encoder_{path}") for key, path in _SIZES.items()),
            Key("whisper.embedding_length", "d_model"),
            Key("whisper.context_length", "max_target_positions"),
            constant("whisper.attention.layer_norm_epsilon", 1e-5, "float"),
            Key("whisper.begin_suppress_tokens", _told("begin_suppress_tokens"), "ints", None),
            Key("tokenizer.ggml.suppress_tokens", _told("suppress_tokens"), "ints", None),
            constant("clip.has_audio_encoder", True, "bool"),
            constant("clip.audio.projector_type", "whisper", "str"),
            Key("clip.audio.embedding_length", "d_model"),
            Key("clip.audio.projection_dim", "d_model"),
            Key("clip.audio.num_mel_bins", "num_mel_bins"),
            constant("clip.audio.attention.layer_norm_epsilon", 1e-5, "float"),
        ),
        tensors=(
            Tensor("encoder.conv1", "a.conv1d.1"),
            Tensor("encoder.conv2", "a.conv1d.2"),
            Tensor("encoder.embed_positions", "a.position_embd", type="F32"),
            *_layer("encoder", "a.", _ENCODER),
            Tensor("encoder.layer_norm", "a.post_ln"),
            Tensor("decoder.embed_tokens", "token_embd"),
            Tensor("decoder.embed_positions", "position_embd", type="F32"),
            *_layer("decoder", "", _DECODER),
            Tensor("decoder.layer_norm", "output_norm"),
        ),
        dropped=("proj_out.weight",),
        defaults={
            "d_model": 384, "num_mel_bins": 80, "max_target_positions": 448, "encoder_layers": 4, "decoder_layers": 4,
            "encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 1536,
            "decoder_ffn_dim": 1536,
        },
        check=_check,
    ),
)  # fmt: skip
