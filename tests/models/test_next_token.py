"""A layer that guesses the token after the next, against the published formula over transformers' own layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import distance  # noqa: E402

from opsin.engine.next_tokens import _NextProgram, _Row  # noqa: E402
from opsin.engine.runner import Limits, Runner  # noqa: E402
from opsin.engine.sampling import Sampling  # noqa: E402
from opsin.engine.scheduler import Slice  # noqa: E402
from opsin.engine.sequence import Sequence  # noqa: E402
from opsin.errors import ModelError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.nn.batch import Shift  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.nn.next_token import NextToken, TwoInputs, WithoutNextToken  # noqa: E402
from opsin.spans import Prompt  # noqa: E402

TOLERANCE = 1e-4
WIDTH, EPS = checkpoints.WIDTH, checkpoints.EPS
IDS = np.random.default_rng(3).integers(7, checkpoints.VOCABULARY, 90).tolist()
DELTA = [f"{'full' if i in (1, 4, 5) else 'linear'}_attention" for i in range(6)]
FAMILIES = {
    "glm4moe": ({}, {}),
    "qwen35": ({"layer_types": DELTA}, {"attention__recurrent_layers": [kind[0] == "l" for kind in DELTA]}),
    "qwen35moe": ({"layer_types": DELTA}, {"attention__recurrent_layers": [kind[0] == "l" for kind in DELTA]}),
}


class Truth:
    """A checkpoint whose last layer guesses, and what that has beside: random vectors, and a matrix of two inputs."""

    def __init__(self, family):
        options, keys = FAMILIES[family]
        self.family, layers = family, checkpoints.CHECKPOINTS[family].layers + 1
        self.model, self.layer = checkpoints.make(family, layers=layers, **options), layers - 1
        self.keys = {**keys, "nextn_predict_layers": 1}
        random = np.random.default_rng(7)
        self.beside = {name: (1 + 0.3 * random.standard_normal(WIDTH)).astype(np.float32)
                       for name in ("enorm", "hnorm", "shared_head_norm")}  # fmt: skip
        self.beside["eh_proj"] = (random.standard_normal((WIDTH, 2 * WIDTH)) * 0.2).astype(np.float32)

    @property
    def text(self):
        return getattr(self.model.model, "language_model", self.model.model)

    def save(self, path):
        checkpoints.save(path, self.family, self.model, **self.keys)
        with File.open(path) as file:
            tensors = [NewTensor.of(name, file.read(name).view(np.float32).reshape(info.shape))
                       for name, info in file.tensors.items()]  # fmt: skip
            keys = file.typed
        more = [NewTensor.of(f"blk.{self.layer}.nextn.{name}.weight", v) for name, v in self.beside.items()]
        write(path, keys, [*tensors, *more])
        return path

    def states(self, ids):
        """[rows, width] behind the last norm, without the layer that guesses."""
        config, whole = self.text.config, self.layer + 1
        config.num_hidden_layers = self.layer
        try:
            with torch.inference_mode():
                return self.text(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        finally:
            config.num_hidden_layers = whole

    def guesses(self, ids, states):
        """States behind ids[1:], of the states of the rows before; the last ones may be missing: then its own stand."""
        states = list(states)
        for known in range(len(states), len(ids)):
            states.append(self._after(ids[: known + 1], states[:known])[-1])
        return self._after(ids, states[: len(ids) - 1])

    def _after(self, ids, states):
        with torch.inference_mode():
            embedded = self.text.embed_tokens(torch.tensor(ids[1:]))
            both = [self._norm(embedded, "enorm"), self._norm(torch.stack(states), "hnorm")]
            x = torch.cat(both, -1) @ torch.from_numpy(self.beside["eh_proj"]).T
            places = torch.arange(1, len(ids))[None]
            if self.family.startswith("qwen35"):
                places = places[None].expand(3, 1, -1)
            mask = torch.full((len(x), len(x)), -torch.inf).triu(1)[None, None]
            table = self.text.rotary_emb(x[None], places)
            x = self.text.layers[self.layer](x[None], position_embeddings=table, attention_mask=mask)[0]
            return self._norm(x, "shared_head_norm")

    def logits(self, after):
        with torch.inference_mode():
            return self.model.lm_head(after).numpy()

    def _norm(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * torch.from_numpy(self.beside[name])


@pytest.fixture(scope="module", params=FAMILIES)
def truth(request):
    return Truth(request.param)


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return truth.save(tmp_path_factory.mktemp("next") / "tiny.gguf")


@pytest.fixture
def decoder(device, path):
    with File.open(path) as file:
        reader = FileReader(file, device.eager())
        decoder = load_decoder(file, reader)
        assert reader.unread() == ()
    return decoder


@pytest.fixture(scope="module")
def expected(truth):
    """States and logits behind the last id, and behind two that are guessed after it."""
    states = truth.states(IDS[:-1])
    ids, found = [*IDS], []
    for _ in range(3):
        after = truth.guesses(ids, states)[-1]
        logits = truth.logits(after)
        found.append((after.numpy(), logits))
        ids.append(int(logits.argmax()))
    return found


def guessed(device, decoder, sizes):
    """What the layer gives for three ids, one after another, behind steps of these sizes."""
    limits = Limits(rows=64, outputs=4, sequences=2, context=256, pages=4, states=2)
    runner = Runner(device, decoder, limits, "f32")
    sequence = Sequence(Prompt.of([IDS]), Sampling(), frozenset(), decoder.axes)
    sequence.pages, sequence.state.own = [3, 1], 0
    for size in sizes:
        runner.step([Slice(sequence, sequence.computed, size, wanted=True)])
        sequence.computed, sequence.state.begin = sequence.computed + size, 0
    program, found = _NextProgram(runner), []
    row = _Row(sequence, IDS[-1], len(IDS) - 1, sequence.trail.at(len(IDS) - 2))
    for _ in range(3):
        id, chance, after = program.run([row])[0]
        found.append((id, chance, after))
        row = _Row(sequence, id, row.place + 1, after)
    return found


def furthest(found, expected):
    return max(distance(after, states) for (_, _, after), (states, _) in zip(found, expected, strict=True))


@pytest.mark.parametrize("sizes", [[64, 25], [20, 30, 1, 1, 37]])
def test_what_it_gives_is_what_the_formula_says(device, decoder, expected, sizes):
    found = guessed(device, decoder, sizes)
    assert furthest(found, expected) <= TOLERANCE
    for (id, chance, _), (_, logits) in zip(found, expected, strict=True):
        assert id == logits.argmax()
        assert chance == pytest.approx(np.exp(logits - logits.max()).sum() ** -1, rel=1e-3)


def other(**changes):
    return lambda patch, decoder: replace(decoder, next_token=replace(decoder.next_token, **changes))


def patched(owner, name, wrong):
    def apply(patch, decoder):
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda self, *args, **options: wrong(right, self, *args, **options))
        return decoder

    return apply


def _own_norm(patch, decoder):
    patch.setattr(decoder.next_token.parts, "shared_head_norm", None)
    return decoder


MUTANTS = {
    "embedding and state are exchanged": patched(TwoInputs, "__call__", lambda right, self, x, y: right(self, y, x)),
    "states are those of the rows themselves": patched(Shift, "__call__", lambda right, self, states: states),
    "states are not carried from step to step": patched(
        Shift, "__call__", lambda right, self, states: states.ops.take(states, self.rows)
    ),
    "steps write nothing": patched(NextToken, "write", lambda right, self, *args: None),
    "the norm is the decoder's": _own_norm,
    "pairs are neighbours": other(pairing="neighbours"),
    "it is another layer's memory": other(number=0),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, device, decoder, expected, mutant):
    wrong = MUTANTS[mutant](monkeypatch, decoder)
    assert furthest(guessed(device, wrong, [30, 30, 29]), expected) > 10 * TOLERANCE


def test_without_it_nothing_of_it_is_read(device, truth, path, decoder):
    with File.open(path) as file:
        reader = FileReader(file, device.eager())
        other = load_decoder(file, WithoutNextToken(reader))
        assert {name.split(".")[1] for name in reader.unread()} == {str(truth.layer)}
    assert (decoder.guesses, other.guesses) == (True, False)
    assert decoder.groups["self"].layers == other.groups["self"].layers + 1


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("eh_proj", (WIDTH, WIDTH), "nextn.eh_proj.weight is no"),
        ("eh_proj", (WIDTH, 2 * WIDTH + 1), "no two halves"),
        ("hnorm", (WIDTH - 1,), "hnorm.weight has"),
        ("enorm", None, "no tensor blk.*enorm"),
        ("embed_tokens", (checkpoints.VOCABULARY - 1, WIDTH), "embed_tokens.weight is no"),
        ("shared_head_head", (checkpoints.VOCABULARY - 1, WIDTH), "shared_head_head.weight makes"),
    ],
)
def test_parts_of_other_sizes_are_refused(device, tmp_path, name, shape, said):
    truth = Truth("glm4moe")
    truth.beside.pop(name, None)
    if shape is not None:
        truth.beside[name] = np.ones(shape, np.float32)
    with File.open(truth.save(tmp_path / "bad.gguf")) as file, pytest.raises(ModelError, match=said):
        load_decoder(file, FileReader(file, device.eager()))
