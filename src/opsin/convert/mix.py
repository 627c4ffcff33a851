"""Which tensor becomes which number format: the mixes of llama.cpp, without an importance matrix.

A mix has one format for most weights. What a model suffers from most gets more bits: the output, the values of
attention, and the last matrix of a feed-forward part, in some layers or all. The rules are those of llama.cpp
b11434, so that a mix means the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from opsin.errors import RequestError
from opsin.gguf import File, TensorInfo
from opsin.gguf.roles import PROJECTOR, is_projector
from opsin.quants import BY_NAME


@dataclass(frozen=True)
class Mix:
    """A way to quantise a file: its name, its number in `general.file_type`, and what most weights become."""

    name: str
    file_type: int
    kind: str

    @property
    def blocks(self) -> bool:
        """Whether weights are rounded in blocks; else they are all cast to one float type."""
        return BY_NAME[self.kind].elements > 1


_ALL = (
    Mix("F32", 0, "F32"), Mix("F16", 1, "F16"), Mix("BF16", 32, "BF16"), Mix("Q8_0", 7, "Q8_0"),
    Mix("Q4_0", 2, "Q4_0"), Mix("Q4_1", 3, "Q4_1"), Mix("Q5_0", 8, "Q5_0"), Mix("Q5_1", 9, "Q5_1"),
    Mix("Q2_K", 10, "Q2_K"), Mix("Q3_K_S", 11, "Q3_K"), Mix("Q3_K_M", 12, "Q3_K"), Mix("Q3_K_L", 13, "Q3_K"),
    Mix("Q4_K_S", 14, "Q4_K"), Mix("Q4_K_M", 15, "Q4_K"), Mix("Q5_K_S", 16, "Q5_K"), Mix("Q5_K_M", 17, "Q5_K"),
    Mix("Q6_K", 18, "Q6_K"), Mix("TQ1_0", 36, "TQ1_0"), Mix("TQ2_0", 37, "TQ2_0"), Mix("MXFP4_MOE", 38, "MXFP4"),
)  # fmt: skip
MIXES: Mapping[str, Mix] = {mix.name: mix for mix in _ALL}
ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}

# What stands in for a format whose blocks a row does not fill.
_SMALLER = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip

# Small, or of another kind than the matrices that a mix is made for.
_KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    *(f"time_mix_{name}.weight" for name in ("w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2")),
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight",
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",
    "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")


class Role(Enum):
    """What a tensor is for, as far as mixes care. Fused and compressed projections count as values."""

    EMBEDDING = auto()
    OUTPUT = auto()
    VALUES = auto()
    KEYS = auto()
    ATTENTION_OUTPUT = auto()
    DOWN = auto()
    OTHER = auto()


@dataclass(frozen=True)
class ModelTraits:
    """What the rules ask about a model. `sharing` is how many query heads share a KV head."""

    layers: int = 0
    experts: int = 0
    sharing: int = 0

    @classmethod
    def of(cls, file: File) -> ModelTraits:
        """The text part's traits; zeros for a projector alone."""
        family = file.get_str("general.architecture")
        if family == PROJECTOR:
            return cls()
        heads = _first(file, f"{family}.attention.head_count", 0)
        kv_heads = _first(file, f"{family}.attention.head_count_kv", heads)
        return cls(
            layers=_first(file, f"{family}.block_count", 0),
            experts=_first(file, f"{family}.expert_count", 0),
            sharing=heads // kv_heads if kv_heads > 0 else 0,
        )

    @property
    def wide_queries(self) -> bool:
        """Models of 70B: so few KV heads that more bits for their values cost next to nothing."""
        return self.layers == 80 and self.sharing > 1


@dataclass(frozen=True)
class Choice:
    """A tensor and the format that it gets. `wanted` is what the mix asked for, where its rows did not allow that."""

    info: TensorInfo
    kind: str
    wanted: str | None = None

    @property
    def before(self) -> str:
        """The format that it has."""
        return self.info.kind.name

    @property
    def nbytes(self) -> int:
        """Bytes that it will have."""
        kind = BY_NAME[self.kind] if self.kind != self.before else None
        return self.info.nbytes if kind is None else self.info.elements // kind.elements * kind.bytes


def find_mix(name: str) -> Mix:
    """The mix of this name, in either case. Raises RequestError."""
    upper = name.upper()
    if ALIASES.get(upper, upper) not in MIXES:
        raise RequestError(f"there is no type {name!r:.40}", hint=f"give one of {', '.join([*MIXES, *ALIASES])}")
    return MIXES[ALIASES.get(upper, upper)]


def plan(file: File, mix: Mix) -> list[Choice]:
    """What each tensor becomes, in the file's order. A file with both parts is planned as two."""
    chosen: dict[str, Choice] = {}
    parts = [info for info in file.tensors.values() if is_projector(info.name)]
    text = [info for info in file.tensors.values() if not is_projector(info.name)]
    for infos, traits in ((text, ModelTraits.of(file)), (parts, ModelTraits())):
        for choice in _plan_part(infos, traits, mix):
            chosen[choice.info.name] = choice
    return [chosen[name] for name in file.tensors]


def _plan_part(infos: list[TensorInfo], traits: ModelTraits, mix: Mix) -> Iterator[Choice]:
    ordered = sorted(infos, key=lambda info: (_layer(info.name, -1), info.name.encode()))
    rules = _Rules(traits, mix, [info.name for info in ordered])
    for info in ordered:
        if not is_weight(info):
            yield Choice(info, info.kind.name)
        elif not mix.blocks:
            yield Choice(info, mix.kind)
        else:
            yield _fit(info, rules.choose(info))


def is_weight(info: TensorInfo) -> bool:
    """Whether mixes touch it: a matrix of floats (or several), and none of those that are better kept."""
    name, kind = info.name, info.kind.name
    return (
        any(size > 1 for size in info.shape[:-1])
        and name.endswith("weight")
        and name not in _KEPT_NAMES
        and not any(part in name for part in _KEPT)
        and not re.fullmatch(r"I\d+", kind)
    )


def _fit(info: TensorInfo, wanted: str) -> Choice:
    """A format whose blocks fill the rows."""
    row = info.shape[-1]
    if row % BY_NAME[wanted].elements == 0:
        return Choice(info, wanted)
    smaller = _SMALLER.get(wanted, wanted)
    return Choice(info, smaller if row % BY_NAME[smaller].elements == 0 else "F16", wanted)


class _Rules:
    """The rules of one mix for one model. They count as they go: feed it the tensors layer by layer."""

    def __init__(self, traits: ModelTraits, mix: Mix, names: Iterable[str]) -> None:
        roles = [find_role(name) for name in names]
        self._traits, self._mix = traits, mix
        self._tied = Role.OUTPUT not in roles
        self._values, self._downs = 0, 0  # how many were met
        self._all_values = roles.count(Role.VALUES)

    def choose(self, info: TensorInfo) -> str:
        """The format for one tensor, whether or not its rows allow it."""
        role, mix = find_role(info.name), self._mix
        if role is Role.OUTPUT or (role is Role.EMBEDDING and self._tied):
            return self._choose_output(info)
        if mix.name == "MXFP4_MOE":
            return "MXFP4" if len(info.shape) > 2 and info.shape[-3] > 1 else "Q8_0"
        if role is Role.EMBEDDING:
            return "Q4_K" if mix.name in ("TQ1_0", "TQ2_0") else mix.kind
        if role is Role.VALUES:
            return self._choose_values()
        if role is Role.KEYS:
            return "Q8_0" if self._traits.experts == 8 else mix.kind
        if role is Role.DOWN:
            return self._choose_down(info.name)
        return self._choose_attention_output() if role is Role.ATTENTION_OUTPUT else mix.kind

    def _choose_output(self, info: TensorInfo) -> str:
        kind = self._mix.kind
        eight = self._mix.name in ("MXFP4_MOE", "Q8_0") or info.shape[-1] % BY_NAME[kind].elements
        return "Q8_0" if eight else "Q6_K"

    def _choose_values(self) -> str:
        name, kind, sharing = self._mix.name, self._mix.kind, self._traits.sharing
        place, self._values = self._values, self._values + 1
        if name == "Q2_K":
            kind = "Q4_K" if sharing >= 4 else "Q3_K"
        elif name == "Q3_K_M":
            kind = "Q5_K" if place < 2 else "Q4_K"
        elif name == "Q3_K_L" or (name == "Q4_K_S" and place < 4):
            kind = "Q5_K"
        elif name in ("Q4_K_M", "Q5_K_M") and _more_bits(place, self._all_values):
            kind = "Q6_K"
        if self._traits.wide_queries and kind in ("Q3_K", "Q4_K"):
            kind = "Q5_K"
        return "Q8_0" if self._traits.experts == 8 else kind

    def _choose_down(self, tensor: str) -> str:
        name, layers = self._mix.name, self._traits.layers
        place, self._downs = self._downs, self._downs + 1
        if self._traits.experts > 1:  # experts of a layer need not stand together
            place = _layer(tensor, place)
        if name == "Q2_K":
            return "Q3_K"
        if name == "Q3_K_M":
            return "Q5_K" if place < layers // 16 else "Q4_K"
        if name == "Q3_K_L" or (name == "Q4_K_S" and place < layers // 8):
            return "Q5_K"
        return "Q6_K" if name in ("Q4_K_M", "Q5_K_M") and _more_bits(place, layers) else self._mix.kind

    def _choose_attention_output(self) -> str:
        name = self._mix.name
        if self._traits.experts == 8:
            return "Q5_K" if name in ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M") else self._mix.kind
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(name, self._mix.kind)


def find_role(name: str) -> Role:
    """The role that a tensor's name tells."""
    if name == "output.weight":
        return Role.OUTPUT
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return Role.EMBEDDING
    for part, role in _ROLES.items():
        if part in name:
            return role
    return Role.OTHER


_ROLES = {
    "attn_qkv.weight": Role.VALUES,
    "attn_kv_b.weight": Role.VALUES,
    "attn_v.weight": Role.VALUES,
    "attn_k.weight": Role.KEYS,
    "attn_output.weight": Role.ATTENTION_OUTPUT,
    "ffn_down": Role.DOWN,
}


def _more_bits(place: int, count: int) -> bool:
    """The first and the last eighth, and every third between."""
    return place < count // 8 or place >= 7 * count // 8 or (place - count // 8) % 3 == 2


def _layer(name: str, default: int) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else default


def _first(file: File, key: str, default: int) -> int:
    """A number, or the first of one a layer."""
    if isinstance(file.metadata.get(key, default), int):
        return file.get_int(key, default)
    values = file.get_ints(key)
    return int(values[0]) if len(values) else default
