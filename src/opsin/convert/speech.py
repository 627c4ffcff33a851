"""Models of speech in other programs' files: CTranslate2's `model.bin` and whisper.cpp's `ggml-*.bin`.

Both become a checkpoint of transformers: names and settings are translated, numbers stay where they lie. Layouts as
their writers have them (CTranslate2 4, binary version 6; whisper.cpp's convert-pt-to-ggml.py). Quantised ones are
refused: give the f16 or f32 file, and quantise that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from opsin.convert.binary import Cut
from opsin.convert.checkpoint import Checkpoint, read_json
from opsin.convert.safetensors import Safetensors, Stored
from opsin.convert.speech_vocabulary import SpeechTokens
from opsin.errors import FileError, ModelError
from opsin.gguf.kinds import GGML, begins, is_speech_file
from opsin.gguf.writer import Writable

_CT2, _SPEC = b"\6\0\0\0", re.compile(rb"\x06\x00\x00\x00..(\w{1,40})Spec\x00", re.DOTALL)
_PROGRAM = "whisper.cpp"
_CLASS = "{}ForConditionalGeneration"
_FLOATS: Mapping[int, str] = {0: "F32", 4: "F16", 5: "BF16"}  # CTranslate2's types
_WIDTHS: Mapping[int, int] = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
_MODEL = "model.bin"
_MOST = 1 << 16  # tensors of one file
_NORM = {"gamma": "weight", "beta": "bias"}
_SELF = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_CT2_NAMES: Mapping[str, tuple[str, ...]] = {  # below a layer; several are stacked by rows
    "self_attention/linear_0": _SELF, "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",), "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",), "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",), "ffn/linear_1": ("fc2",), "ffn/layer_norm": ("final_layer_norm",),
}  # fmt: skip
_CT2_WHOLE = {
    "position_encodings/encodings": "embed_positions.weight", "embeddings/weight": "embed_tokens.weight",
    "layer_norm/gamma": "layer_norm.weight", "layer_norm/beta": "layer_norm.bias", "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias", "conv2/weight": "conv2.weight", "conv2/bias": "conv2.bias",
}  # fmt: skip
_GGML_NAMES = {
    "attn.query": "self_attn.q_proj", "attn.key": "self_attn.k_proj", "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj", "attn_ln": "self_attn_layer_norm", "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj", "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj", "cross_attn_ln": "encoder_attn_layer_norm", "mlp.0": "fc1",
    "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
}  # fmt: skip
_GGML_WHOLE = {
    "encoder.positional_embedding": "encoder.embed_positions.weight", "encoder.ln_post": "encoder.layer_norm",
    "decoder.positional_embedding": "decoder.embed_positions.weight", "decoder.ln": "decoder.layer_norm",
    "decoder.token_embedding": "decoder.embed_tokens", "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
}  # fmt: skip


def open_checkpoint(path: Path) -> Checkpoint:
    """A folder of transformers or of CTranslate2, or a file of whisper.cpp. Raises FileError as `Checkpoint`."""
    if is_speech_file(path):
        return SpeechCheckpoint(path, GgmlFile(path))
    if (path / _MODEL).is_file() and begins(path / _MODEL, _CT2):
        return SpeechCheckpoint(path, CTranslate2File(path / _MODEL))
    return Checkpoint(path)


class SpeechFile(Safetensors):
    """Tensors of another layout, under the names of transformers."""

    model: str  # as the names of its class begin
    heads: tuple[int, int] | None = None  # of the encoder and the decoder, where the file says it
    tokens: SpeechTokens | None = None  # where the file holds them

    def _read_header(self, size: int) -> dict[str, Stored]:
        cut = Cut(self.path, self._stream, size)
        try:
            found = dict(self._read(cut))
        except (UnicodeDecodeError, OverflowError) as error:
            raise cut.wrong("it is damaged") from error
        if cut.left:
            raise cut.wrong(f"{cut.left} bytes follow what it holds")
        return found

    def _read(self, cut: Cut) -> Mapping[str, Stored]:
        raise NotImplementedError


class CTranslate2File(SpeechFile):
    """Variables sorted by name, matrices of one input stacked, a bias of zeros where the model has none."""

    def _read(self, cut: Cut) -> Mapping[str, Stored]:
        found: dict[str, Stored] = {}
        scalars: dict[str, int] = {}
        spec = _SPEC.match(cut.bytes(min(cut.left, 64)))
        if spec is None:
            raise cut.wrong("it is no model of CTranslate2's version 6")
        self.model, cut.place = spec[1].decode(), spec.end()
        cut.skip(4)  # the revision
        for _ in range(cut.count(_MOST, "variables")):
            name = cut.text(2)
            shape = tuple(cut.integer(4) for _ in range(cut.integer(1)))
            kind, length, start = cut.integer(1), cut.integer(4), cut.place
            if kind not in _WIDTHS or length != math.prod(shape) * _WIDTHS[kind]:
                raise cut.wrong(f"{name!r:.80} of type {kind} and shape {shape} has {length} bytes")
            if not shape:
                scalars[name] = cut.integer(length)
                continue
            cut.skip(length)
            if kind not in _FLOATS:
                hint = "convert the model again, with --quantization float16"
                raise FileError(f"{self.path}: {name!r:.80} is quantised", hint=hint)
            found |= _of_ct2(cut, name, Stored(_FLOATS[kind], shape, start))
        for _ in range(cut.count(_MOST, "aliases")):
            cut.text(2), cut.text(2)
        told = [scalars.get(f"{part}/num_heads", 0) for part in ("encoder", "decoder")]
        self.heads = (told[0], told[1]) if all(told) else None
        return found


def _of_ct2(cut: Cut, name: str, stored: Stored) -> dict[str, Stored]:
    """The tensors that lie in one variable. Raises FileError for one that nobody knows."""
    part, _, rest = name.partition("/")
    layer = re.fullmatch(r"layer_(\d{1,5})/(.+)/(\w+)", rest)
    whole = _CT2_WHOLE.get(rest)
    if part not in ("encoder", "decoder") or whole is None and (layer is None or layer[2] not in _CT2_NAMES):
        raise cut.wrong(f"nobody knows its variable {name!r:.80}")
    if whole is not None or layer is None:
        return {f"model.{part}.{whole}": stored}
    names, end = _CT2_NAMES[layer[2]], _NORM.get(layer[3], layer[3])
    rows = stored.shape[0] // len(names)
    if rows * len(names) != stored.shape[0]:
        raise cut.wrong(f"{name!r:.80} has {stored.shape[0]} rows, no {len(names)} matrices")
    step = rows * math.prod(stored.shape[1:]) * (4 if stored.dtype == "F32" else 2)
    made = {
        f"model.{part}.layers.{layer[1]}.{own}.{end}": Stored(
            stored.dtype, (rows, *stored.shape[1:]), stored.start + i * step
        )
        for i, own in enumerate(names)
    }
    return {own: part for own, part in made.items() if not own.endswith("k_proj.bias")}  # which are zeros


class GgmlFile(SpeechFile):
    """Settings, filters, the vocabulary in the order of its ids, then tensors until it ends."""

    def _read(self, cut: Cut) -> Mapping[str, Stored]:
        cut.skip(len(GGML))
        self.model = _PROGRAM.partition(".")[0].title()
        vocabulary, _, _, hearing, _, _, _, writing, _, bands, kind = (cut.integer(4) for _ in range(11))
        if kind not in (0, 1):
            raise FileError(f"{self.path} is quantised", hint="give the f16 file; opsin quantize makes it smaller")
        if cut.integer(4) != bands:
            raise cut.wrong("its filters are not of its bands")
        cut.skip(4 * bands * cut.integer(4))
        words = [cut.bytes(cut.integer(4)) for _ in range(cut.count(1 << 20, "tokens"))]
        self.heads, self.tokens = (hearing, writing), SpeechTokens.of_words(self.path, words, vocabulary)
        found: dict[str, Stored] = {}
        while cut.left:
            ranks, length, kind = (cut.integer(4) for _ in range(3))
            if not 0 < ranks < 4 or kind not in (0, 1) or length > 256:
                raise cut.wrong(f"a tensor of {ranks} dimensions and type {kind}")
            shape = tuple(cut.integer(4) for _ in range(ranks))[::-1]
            name, start = cut.bytes(length).decode(), cut.place
            cut.skip(math.prod(shape) * (2 if kind else 4))
            flat = (math.prod(shape),) if name.endswith(".bias") else shape
            found[_of_ggml(cut, name)] = Stored("F16" if kind else "F32", flat, start)
        return found


def _of_ggml(cut: Cut, name: str) -> str:
    """What transformers calls a tensor. Raises FileError for one that nobody knows."""
    layer = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d{1,5})\.(.+)\.(weight|bias)", name)
    if layer is not None and layer[3] in _GGML_NAMES:
        return f"model.{layer[1]}.layers.{layer[2]}.{_GGML_NAMES[layer[3]]}.{layer[4]}"
    stem, _, end = name.rpartition(".")
    if name in _GGML_WHOLE:
        return f"model.{_GGML_WHOLE[name]}"
    if stem in _GGML_WHOLE and end in ("weight", "bias"):
        return f"model.{_GGML_WHOLE[stem]}.{end}"
    raise cut.wrong(f"nobody knows its tensor {name!r:.80}")


class SpeechCheckpoint(Checkpoint):
    """Such a file as a checkpoint: what config.json would say is read off its shapes."""

    def __init__(self, path: Path, file: SpeechFile) -> None:
        self.path, self.notes, self._shards, self._homes, self._file = path, (), [], {}, file
        try:
            self._add(file)
            beside = read_json(path / "config.json", optional=True) if path.is_dir() else {}
            self.config = self._config(beside)
        except BaseException:
            file.close()
            raise

    def _config(self, beside: Mapping[str, object]) -> dict[str, object]:
        tensors = self._file.tensors

        def shape(name: str, ranks: int) -> tuple[int, ...]:
            found = tensors.get(f"model.{name}")
            if found is None or len(found.shape) != ranks or 0 in found.shape:
                raise FileError(f"{self.path} holds no usable {name}", hint="it is incomplete")
            return found.shape

        width, bands, _ = shape("encoder.conv1.weight", 3)
        found: dict[str, object] = {"architectures": [_CLASS.format(self._file.model)], "d_model": width}
        found |= {"num_mel_bins": bands, "max_target_positions": shape("decoder.embed_positions.weight", 2)[0]}
        for part, heads in zip(("encoder", "decoder"), self._file.heads or (max(1, width // 64),) * 2, strict=True):
            numbers = {int(name.split(".")[3]) for name in tensors if name.startswith(f"model.{part}.layers.")}
            found[f"{part}_layers"], found[f"{part}_attention_heads"] = max(numbers, default=0) + 1, heads
            found[f"{part}_ffn_dim"] = shape(f"{part}.layers.0.fc1.weight", 2)[0]
        ours = {"suppress_tokens": "suppress_ids", "begin_suppress_tokens": "suppress_ids_begin"}
        return found | {name: beside[theirs] for name, theirs in ours.items() if theirs in beside}

    def vocabulary(self, rows: int) -> tuple[dict[str, Writable], list[str]] | None:
        tokens = self._file.tokens or SpeechTokens.of_folder(self.path)
        if len(tokens.words) > rows:
            raise ModelError(f"{self.path} has {len(tokens.words)} tokens, and embeddings of {rows}")
        return tokens.keys(rows), []
