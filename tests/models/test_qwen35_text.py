"""The decoder of Qwen 3.5 against transformers' class: two kinds of layers, three axes, both orders of heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Bench, Sequence, distance, open_decoder, score  # noqa: E402

from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models.qwen35 import DeltaBlock, FullBlock  # noqa: E402
from opsin.nn.attention import GatedAttention  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402
from opsin.ops.recurrence import Runs  # noqa: E402

TOLERANCE = 1e-4
GRIDS = [(4, 7), (6, 3)]  # rows and columns of two pictures
SPANS = [(10, 38, False), (50, 68, False)]
ROWS, IMAGE, WIDTH = 90, 3, checkpoints.WIDTH  # IMAGE: the id of a picture's row


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(7, checkpoints.VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("qwen35")


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("qwen35") / "tiny.gguf", "qwen35", truth)


@pytest.fixture
def decoder(ops, path):
    return open_decoder(ops, path)


@pytest.fixture(scope="module")
def media():
    rows = sum(b - a for a, b, _ in SPANS)
    return np.random.default_rng(4).standard_normal((rows, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def positions(truth):
    """[rows, 3], from the class itself."""
    ids, types = torch.tensor([ids_of(ROWS)]), torch.zeros(1, ROWS, dtype=torch.int)
    for a, b, _ in SPANS:
        ids[0, a:b], types[0, a:b] = IMAGE, 1
    merged = torch.tensor([[1, 2 * h, 2 * w] for h, w in GRIDS])  # patches, of which four become a row
    places, _ = truth.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=merged)
    return places[:, 0].T.numpy().astype(np.int32)


@pytest.fixture(scope="module")
def expected(truth, media, positions):
    given = checkpoints.embeddings(truth, ids_of(ROWS))
    given[0, [row for a, b, _ in SPANS for row in range(a, b)]] = torch.from_numpy(media)
    with torch.inference_mode():
        states = truth.model.language_model(
            inputs_embeds=given, position_ids=torch.from_numpy(positions.T[:, None].astype(np.int64)), use_cache=False
        )
        return truth.lm_head(states.last_hidden_state)[0].numpy()


@pytest.fixture(scope="module")
def conversation(media, positions):
    return Sequence(ids_of(ROWS), SPANS, media, positions)


def test_three_of_its_layers_leave_states(decoder):
    assert {name: shape.layers for name, shape in decoder.states.items()} == {"conv": 3, "delta": 3}
    assert decoder.states["delta"].shape == (6, 8, 12)
    assert decoder.states["conv"].shape == (3, 2 * 2 * 8 + 6 * 12)
    assert decoder.groups["self"].layers == 2
    assert (decoder.width, decoder.media_width, decoder.axes) == (WIDTH, WIDTH, 3)


CHUNKS = {"whole": [90], "chunks": [20, 35, 1, 34], "one by one": [1] * 90}


@pytest.mark.parametrize("sizes", CHUNKS)
def test_pictures_equal_transformers(ops, decoder, conversation, expected, sizes):
    ends = np.cumsum([0, *CHUNKS[sizes]]).tolist()
    assert distance(score(ops, decoder, conversation, list(zip(ends, ends[1:], strict=False))), expected) <= TOLERANCE


def test_company_of_text_changes_no_bit(ops, decoder, conversation):
    """A chunk that ends in a picture, beside a sequence of text."""
    alone = score(ops, decoder, conversation, [(0, 30), (30, 90)])
    bench = Bench(ops, decoder, [Sequence(ids_of(70, 1)), conversation])
    first = bench.step([(0, 0, 40), (1, 0, 30)])
    last = bench.step([(1, 30, 90), (0, 40, 70)])
    assert np.array_equal(np.concatenate([first[40:], last[:60]]), alone)
    text = np.concatenate([first[:40], last[60:]])
    assert np.array_equal(text, score(ops, decoder, Sequence(ids_of(70, 1)), [(0, 40), (40, 70)]))


def rewritten(path, to, change, **keys):
    """The file with other tensors and keys (None: without one)."""
    with File.open(path) as file:
        tensors = {name: file.read(name).view(np.float32).reshape(i.shape) for name, i in file.tensors.items()}
        known = {**file.typed, **{f"qwen35.{key.replace('__', '.')}": value for key, value in keys.items()}}
    known = {key: value for key, value in known.items() if value is not None}
    write(to, known, [NewTensor.of(name, np.ascontiguousarray(v)) for name, v in change(tensors).items()])
    return to


def as_trained(tensors):
    """Value heads grouped by their key heads, as checkpoints have them: the file's order, taken back."""
    back = np.argsort([0, 3, 1, 4, 2, 5])
    places = (12 * back[:, None] + np.arange(12)).reshape(-1)
    found = dict(tensors)
    for name, values in tensors.items():
        kind = name.split(".", 2)[-1]
        if kind in ("ssm_a", "ssm_dt.bias", "ssm_alpha.weight", "ssm_beta.weight"):
            found[name] = values[back]
        elif kind == "ssm_out.weight":
            found[name] = values[:, places]
        elif kind == "attn_gate.weight":
            found[name] = values[places]
        elif kind == "ssm_conv1d.weight" or kind == "attn_qkv.weight":
            found[name] = np.concatenate([values[:32], values[32:][places]])
    return found


def test_files_in_the_other_order_of_heads_say_so(ops, path, tmp_path, conversation, expected):
    other = rewritten(path, tmp_path / "grouped.gguf", as_trained, ssm__v_head_reordered=False)
    assert distance(score(ops, open_decoder(ops, other), conversation), expected) <= TOLERANCE
    silent = rewritten(path, tmp_path / "silent.gguf", as_trained)
    assert distance(score(ops, open_decoder(ops, silent), conversation), expected) > 100 * TOLERANCE
    told = rewritten(path, tmp_path / "told.gguf", dict, ssm__v_head_reordered=True)
    assert distance(score(ops, open_decoder(ops, told), conversation), expected) <= TOLERANCE


def test_without_a_list_every_fourth_layer_attends(ops, tmp_path):
    kinds = ["linear_attention"] * 3 + ["full_attention", "linear_attention"]
    truth = checkpoints.make("qwen35", layer_types=kinds)
    path = checkpoints.save(tmp_path / "tiny.gguf", "qwen35", truth, attention__recurrent_layers=None)
    decoder = open_decoder(ops, path)
    assert [isinstance(block, FullBlock) for block in decoder.blocks] == [False, False, False, True, False]
    assert distance(score(ops, decoder, Sequence(ids_of(40))), checkpoints.logits(truth, ids_of(40))) <= TOLERANCE


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope__dimension_sections", [8, 5], "dimension_sections"),
        ("attention__recurrent_layers", np.array([True] * 3), "recurrent_layers tells of 3"),
        ("nextn_predict_layers", 5, "nextn_predict_layers is 5, of 5"),
        ("nextn_predict_layers", -1, "nextn_predict_layers is -1"),
        ("block_count", 6, "less than its 6 layers"),
        ("ssm__group_count", 4, "4 heads of keys, 6 of values"),
        ("ssm__inner_size", 73, "73 values"),
        ("ssm__conv_kernel", 1, "1 steps"),
        ("ssm__conv_kernel", 5, "ssm_conv1d.weight is"),
        ("ssm__state_size", 9, "attn_qkv.weight makes 104"),
        ("ssm__time_step_rank", 1 << 20, "time_step_rank is 1048576"),
        ("attention__head_count", 2, "attn_q.weight has"),
    ],
)
def test_keys_that_mean_nothing_are_refused(ops, truth, tmp_path, key, value, said):
    path = checkpoints.save(tmp_path / "tiny.gguf", "qwen35", truth, **{key: value})
    with pytest.raises(OpsinError, match=said):
        open_decoder(ops, path)


def operation(name, wrong):
    """wrong(right, self, *args, **options) in the place of an operation."""

    def apply(patch, ops, decoder, told):
        right = getattr(Operations, name)
        patch.setattr(Operations, name, lambda self, *args, **options: wrong(right, self, *args, **options))
        return decoder, told

    return apply


def _delta(**wrong):
    return operation("delta", lambda right, self, *args, **options: right(self, *args, **{**options, **wrong}))


def _exchanged(right, self, q, k, *args, **options):
    return right(self, k, q, *args, **options)


def _forgetful(right, self, q, k, v, decay, beta, states, layer, runs, **options):
    fresh = Runs(runs.starts, self.constant(np.full(runs.reads.shape, -1, np.int32)), runs.writes)
    return right(self, q, k, v, decay, beta, states, layer, fresh, **options)


def _unwound(right, self, x, w, states, layer, runs, kind):
    fresh = Runs(runs.starts, self.constant(np.full(runs.reads.shape, -1, np.int32)), runs.writes)
    return right(self, x, w, states, layer, fresh, kind)


def _lasting(right, self, x, rate):
    return self.scale(right(self, x, rate), 0.0) + self.constant(np.ones(6))


def _first_layer(right, self, *args, **options):
    states = args[5]
    return right(self, *args[:5], states, 0, *args[7:], **options)


def gate(wrong):
    def apply(patch, ops, decoder, told):
        patch.setattr(GatedAttention, "gated", wrong)
        return decoder, told

    return apply


def layers(change):
    """Of each recurrent layer."""

    def apply(patch, ops, decoder, told):
        for block in decoder.blocks:
            if isinstance(block, DeltaBlock):
                change(patch, block.delta, ops)
        return decoder, told

    return apply


def _glu_first(right, self, gate, up, kind):
    return right(self, up, gate, kind) if kind == "silu" and gate.width == 72 else right(self, gate, up, kind)


MUTANTS = {
    "heads of keys by groups": lambda patch, ops, decoder, told: (
        replace(decoder, delta=replace(decoder.delta, grouped=True)), told
    ),
    "what heads see passes no gate": gate(lambda self, seen, x: seen),
    "the gate is no sigmoid": gate(lambda self, seen, x: x.ops.glu(self.gate(x), seen, "silu")),
    "the gate is the queries": gate(lambda self, seen, x: x.ops.glu(self.attn_q(x), seen, "sigmoid")),
    "no activation after the convolution": operation("conv_state", lambda right, self, *args: right(self, *args[:-1])),
    "the convolution forgets": operation("conv_state", _unwound),
    "the rule forgets": operation("delta", _forgetful),
    "all layers share a state": operation("delta", _first_layer),
    "nothing decays": operation("decay", _lasting),
    "the decay has no bias": layers(
        lambda patch, layer, ops: patch.setattr(layer.ssm_dt, "values", ops.constant(np.zeros(6)))
    ),
    "keys and queries are exchanged": operation("delta", _exchanged),
    "keys are no unit vectors": _delta(eps=1.0),
    "results are not scaled": _delta(scale=1.0),
    "the norm is another head's": layers(
        lambda patch, layer, ops: patch.setattr(layer.ssm_norm, "weight", ops.constant(np.ones(12)))
    ),
    "the norm is gated the other way round": operation("glu", _glu_first),
    "sections one after the other": lambda patch, ops, decoder, told: (
        replace(decoder, axis=ops.constant(np.int32([0, 0, 0, 1, 1, 1, 2, 2]))), told
    ),
    "one axis alone": lambda patch, ops, decoder, told: (
        replace(decoder, axis=ops.constant(np.zeros(8, np.int32))), told
    ),
    "frequencies of whole heads": lambda patch, ops, decoder, told: (
        replace(decoder, frequencies=ops.constant((5e4 ** (-np.arange(8) / 16)).astype(np.float32))), told
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, decoder, conversation, expected, mutant):
    wrong, told = MUTANTS[mutant](monkeypatch, ops, decoder, conversation)
    assert distance(score(ops, wrong, told, [(0, 30), (30, 90)]), expected) > 10 * TOLERANCE
