"""Feed-forward parts of experts: a router sends each row through a few of them (Shazeer et al. 2017).

Which of its variants a file means is told by its keys (`routing_of`) and by the tensors that it has: a bias of the
choice, experts that all rows share, with or without a gate, an outcome's scale for each expert.
"""

from __future__ import annotations

from typing import Annotated, Self

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.keys import number, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.ops import Array, Glu
from opsin.ops.routes import Gating, Routes, Routing, Stack

_GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid", 3: "softmax"}  # GGUF's; 3: of the chosen alone
_MOST_SCALE = 1e4


def routing_of(file: File, prefix: str, *, gating: int = 1, normalised: bool = True) -> Routing | None:
    """How a file chooses experts: `{prefix}.expert_*`; None where it has none. `gating`, `normalised`: its family's.

    Raises ModelError for numbers that do not go together.
    """
    count = file.get_int(f"{prefix}.expert_count", 0)
    if count == 0:
        return None
    kind = file.get_int(f"{prefix}.expert_gating_func", gating) or gating
    if kind not in _GATINGS:
        raise ModelError(f"{file.path}: {prefix}.expert_gating_func is {kind}", hint="1, 2 and 3 are known")
    groups = positive_int(file, f"{prefix}.expert_group_count", 1)
    how = Routing(
        positive_int(file, f"{prefix}.expert_used_count"),
        _GATINGS[kind],
        normalised=file.get_bool(f"{prefix}.expert_weights_norm", normalised) or kind == 3,
        scale=number(file, f"{prefix}.expert_weights_scale", 1.0, least=0.0, most=_MOST_SCALE) or 1.0,
        groups=groups,
        used_groups=positive_int(file, f"{prefix}.expert_group_used_count", groups),
    )
    if count < 0 or not how.fits(count):
        raise ModelError(
            f"{file.path}: {how.used} of {count} experts in {how.used_groups} of {how.groups} groups",
            hint="the file is damaged",
        )
    return how


class ExpertLinear(Module):
    """y = x w' + bias, with each row's own expert."""

    weight: Stack
    bias: Array | None

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        return cls._part(source, path, 0, 1)

    @classmethod
    def halves(cls, source: Reader, path: str) -> tuple[Self, Self]:
        """The two layers whose rows a tensor holds, one below the other for each expert."""
        return cls._part(source, path, 0, 2), cls._part(source, path, 1, 2)

    @classmethod
    def _part(cls, source: Reader, path: str, which: int, parts: int) -> Self:
        part = cls.__new__(cls)
        part._path, part.bias = path, None
        part.weight = source.stack(f"{path}.weight", which, parts)
        if source.has(f"{path}.bias"):
            values = source.values(f"{path}.bias")
            experts, outputs, _ = part.weight.shape
            if values.shape != (experts, outputs * parts):
                raise ModelError(f"{path}.bias is {values.shape}, where {(experts, outputs * parts)} is needed")
            part.bias = source.ops.constant(values[:, which * outputs : (which + 1) * outputs])
        return part

    def __call__(self, x: Array, routes: Routes) -> Array:
        """x [rows, used, inputs] by place -> [rows, used, outputs]."""
        return x.ops.experts(x, self.weight, routes, self.bias)

    def check(self, experts: int, inputs: int, outputs: int) -> None:
        """Raises ModelError where it is of another shape."""
        if self.weight.shape != (experts, outputs, inputs):
            raise ModelError(
                f"{self.tensor('weight')} is {self.weight.shape}, where {(experts, outputs, inputs)} is needed"
            )


class SharedExpert(Module):
    """What every row passes through beside its own experts; with `share`, times the sigmoid of that times the row."""

    gate: Annotated[Linear, at("ffn_gate_shexp")]
    up: Annotated[Linear, at("ffn_up_shexp")]
    down: Annotated[Linear, at("ffn_down_shexp")]
    share: Annotated[Array | None, at("ffn_gate_inp_shexp.weight")]

    @classmethod
    def is_there(cls, source: Reader, path: str) -> bool:
        return source.has(f"{path}.ffn_down_shexp.weight")

    def check(self, width: int) -> None:
        """Raises ModelError where something is of another size."""
        self.gate.check(width, self.down.inputs)
        self.up.check(width, self.down.inputs)
        self.down.check(self.down.inputs, width)
        if self.share is not None and self.share.shape != (width,):
            raise ModelError(f"{self.tensor('ffn_gate_inp_shexp.weight')} has {self.share.width} values, not {width}")

    def __call__(self, x: Array, kind: Glu, residual: Array | None) -> Array:
        inner = x.ops.glu(self.gate(x), self.up(x), kind)
        if self.share is None:
            return self.down(inner, residual)
        return x.ops.gated(self.down(inner), x, self.share, residual)


class Gates(Module):
    """The gate and what it gates, of all experts: two tensors, or one with both for each expert."""

    gate: Annotated[ExpertLinear, at("ffn_gate_exps")]
    up: Annotated[ExpertLinear, at("ffn_up_exps")]

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        if not source.has(f"{path}.ffn_gate_up_exps.weight"):
            return super().read(source, path)
        part = cls.__new__(cls)
        part._path, (part.gate, part.up) = path, ExpertLinear.halves(source, f"{path}.ffn_gate_up_exps")
        return part


class ExpertFfn(Module):
    """The experts of a layer, their router, and what all rows share.

    `gains` are what each expert's outcome is multiplied by, `choice` is added to scores where experts are chosen.
    """

    router: Annotated[Linear, at("ffn_gate_inp")]
    choice: Annotated[Array | None, at("exp_probs_b.bias")]
    gates: Annotated[Gates, at("")]
    down: Annotated[ExpertLinear, at("ffn_down_exps")]
    gains: Annotated[Array | None, at("ffn_down_exps.scale")]
    shared: Annotated[SharedExpert | None, at("")]

    @classmethod
    def is_there(cls, source: Reader, path: str) -> bool:
        return source.has(f"{path}.ffn_gate_inp.weight")

    def check(self, how: Routing, width: int, experts: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size or kind than the file says."""
        inner = self.down.weight.shape[2]
        self.router.check(width, experts)
        self.gates.gate.check(experts, width, inner)
        self.gates.up.check(experts, width, inner)
        self.down.check(experts, inner, width)
        for name, values in (("exp_probs_b.bias", self.choice), ("ffn_down_exps.scale", self.gains)):
            if values is not None and values.shape != (experts,):
                raise ModelError(f"{self.tensor(name)} has {values.width} values, where {experts} are needed")
        if self.shared is not None:
            self.shared.check(width)

    def __call__(
        self, x: Array, kind: Glu, how: Routing, residual: Array | None = None, *, routed: Array | None = None,
        shares_first: bool = False,
    ) -> Array:  # fmt: skip
        """x [rows, width] -> the same shape, with `residual` added.

        `routed`: what the router reads, where that is not x. `shares_first`: shares multiply what goes in, not what
        comes out.
        """
        ops = x.ops
        routes = ops.route(self.router(x if routed is None else routed), how, self.choice, self.gains)
        there = ops.spread(x, routes, weighed=shares_first)
        inner = ops.glu(self.gates.gate(there, routes), self.gates.up(there, routes), kind)
        y = self.down(inner, routes)
        if self.shared is not None:
            residual = self.shared(x, kind, residual)
        return ops.join(y, routes, residual, weighed=not shares_first)
