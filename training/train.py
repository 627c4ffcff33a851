"""Trains opsin-nano in stages: `python -m training.train --stage all --resume`.

Stage `tower` teaches the tower to say what every patch holds; `decoder` teaches the decoder to answer while the tower
rests; `both` trains the two on scenes of things; `settle` begins with the average of the weights and lets the decoder's
rate fall to nothing; `groups` teaches the tower where the middles of things are, and `count` both to count, at a rate
that falls. `all` runs them in that order. `everything`, all kinds of pictures, is not among them.
A checkpoint is written every ten minutes and on SIGTERM; a stopped process may be continued at any time.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from training import spell
from training.checkpoint import Average, Place, load_full, save_full
from training.conversations import (
    CountingStream,
    EverythingStream,
    MostlyThingsStream,
    ReadingStream,
    ThingsFirstStream,
)
from training.crowd import CrowdStream, GroupStream
from training.dense import DenseHead, Labels, dense_loss
from training.model import Nano, Shape, prepare
from training.named import NamedHead
from training.pages import PageStream
from training.pool import mixed, repeated
from training.spell import read_loss
from training.stream import Batch, PictureStream, Talks, open_stream
from training.tally import block_of, tally_loss
from training.weights import read_weights
from training.whiten import whiten

RUNS = Path(__file__).parent / "runs"
NAMED_WEIGHT = 0.3
LOOK_WEIGHT = 1.5
SAID_WEIGHT = 3.0  # of answers, beside where names look
MIDDLE_WEIGHT = 3.0
READ_WEIGHT = 0.5
MATRIX_FACTOR = 3.0  # Muon's orthogonal steps bear a higher rate than AdamW's


def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16; a CPU that does not takes forty times as long as for float32."""
    return torch.cuda.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class Stage:
    """One part of the recipe."""

    name: str
    steps: int
    size: int  # pictures or conversations in a batch
    rate: float
    talks: bool  # learns answers
    sees: bool  # learns the labels of patches, and the tower moves
    counts: bool = False  # learns where the middles of things are, and names to look at them
    reads: bool = False  # learns the characters of words in their order, and answers to look at them
    settle: float = 0.0  # share of the steps in which the rate falls to nothing
    tower: float = 1.0  # the tower's part of the rate
    smooth: bool = False  # begins with the running average
    sets: int = 1  # sets of conversations about every batch of pictures, while the tower rests
    again: int = 1  # times that a batch of pictures is shown, far apart: to draw it costs a quarter of learning from it
    stream: type[PictureStream] = PictureStream


RECIPE = (
    Stage("tower", steps=900, size=32, rate=1.5e-3, talks=False, sees=True, stream=CrowdStream),
    Stage("decoder", steps=3500, size=32, rate=1e-3, talks=True, sees=False, sets=4, stream=ThingsFirstStream),
    Stage("both", steps=700, size=32, rate=1e-3, talks=True, sees=True, tower=0.25, stream=MostlyThingsStream),
    Stage("settle", steps=600, size=32, rate=1e-3, talks=True, sees=False, settle=0.9, smooth=True, sets=3,
          stream=MostlyThingsStream),
    Stage("groups", steps=700, size=32, rate=1e-3, talks=False, sees=True, counts=True, stream=GroupStream),
    Stage("count", steps=2000, size=32, rate=4e-4, talks=True, sees=True, counts=True, settle=1.0, tower=0.5,
          stream=CountingStream),
    Stage("pages", steps=2000, size=64, rate=1e-3, talks=False, sees=True, counts=True, reads=True, again=2,
          stream=PageStream),
    Stage("read", steps=2000, size=32, rate=1e-3, talks=True, sees=False, counts=True, reads=True, sets=4,
          stream=ReadingStream),
    Stage("everything", steps=3000, size=32, rate=1e-3, talks=True, sees=True, counts=True, reads=True, settle=0.8,
          tower=0.5, stream=EverythingStream),
)

@dataclass(frozen=True)
class Options:
    """What a run was asked to do."""

    folder: Path
    threads: int = 2
    workers: int = 1
    half: bool = field(default_factory=has_bfloat16)
    seed: str = "nano"
    with_assets: bool = True
    save_every_seconds: float = 600.0
    minutes: float = 0.0  # stop after so long; 0 runs to the end
    settle_minutes: float = 0.0  # before that, let the rate fall to nothing for so long
    compiled: bool = False  # let torch.compile fuse what stands between the matrix products
    shape: Shape = Shape()


class Learner:
    """The model with its training parts."""

    def __init__(self, options: Options, device: torch.device) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, device
        self.model = Nano(options.shape).to(device)
        self.head = DenseHead(options.shape).to(device)
        self.named = NamedHead(options.shape).to(device)
        self.average = Average(self.model)
        self.place = Place(RECIPE[0].name)
        self.optimisers: list[torch.optim.Optimizer] = []
        if options.compiled:
            for layer in (*self.model.vision_tower.encoder.layers, *self.model.language_model.layers):
                layer.compile(dynamic=True)

    def set_optimisers(self, stage: Stage) -> None:
        """Muon for the matrices inside blocks, AdamW for the rest; fresh for every stage."""
        parts: list[tuple[nn.Module, float]] = [(self.model.language_model, 1.0)] if stage.talks else []
        parts += [(self.model.multi_modal_projector, 1.0), (self.head, 1.0), (self.named, 1.0)]
        parts += [(self.model.vision_tower, stage.tower)] if stage.sees else []
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        inner: list[dict[str, object]] = []
        outer: list[dict[str, object]] = []
        for part, share in parts:
            matrices: list[nn.Parameter] = []
            others: list[nn.Parameter] = []
            for name, parameter in part.named_parameters():
                parameter.requires_grad_(True)
                (matrices if parameter.ndim == 2 and "layers." in name else others).append(parameter)
            outer.append({"params": others, "share": share})
            if matrices:
                inner.append({"params": matrices, "share": share * MATRIX_FACTOR})
        self.optimisers = [torch.optim.AdamW(outer, stage.rate, betas=(0.9, 0.98), weight_decay=0.01)]
        if inner:
            self.optimisers.append(torch.optim.Muon(inner, stage.rate, weight_decay=0.02,
                                                    adjust_lr_fn="match_rms_adamw"))

    def save(self) -> None:
        """Write the full checkpoint."""
        save_full(self.options.folder / "checkpoint.pt", {
            "model": self.model.state_dict(), "head": self.head.state_dict(), "named": self.named.state_dict(),
            "average": self.average.tensors,
            "updates": self.average.updates, "place": asdict(self.place), "shape": self.options.shape.dictionary(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers]})

    def load(self) -> list[dict[str, object]]:
        """Continue from the run's checkpoint, or from the package's weights; returns the optimisers' states."""
        path = self.options.folder / "checkpoint.pt"
        if not path.exists():
            self.model.load_state_dict(read_weights())
            self.average = Average(self.model)
            return []
        parts = load_full(path)
        self.model.load_state_dict(parts["model"])  # type: ignore[arg-type]
        for name, module in (("head", self.head), ("named", self.named)):  # older runs lack parts of them
            module.load_state_dict(module.state_dict() | parts.get(name, {}))  # type: ignore[operator]
        self.average.tensors = {name: tensor.to(self.device) for name, tensor in
                                parts["average"].items()}  # type: ignore[attr-defined]
        self.average.updates = int(parts["updates"])  # type: ignore[call-overload]
        self.place = Place(**parts["place"])  # type: ignore[arg-type]
        return parts["optimisers"]  # type: ignore[return-value]


def see(learner: Learner, stage: Stage, batch: Batch) -> Tensor:
    """What the tower makes of a batch's pictures."""
    with torch.autocast(learner.device.type, torch.bfloat16, enabled=learner.options.half), \
            torch.set_grad_enabled(stage.sees):
        return learner.model.vision_tower(prepare(batch.pixels.to(learner.device)))


def sight_loss(learner: Learner, stage: Stage, rows: Tensor, labels: Labels) -> tuple[Tensor, dict[str, float]]:
    """How badly rows say what their patches hold and where they lie."""
    there = labels.to(learner.device)
    seen, logged = dense_loss(learner.head(rows), there)
    where = learner.head.place_loss(rows)
    total, logged = seen + 0.3 * where, logged | {"dense": seen.item(), "where": where.item()}
    if stage.counts:
        middle, told = learner.head.middle_loss(rows, there.centre)
        total, logged = total + MIDDLE_WEIGHT * middle, logged | {"middle": middle.item(), "told": told}
    if stage.reads:
        letters, found = learner.head.letter_loss(rows, there)
        total, logged = total + letters, logged | {"letters": letters.item()} | found
    return total, logged


def talk_loss(learner: Learner, stage: Stage, rows: Tensor, talks: Talks) -> tuple[Tensor, dict[str, float]]:
    """How badly questions are answered and their names understood."""
    device, model = learner.device, learner.model
    ids, learn = talks.ids.to(device), talks.learn.to(device)
    blocks, decoder = talks.blocks.to(device), model.language_model
    hidden, between = model.think(ids, blocks, rows.flatten(0, 1))
    logits = model.logits(hidden[:, :-1][learn[:, 1:]]).float()
    wanted = ids[:, 1:][learn[:, 1:]]
    said = nn.functional.cross_entropy(logits, wanted)
    named, logged = learner.named(between[decoder.middle + 1], talks.names)
    total = said + NAMED_WEIGHT * named
    if stage.counts:
        looked, tallied = tally_loss(decoder, between[block_of(decoder)], talks.names, blocks)
        total, logged = total + (SAID_WEIGHT - 1) * said + LOOK_WEIGHT * looked, logged | tallied
    if stage.reads:
        away, found = read_loss(decoder, between[spell.block_of(decoder)], talks.read, blocks)
        total, logged = total + READ_WEIGHT * away, logged | {"away": away.item()} | found
    return total, logged | {"answer": said.item(), "token": (logits.argmax(-1) == wanted).float().mean().item()}


def rate_at(stage: Stage, step: int, left: float = 1.0) -> float:
    """The learning rate: a short rise, level, and a fall where the stage ends or `left`, a share of time, does."""
    falling = max(1, int(stage.steps * stage.settle))
    left = min(left, (stage.steps - step) / falling) if stage.settle else left
    return stage.rate * min(1.0, (step + 1) / 100) * min(1.0, max(left, 0.02))


def take_step(learner: Learner, stage: Stage, patches: Tensor, talks: Talks | None, labels: Labels | None,
              left: float = 1.0) -> dict[str, float]:
    """One update."""
    logged: dict[str, float] = {}
    with torch.autocast(learner.device.type, torch.bfloat16, enabled=learner.options.half):
        rows = learner.model.multi_modal_projector(patches)
        total = torch.zeros((), device=learner.device)
        if labels is not None:
            loss, logged = sight_loss(learner, stage, rows, labels)
            total = total + loss
        if talks is not None:
            loss, found = talk_loss(learner, stage, rows, talks)
            total, logged = total + loss, logged | found
    total.backward()
    moving = [p for optimiser in learner.optimisers for group in optimiser.param_groups for p in group["params"]]
    logged["norm"] = float(nn.utils.clip_grad_norm_(moving, 1.0))
    for optimiser in learner.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["share"] * rate_at(stage, learner.place.step, left)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    learner.average.update(learner.model)
    return logged


def open_steps(learner: Learner, stage: Stage) -> Iterator[tuple[Tensor, Talks | None, Labels | None, bool]]:
    """What each step learns from, from where the run stands: patches, talks, labels, whether the batch is new."""
    options = learner.options
    batches = open_stream(stage.stream(seed=options.seed, start=learner.place.batches, size=stage.size,
                                       with_assets=options.with_assets, sets=stage.sets), options.workers)
    if stage.sees:
        for batch, new in repeated(batches, stage.again):
            yield see(learner, stage, batch), batch.talks[0] if stage.talks else None, batch.labels, new
    for patches, talks, new in mixed(batches, lambda batch: see(learner, stage, batch), stage.sets > 1):
        yield patches, talks, None, new


class Stop:
    """Turns SIGTERM into a wish to end after the current step."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        self.wanted = True


def run_stage(learner: Learner, stage: Stage, stop: Stop, deadline: float) -> None:
    """Train one stage to its end, to the deadline or until asked to stop."""
    options, place = learner.options, learner.place
    steps, sums, since, saved = open_steps(learner, stage), {}, 0, time.monotonic()
    falling = options.settle_minutes * 60
    log = (options.folder / "log.jsonl").open("a")
    while place.step < stage.steps and not stop.wanted and time.monotonic() < deadline:
        begun = time.monotonic()
        left = (deadline - begun) / falling if falling else 1.0
        patches, talks, labels, new = next(steps)
        for name, value in take_step(learner, stage, patches, talks, labels, left).items():
            sums[name] = sums.get(name, 0.0) + value
        place.step, place.batches, since = place.step + 1, place.batches + new, since + 1
        place.seconds += min(time.monotonic() - begun, 60.0)
        if since == 20 or place.step == stage.steps:
            means = {name: round(value / since, 4) for name, value in sums.items()}
            log.write(json.dumps({"stage": stage.name, "step": place.step, **means,
                                  "seconds": round(place.seconds)}) + "\n")
            log.flush()
            sums, since = {}, 0
        if time.monotonic() - saved > options.save_every_seconds:
            learner.save()
            saved = time.monotonic()
    log.close()


def train(stages: tuple[Stage, ...], options: Options, *, resume: bool) -> Learner:
    """Run stages in order, from the run's checkpoint if asked; returns the learner at its end."""
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner, stop = Learner(options, device), Stop()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        (options.folder / "log.jsonl").unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, stop)
    states = learner.load() if resume else []
    names = [stage.name for stage in stages]
    first = names.index(learner.place.stage) if resume and learner.place.stage in names else 0
    deadline = time.monotonic() + (options.minutes * 60 if options.minutes else float("inf"))
    if not resume:
        sample = stages[0].stream(seed="whiten", start=0, size=256, with_assets=options.with_assets).make(0)
        whiten(learner.model, sample.pixels)
    for stage in stages[first:]:
        if learner.place.stage != stage.name:
            learner.place.stage, learner.place.step, states = stage.name, 0, []
            if stage.smooth:
                learner.model.load_state_dict(learner.average.tensors)
        learner.set_optimisers(stage)
        for optimiser, state in zip(learner.optimisers, states, strict=False):
            optimiser.load_state_dict(state)
        run_stage(learner, stage, stop, deadline)
        learner.save()
        if stop.wanted or time.monotonic() >= deadline:
            break
    signal.signal(signal.SIGTERM, before)
    return learner


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=[*(stage.name for stage in RECIPE), "all"], default="all")
    parser.add_argument("--run", default="nano", help="name of the folder below training/runs")
    parser.add_argument("--resume", action="store_true",
                        help="go on from the run's checkpoint or the package's weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures")
    parser.add_argument("--float32", action="store_true", help="compute in float32 also where the CPU has bfloat16")
    parser.add_argument("--compile", action="store_true", help="fuse operations; needs a C++ compiler")
    parser.add_argument("--steps", type=int, help="steps of every stage, instead of the recipe's")
    parser.add_argument("--size", type=int, help="pictures or conversations in a batch, instead of the recipe's")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many minutes")
    parser.add_argument("--settle", type=float, default=0.0, help="of them, so many in which the rate falls to nothing")
    chosen = parser.parse_args()
    stages = tuple(replace(stage, steps=chosen.steps or stage.steps, size=chosen.size or stage.size)
                   for stage in RECIPE if chosen.stage in (stage.name, "all"))
    options = Options(RUNS / chosen.run, chosen.threads, chosen.workers, half=has_bfloat16() and not chosen.float32,
                      minutes=chosen.minutes, settle_minutes=chosen.settle, compiled=chosen.compile)
    train(stages, options, resume=chosen.resume)


if __name__ == "__main__":
    main()
