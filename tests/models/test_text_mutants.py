"""Mistakes in what single texts have beside the common decoder: each must be seen by the comparison with transformers.

`test_decoders.py` holds the texts against transformers without a mistake.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, chunks_of, distance, open_decoder, score  # noqa: E402

import opsin  # noqa: E402
from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models import lfm2, load_decoder, smollm3  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.nn.sandwich import SandwichDecoder  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402

IDS = np.random.default_rng(6).integers(7, checkpoints.VOCABULARY, 130).tolist()


def changed(**options):
    """Fields of the decoder; of values, or of functions of the decoder."""

    def apply(patch, decoder, ops):
        return replace(decoder, **{k: v(decoder, ops) if callable(v) else v for k, v in options.items()})

    return apply


def heads(**options):
    return changed(heads=lambda decoder, ops: replace(decoder.heads, **options))


def strength(power):
    return changed(rope=lambda decoder, ops: replace(decoder.rope, scale=decoder.rope.scale**power))


def block(part, wrong):
    def apply(patch, decoder, ops):
        for layer in decoder.weights.blk:
            patch.setattr(layer, part, wrong)
        return decoder

    return apply


def exchanged(one, other):
    """Two parts of each block in each other's place."""

    def apply(patch, decoder, ops):
        for layer in decoder.weights.blk:
            left, right = getattr(layer, one), getattr(layer, other)
            patch.setattr(layer, one, right)
            patch.setattr(layer, other, left)
        return decoder

    return apply


def operation(name, wrong):
    def apply(patch, decoder, ops):
        right = getattr(Operations, name)
        patch.setattr(Operations, name, lambda self, *args, **options: wrong(right, self, *args, **options))
        return decoder

    return apply


def module(target, name, value):
    def apply(patch, decoder, ops):
        patch.setattr(target, name, value)
        return decoder

    return apply


def windows(change):
    """A mutant of how far layers with a window see."""

    def apply(patch, decoder, ops):
        right = Sequence.first
        patch.setattr(Sequence, "first", lambda self, row, window: right(self, row, change(window) if window else 0))
        return decoder

    return apply


def turning(head, pairs, base=5e4):
    """Frequencies of other widths: of so many pairs, in steps of a head of another width."""
    numbers = (base ** (-np.arange(pairs) / (head / 2))).astype(np.float32)
    return changed(frequencies=lambda decoder, ops: ops.constant(numbers))


def longs(numbers):
    """Other frequencies of long texts."""
    return changed(long=lambda decoder, ops: ops.constant(numbers.astype(np.float32)))


def unbiased(patch, decoder, ops):
    for layer in decoder.weights.blk:
        patch.setattr(layer.attn.attn_k, "bias", ops.constant(np.zeros(layer.attn.attn_k.outputs, np.float32)))
        patch.setattr(layer.attn.attn_v, "bias", ops.constant(np.zeros(layer.attn.attn_v.outputs, np.float32)))
    return decoder


ONE = object()


def gates(change):
    """A mutant of what a short convolution makes of its three parts."""

    def wrong(self, x, batch, layer, residual):
        width, parts = x.width, self.in_proj(x)
        before, after, values = change(*(parts[:, i * width : (i + 1) * width] for i in range(3)))
        given = values if before is ONE else before * values
        seen = x.ops.conv_state(given, self.conv.weight, batch.states["conv"], layer, batch.runs)
        return self.out_proj(after * seen, residual)

    return module(lfm2.ShortConv, "__call__", wrong)


def kernels(change):
    """A mutant of convolutions, [steps, channels]."""

    def apply(patch, decoder, ops):
        for layer in decoder.weights.blk:
            if isinstance(layer.mixer, lfm2.ShortConv):
                wrong = np.ascontiguousarray(change(layer.mixer.conv.weight.numpy()))
                patch.setattr(layer.mixer.conv, "weight", ops.constant(wrong))
        return decoder

    return apply


def forgetful(right, ops, x, w, states, layer, runs, *kind):
    """Each chunk begins from zeros."""
    nothing = ops.constant(np.full(runs.reads.shape, -1, np.int32))
    return right(ops, x, w, states, layer, replace(runs, reads=nothing), *kind)


def keys_unnormed(patch, decoder, ops):
    for layer in decoder.weights.blk:
        if not isinstance(layer.mixer, lfm2.ShortConv):
            patch.setattr(layer.mixer, "attn_k_norm", None)
    return decoder


POST = {
    "no norm behind attention": block("post_attention_norm", lambda x, eps: x),
    "no norm behind the feed-forward": block("post_ffw_norm", lambda x, eps: x),
    "norms behind the parts are exchanged": exchanged("post_attention_norm", "post_ffw_norm"),
    "the norm behind attention stands before the feed-forward": exchanged("post_attention_norm", "ffn_norm"),
}
FUSED = {"up stands before gate": operation("glu", lambda right, ops, gate, up, kind: right(ops, up, gate, kind))}
WINDOWS = {
    "windows are one row longer": windows(lambda window: window + 1),
    "windows are one row shorter": windows(lambda window: window - 1),
    "no windows": windows(lambda window: 0),
}
HALVES, NEIGHBOURS = changed(pairing="halves"), changed(pairing="neighbours")
MUTANTS = {
    "gemma2": {
        **POST,
        **WINDOWS,
        "scores have no bound": heads(softcap=0.0),
        "scores have the bound of logits": heads(softcap=15.0),
        "logits have no bound": changed(cap=0.0),
        "logits have the bound of scores": changed(cap=6.0),
        "the last of two layers has the window": changed(
            places=lambda decoder, ops: tuple(decoder.places[i] for i in (1, 0, 3, 2, 4))
        ),
        "scores are not scaled": heads(scale=1.0),
        "embeddings are not scaled": module(SandwichDecoder, "width", 1),
        "the exact GELU": operation("glu", lambda right, ops, gate, up, kind: right(ops, gate, up, "gelu_erf")),
    },
    "phi3": {
        **FUSED,
        **WINDOWS,
        "texts are never long": changed(long=None),
        "the rope has no strength": strength(0),
        "strength is squared": strength(2),
        "neighbouring pairs turn": NEIGHBOURS,
        "no factors": longs(5e4 ** (-np.arange(6) / 6)),
        "exponents are of the whole head": longs(5e4 ** (-np.arange(6) / 8) / checkpoints.LONG["long_factor"]),
    },
    "lfm2": {
        "gates are exchanged": gates(lambda before, after, values: (after, before, values)),
        "nothing is taken before the convolution": gates(lambda before, after, values: (ONE, after, values)),
        "values are the second gate's": gates(lambda before, after, values: (before, values, after)),
        "the convolution looks ahead": kernels(lambda w: w[::-1]),
        "the convolution forgets a row": kernels(lambda w: np.concatenate([np.zeros_like(w[:1]), w[1:]])),
        "an activation behind the convolution": operation(
            "conv_state", lambda right, ops, *args: right(ops, *args, "silu")
        ),
        "states begin with what was": operation("conv_state", forgetful),
        "no norm of keys": keys_unnormed,
        "neighbouring pairs turn": operation(
            "rope", lambda right, ops, x, table, pairing: right(ops, x, table, "neighbours")
        ),
    },
    "smollm3": {
        "all layers know positions": module(smollm3, "EVERY", 99),
        "no layer knows positions": module(smollm3, "EVERY", 1),
        "every other layer knows none": module(smollm3, "EVERY", 2),
        "halves turn": HALVES,
    },
    "ernie4_5": {"halves turn": HALVES, "biases are left out": unbiased},
    "glm4": {
        **POST,
        **FUSED,
        "halves turn": HALVES,
        "all of a head turns": turning(32, 16),
        "exponents are of the whole head": turning(32, 8),
        "biases are left out": unbiased,
    },
}  # fmt: skip
CASES = [(family, mutant) for family, mutants in MUTANTS.items() for mutant in mutants]


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The file of a family, and the logits that transformers gives; both made once."""
    made = {}

    def text(family):
        if family not in made:
            truth = checkpoints.make(family)
            path = checkpoints.save(tmp_path_factory.mktemp(family) / "tiny.gguf", family, truth)
            made[family] = path, checkpoints.logits(truth, IDS)
        return made[family]

    return text


@pytest.mark.parametrize("family", MUTANTS)
def test_nothing_is_seen_without_a_mistake(ops, texts, family):
    path, expected = texts(family)
    assert distance(score(ops, open_decoder(ops, path), Sequence(IDS), chunks_of(len(IDS), 50)), expected) <= 1e-4


@pytest.mark.parametrize(("family", "mutant"), CASES)
def test_mutant_is_seen(monkeypatch, ops, texts, family, mutant):
    path, expected = texts(family)
    decoder = MUTANTS[family][mutant](monkeypatch, open_decoder(ops, path), ops)
    assert distance(score(ops, decoder, Sequence(IDS), chunks_of(len(IDS), 50)), expected) > 1e-4


def test_texts_are_long_where_they_may_become_so(tmp_path):
    """transformers looks at each text; here the context decides, for all that it will hold."""
    original = {"original_max_position_embeddings": 100}
    truth = checkpoints.make("phi3", rope_parameters={**checkpoints.LONG, **original}, **original)
    told = {"rope__scaling__original_context_length": 100}
    strength = (1 + np.log(checkpoints.CONTEXT / 100) / np.log(100)) ** 0.5
    path = checkpoints.save(tmp_path / "tiny.gguf", "phi3", truth, rope__scaling__attn_factor=strength, **told)
    short, long = checkpoints.logits(truth, IDS[:90]), checkpoints.logits(truth, IDS)
    with opsin.load(path, threads=2, pages="f32", context=100) as model:
        assert distance(model.logits(IDS[:90]), short) <= 1e-4
        assert distance(model.trace(IDS[:90], ["logits"])["logits"], short) <= 1e-4
    with opsin.load(path, threads=2, pages="f32", context=101) as model:
        assert distance(model.logits(IDS[:90]), short) > 1e-3
    with opsin.load(path, threads=2, pages="f32") as model:
        assert distance(model.logits(IDS), long) <= 1e-4


def test_layers_that_guess_further_tokens_are_not_read(ops, tmp_path):
    truth = checkpoints.make("glm4")
    alone = checkpoints.save(tmp_path / "alone.gguf", "glm4", truth)
    with File.open(alone) as file:
        known = {n: file.read(n).view(np.float32).reshape(info.shape) for n, info in file.tensors.items()}
        keys = {**file.typed, "glm4.block_count": 4, "glm4.nextn_predict_layers": 1}
    more = {n.replace("blk.2.", "blk.3."): values for n, values in known.items() if n.startswith("blk.2.")}
    more["blk.3.nextn.enorm.weight"] = known["output_norm.weight"]
    write(tmp_path / "more.gguf", keys, [NewTensor.of(n, values) for n, values in (known | more).items()])
    with File.open(tmp_path / "more.gguf") as file:
        reader = FileReader(file, ops)
        decoder = load_decoder(file, reader)
        assert set(reader.unread()) == set(more)
    assert distance(score(ops, decoder, Sequence(IDS)), checkpoints.logits(truth, IDS)) <= 1e-4


@pytest.mark.parametrize("guessing", [-1, 3, 1 << 40])
def test_more_guessing_layers_than_there_are_are_refused(ops, tmp_path, guessing):
    path = checkpoints.save(tmp_path / "bad.gguf", "glm4", checkpoints.make("glm4"), nextn_predict_layers=guessing)
    with File.open(path) as file, pytest.raises(OpsinError, match=f"nextn_predict_layers is {guessing}, of 3"):
        load_decoder(file, FileReader(file, ops))


@pytest.mark.parametrize("family", MUTANTS)
def test_damaged_tensors_are_refused(ops, tmp_path, texts, family):
    """One after the other is missing, or has a row less: nothing but biases may go."""
    with File.open(texts(family)[0]) as file:
        keys = dict(file.typed)
        known = {n: file.read(n).view(np.float32).reshape(info.shape) for n, info in file.tensors.items()}
    taken = []
    layers = ("blk.1.", "blk.2.") if family == "lfm2" else ("blk.1.",)  # one of each kind
    for name in [n for n in known if not n.startswith("blk.") or n.startswith(layers)]:
        rest = {n: values for n, values in known.items() if n != name}
        for tensors in (rest, rest | {name: known[name][:-1]}):
            write(tmp_path / "bad.gguf", keys, [NewTensor.of(n, values) for n, values in tensors.items()])
            try:
                with File.open(tmp_path / "bad.gguf") as file:
                    score(ops, load_decoder(file, FileReader(file, ops)), Sequence([1, 2, 3]))
                taken.append((name, name in tensors))
            except OpsinError as error:
                assert len(str(error)) < 400
    assert [name for name, is_there in taken if not is_there and not name.endswith("bias")] == []
    assert [name for name, is_there in taken if is_there] == ["token_embd.weight"]  # a smaller vocabulary
