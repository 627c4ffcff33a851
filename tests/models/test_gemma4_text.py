"""What Gemma 4 has beside other decoders: heads of two widths, keys that layers share, embeddings for each layer.

Each mistake of the list must be seen by the comparison with transformers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Sequence, chunks_of, distance, open_decoder, score  # noqa: E402

import opsin  # noqa: E402
from opsin.errors import FileError, OpsinError  # noqa: E402
from opsin.gguf import File, NewTensor, write  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.models.gemma4 import Gemma4  # noqa: E402
from opsin.nn.attention import SharingAttention  # noqa: E402
from opsin.nn.experts import ExpertFfn  # noqa: E402
from opsin.nn.layer_embeddings import LayerEmbeddings  # noqa: E402
from opsin.nn.meta import MetaReader  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.nn.parts import StoredEmbedding  # noqa: E402
from opsin.ops.cpu import Operations  # noqa: E402

TOLERANCE = 1e-4
ROWS = 110
TABLE = "per_layer_token_embd.weight"


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(7, checkpoints.VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def truth():
    return checkpoints.make("gemma4")


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("gemma4") / "tiny.gguf", "gemma4", truth)


@pytest.fixture
def decoder(ops, path):
    return open_decoder(ops, path)


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, ids_of(ROWS))


def test_groups_have_the_layers_that_write(decoder):
    shapes = {name: (s.layers, s.heads, s.width, s.window, s.causal) for name, s in decoder.groups.items()}
    assert shapes == {"self": (2, 1, 48, 0, True), "window": (3, 2, 32, 24, False)}


def test_layers_that_share_read_the_last_of_their_kind_that_writes(decoder):
    places = [(place.kind, place.number, place.shared) for place in decoder.places]
    assert places[:5] == [(1, 0, False), (1, 1, False), (0, 0, False), (1, 2, False), (0, 1, False)]
    assert places[5:] == [(1, 2, True), (1, 2, True), (0, 1, True)]


APART = {"num_kv_shared_layers": 0, "use_double_wide_mlp": False}
ALL_WRITE = {"attention__shared_kv_layers": 0, "feed_forward_length": 96}
OTHERS = {
    "nothing is shared": (APART, ALL_WRITE),
    "no embeddings of layers": (
        {**APART, "hidden_size_per_layer_input": 0}, {**ALL_WRITE, "embedding_length_per_layer_input": 0}
    ),
    "values of their own everywhere": (
        {"attention_k_eq_v": False, "num_global_key_value_heads": None}, {"attention__head_count_kv": 2}
    ),
    "no cap": ({"final_logit_softcapping": None}, {"final_logit_softcapping": None}),
    "no windows": (
        {"layer_types": ["full_attention"] * 8},
        {"attention__sliding_window_pattern": np.zeros(8, bool), "attention__head_count_kv": [1] * 8},
    ),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_other_models_equal_transformers(ops, tmp_path, other):
    options, keys = OTHERS[other]
    truth = checkpoints.make("gemma4", **options)
    decoder = open_decoder(ops, checkpoints.save(tmp_path / "tiny.gguf", "gemma4", truth, **keys))
    theirs = checkpoints.logits(truth, ids_of(ROWS))
    assert distance(score(ops, decoder, Sequence(ids_of(ROWS))), theirs) <= TOLERANCE


def rewritten(path, to, *, keys=(), tensors=()):
    """The file with other keys and tensors; None drops one."""
    with File.open(path) as file:
        known = {key: value for key, value in file.typed.items() if key not in dict(keys)}
        whole = {name: file.copy_tensor(name) for name in file.tensors} | {
            name: values if values is None else NewTensor.of(name, values) for name, values in dict(tensors).items()
        }
        more = {key: value for key, value in dict(keys).items() if value is not None}
        write(to, {**known, **more}, [tensor for tensor in whole.values() if tensor is not None])
    return to


class TestTheTable:
    """Rows of the layers' embeddings are read from the file as they are needed, and the table is never in memory."""

    def test_takes_no_memory(self, path):
        with File.open(path) as file:
            reader = MetaReader(file, vectors=True)
            load_decoder(file, reader)
            matrices = sum(i.nbytes for n, i in file.tensors.items() if len(i.shape) > 1 and n != TABLE)
            table = file.tensors[TABLE].nbytes
        assert matrices <= reader.bytes < matrices + table // 2  # strips are filled up

    def test_gives_the_bytes_of_the_rows_that_are_asked_for(self, ops, path, monkeypatch):
        asked: list[tuple[str, int]] = []
        right = File.read_into

        def read_into(self, name, buffer, first_byte=0):
            asked.append((name, buffer.nbytes))
            right(self, name, buffer, first_byte)

        monkeypatch.setattr(File, "read_into", read_into)
        decoder = open_decoder(ops, path)
        row = 4 * 8 * 16  # float32, layers, values of a layer
        assert not [name for name, _ in asked if name == TABLE]
        asked.clear()
        ids = ids_of(40) * 2
        score(ops, decoder, Sequence(ids))
        assert asked == [(TABLE, row)] * len(set(ids))

    def test_is_read_until_the_model_is_gone_and_no_longer(self, tmp_path, path):
        import gc
        import shutil

        own = shutil.copy(path, tmp_path / "own.gguf")
        with opsin.load(own, threads=1, pages="f32") as model:
            before = model.logits(ids_of(9))
            own.unlink()
            assert np.array_equal(model.logits(ids_of(9)), before)
        del model
        gc.collect()  # warnings of files that nobody closed are errors

    def test_of_a_file_that_is_cut_short_fails_what_asks_for_it_and_nothing_else(self, tmp_path, path):
        """The table stands first in this file; what was read before it was cut is in memory."""
        import os

        moved = tmp_path / "last.gguf"
        with File.open(path) as file:
            names = sorted(file.tensors, key=lambda name: name == TABLE)
            write(moved, file.typed, [file.copy_tensor(name) for name in names])
        with opsin.load(moved, threads=1, pages="f32") as model:
            whole = moved.read_bytes()
            os.truncate(moved, len(whole) - 400 * 512)
            with pytest.raises(FileError, match="too early"):
                model.logits([checkpoints.VOCABULARY - 1])
            moved.write_bytes(whole)
            assert np.isfinite(model.logits([checkpoints.VOCABULARY - 1])).all()


def test_prompts_end_before_the_layers_that_write_nothing(ops, decoder, monkeypatch):
    """Of a prompt whose last row is wanted, those layers compute one row."""
    seen: dict[str, int] = {}
    right = SharingAttention.look

    def look(self, x, batch, kept, **more):
        seen[more["name"]] = x.shape[0]
        return right(self, x, batch, kept, **more)

    monkeypatch.setattr(SharingAttention, "look", look)
    from by_hand import Bench

    bench = Bench(ops, decoder, [Sequence(ids_of(ROWS))])
    whole = score(ops, decoder, Sequence(ids_of(ROWS)))
    batches: list[object] = []
    forward = Gemma4.forward
    monkeypatch.setattr(
        Gemma4, "forward", lambda self, b: forward(self, replace(b, outputs=ops.constant(np.int32([ROWS - 1]))))
    )
    last = bench.step([(0, 0, ROWS)])
    assert [seen[f"blk.{i}.attn"] for i in range(8)] == [ROWS] * 5 + [1] * 3
    assert np.array_equal(last, whole[-1:])
    assert not batches


EXPERTS = {"enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 40}
TOLD = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 40}


@pytest.fixture(scope="module")
def moe_truth():
    return checkpoints.make("gemma4", **EXPERTS)


@pytest.fixture(scope="module")
def moe_path(moe_truth, tmp_path_factory):
    """Gate and up of the experts apart, as Ollama's files have them."""
    return checkpoints.save(tmp_path_factory.mktemp("gemma4-experts") / "tiny.gguf", "gemma4", moe_truth, **TOLD)


@pytest.fixture(scope="module")
def moe_expected(moe_truth):
    return checkpoints.logits(moe_truth, ids_of(ROWS))


@pytest.fixture
def moe(ops, moe_path):
    return open_decoder(ops, moe_path)


class TestExperts:
    """Layers whose rows pass through the FFN and through a few experts."""

    @pytest.mark.parametrize("size", [ROWS, 37, 1])
    def test_rows_equal_transformers(self, ops, moe, moe_expected, size):
        ours = score(ops, moe, Sequence(ids_of(ROWS)), chunks_of(ROWS, size))
        assert distance(ours, moe_expected) <= TOLERANCE

    def test_gate_and_up_in_one_stack_are_the_same_to_the_bit(self, ops, moe, moe_path, tmp_path):
        with File.open(moe_path) as file:
            reader, joined = FileReader(file, ops), {}
            for i in range(8):
                gate, up = (f"blk.{i}.ffn_{name}_exps.weight" for name in ("gate", "up"))
                both = np.concatenate([reader.values(gate), reader.values(up)], 1)
                joined |= {gate: None, up: None, f"blk.{i}.ffn_gate_up_exps.weight": both}
        one = open_decoder(ops, rewritten(moe_path, tmp_path / "one.gguf", tensors=joined))
        apart, whole = (score(ops, decoder, Sequence(ids_of(50))) for decoder in (moe, one))
        assert np.array_equal(apart, whole)

    @pytest.mark.parametrize(("keys", "tensors", "said"), [
        ({"gemma4.expert_count": 0}, {}, "expert_count do not go together"),
        ({"gemma4.expert_count": 5}, {}, "blk.0.ffn_gate_inp"),
        ({"gemma4.expert_used_count": 7}, {}, "7 of 6 experts"),
        ({}, {"blk.2.ffn_gate_inp.scale": np.ones(63, np.float32)}, "blk.2.ffn_gate_inp.scale has 63"),
        ({}, {"blk.2.ffn_gate_inp.scale": None}, "blk.2.ffn_gate_inp.scale"),
        ({}, {"blk.2.ffn_down_exps.scale": np.ones(5, np.float32)}, "blk.2.ffn_down_exps.scale has 5"),
        ({}, {"blk.2.pre_ffw_norm_2.weight": np.ones(63, np.float32)}, "blk.2.pre_ffw_norm_2.weight has 63"),
    ])  # fmt: skip
    def test_files_that_do_not_go_together_are_refused(self, ops, tmp_path, moe_path, keys, tensors, said):
        made = rewritten(moe_path, tmp_path / "bad.gguf", keys=keys, tensors=tensors)
        with File.open(made) as file, pytest.raises(OpsinError, match=said):
            load_decoder(file, FileReader(file, ops))

    def test_without_a_mutant_all_is_well(self, ops, moe, moe_expected):
        assert distance(score(ops, moe, Sequence(ids_of(40))), moe_expected[:40]) <= TOLERANCE

    @pytest.mark.parametrize("mutant", ["router", "scale", "root", "gains", "norm", "post_norm", "plain_norm", "shares",
                                        "one", "ffn"])  # fmt: skip
    def test_mutant_is_seen(self, monkeypatch, ops, moe, moe_expected, mutant):
        wrong = _expert_mutant(monkeypatch, moe, mutant)
        assert distance(score(ops, wrong, Sequence(ids_of(40))), moe_expected[:40]) > TOLERANCE


def _expert_mutant(patch, decoder, name):
    how = decoder.routing
    right = ExpertFfn.__call__

    def called(wrong):
        patch.setattr(ExpertFfn, "__call__", wrong)
        return decoder

    if name == "router":  # it reads what the experts read
        return called(lambda self, x, kind, how, *, routed: right(self, x, kind, how, routed=x))
    if name == "root":
        return called(lambda self, x, kind, how, *, routed: right(self, x, kind, how, routed=8.0 * routed))
    if name in ("shares", "one"):
        changes = {"normalised": False} if name == "shares" else {"used": 1}
        return replace(decoder, routing=replace(how, **changes))
    if name == "ffn":
        return replace(decoder, routing=None)
    for layer in decoder.weights.blk:
        if name == "scale":
            patch.setattr(layer.experts, name, layer.experts.scale.ops.constant(np.ones(64, np.float32)))
        elif name == "gains":
            patch.setattr(layer.experts.ffn, name, None)
        else:
            patch.setattr(layer.experts, name, lambda x, eps: x)
    return decoder


BAD = {
    "a pattern of another length": ({"gemma4.attention.sliding_window_pattern": np.ones(3, bool)}, {}, "has 3 values"),
    "KV heads of another length": ({"gemma4.attention.head_count_kv": np.ones(3, np.int32)}, {}, "has 3 values"),
    "KV heads that are no part": ({"gemma4.attention.head_count_kv": 3}, {}, "of 4 heads"),
    "KV heads that differ in one kind": (
        {"gemma4.attention.head_count_kv": np.int32([2, 1, 1, 2, 1, 2, 2, 1])}, {}, r"\[1, 2\] of 4 heads"
    ),
    "all layers share": ({"gemma4.attention.shared_kv_layers": 8}, {}, "shared_kv_layers is 8"),
    "more than all layers share": ({"gemma4.attention.shared_kv_layers": 9}, {}, "shared_kv_layers is 9"),
    "none of a kind writes": ({"gemma4.attention.shared_kv_layers": 6}, {}, "shared_kv_layers is 6"),
    "keys where none are shared are missing": ({"gemma4.attention.shared_kv_layers": 1}, {}, r"blk\.5\.attn_k"),
    "a table of other layers": ({"gemma4.embedding_length_per_layer_input": 8}, {}, TABLE),
    "no table": ({}, {TABLE: None}, TABLE),
    "a table of fewer ids": ({}, {TABLE: np.ones((30, 128), np.float32)}, TABLE),
    "a table that nobody mentions": ({"gemma4.embedding_length_per_layer_input": 0}, {}, TABLE),
    "a gate of another width": ({}, {"blk.3.inp_gate.weight": np.ones((8, 64), np.float32)}, r"blk\.3\.inp_gate"),
    "divisors of another width": ({}, {"rope_freqs.weight": np.ones(16, np.float32)}, "rope_freqs.weight"),
    "no divisors": ({}, {"rope_freqs.weight": None}, "rope_freqs.weight"),
    "a scale of two numbers": ({}, {"blk.2.layer_output_scale.weight": np.ones(2, np.float32)}, "where 1 is needed"),
    "values of another width": ({}, {"blk.0.attn_v.weight": np.ones((96, 64), np.float32)}, r"blk\.0\.attn_v"),
    "a cap without bound": ({"gemma4.final_logit_softcapping": np.float32(1e30)}, {}, "softcapping is 1"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_files_that_do_not_go_together_are_refused(ops, tmp_path, path, bad):
    keys, tensors, said = BAD[bad]
    made = rewritten(path, tmp_path / "bad.gguf", keys=keys, tensors=tensors)
    with File.open(made) as file, pytest.raises(OpsinError, match=said):
        load_decoder(file, FileReader(file, ops))


def kind(number, **wrong):
    """A mutant of one kind of layers."""

    def apply(patch, decoder):
        kinds = list(decoder.kinds)
        kinds[number] = replace(kinds[number], **{k: f(kinds[number], kinds) for k, f in wrong.items()})
        return replace(decoder, kinds=tuple(kinds))

    return apply


def block(part, wrong):
    def apply(patch, decoder):
        for layer in decoder.weights.blk:
            patch.setattr(layer, part, wrong)
        return decoder

    return apply


def of(owner, name, wrong):
    def apply(patch, decoder):
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **more: wrong(right, *args, **more))
        return decoder

    return apply


def places(**wrong):
    return lambda patch, decoder: replace(
        decoder,
        places=tuple(replace(p, **{k: f(p) for k, f in wrong.items()}) if p.shared else p for p in decoder.places),
    )


def unweighted(right, self, x, w, eps):
    """Norms of values alone have no weight, and heads."""
    return x if w is None else right(self, x, w, eps)


def values_of_keys(right, self, x, kept, layer, heads, table, eps):
    """Values where there is no matrix for them are the keys as they are normed with their weight."""
    if self.attn_v is not None:
        return right(self, x, kept, layer, heads, table, eps)
    k = self.attn_k_norm(self.attn_k(x).reshape(heads.kv, heads.width), eps)
    x.ops.store(kept.pages, layer, x.ops.rope(k, table, "halves"), k, kept.slots)
    return None


MUTANTS = {
    "values are not normed": of(Operations, "rms_norm", unweighted),
    "values are the normed keys": of(SharingAttention, "write", values_of_keys),
    "scores are scaled": lambda patch, decoder: replace(
        decoder, kinds=tuple(replace(k, heads=replace(k.heads, scale=k.heads.width**-0.5)) for k in decoder.kinds)
    ),
    "all pairs turn": kind(0, frequencies=lambda k, _: k.frequencies.ops.constant(
        (1e5 ** (-np.arange(24) / 24)).astype(np.float32))),
    "pairs turn by the exponents of those that turn alone": kind(0, frequencies=lambda k, _: k.frequencies.ops.constant(
        np.where(np.arange(24) < 6, 1e5 ** (-np.arange(24) / 6), 0).astype(np.float32))),
    "local layers turn with the base of the others": kind(1, frequencies=lambda k, _: k.frequencies.ops.constant(
        (1e5 ** (-np.arange(16) / 16)).astype(np.float32))),
    "neighbouring pairs turn": of(Operations, "rope", lambda right, self, x, table, pairing: right(
        self, x, table, "neighbours")),
    "layers that share read the first of their kind": places(number=lambda place: 0),
    "no cap": lambda patch, decoder: replace(decoder, cap=0.0),
    "no scales of layers": block("scale", None),
    "no embeddings of layers": lambda patch, decoder: replace(decoder, embeddings=None),
    "embeddings of layers in another order": of(LayerEmbeddings, "give", lambda right, self, x, own, layer, eps: right(
        self, x, own, (layer + 1) % 8, eps)),
    "the table is not scaled": of(StoredEmbedding, "__call__", lambda right, self, ids: 0.25 * right(self, ids)),
    "ids' rows of the table are shifted": of(StoredEmbedding, "__call__", lambda right, self, ids: right(
        self, ids.ops.constant((ids.numpy() + 1) % checkpoints.VOCABULARY))),
    "the sum of both embeddings is not halved": of(LayerEmbeddings, "__call__", lambda right, self, ids, x, eps: 2**0.5
        * right(self, ids, x, eps)),
    "the norm of what is made sees another epsilon": of(LayerEmbeddings, "__call__", lambda right, self, ids, x, eps:
        right(self, ids, x, eps / 64)),
    "no norm behind attention": block("post_attention_norm", lambda x, eps: x),
    "no norm behind the feed-forward": block("post_ffw_norm", lambda x, eps: x),
    "the exact GELU": of(Operations, "glu", lambda right, self, gate, up, kind: right(self, gate, up, "gelu_erf")),
    "embeddings are not scaled": lambda patch, decoder: (patch.setattr(Gemma4, "width", 1), decoder)[1],
    "windows are one row longer": of(Sequence, "first", lambda right, self, row, w: right(self, row, w + bool(w))),
    "windows are one row shorter": of(Sequence, "first", lambda right, self, row, w: right(self, row, w - bool(w))),
    "windows everywhere": of(Sequence, "first", lambda right, self, row, w: right(self, row, 24)),
}  # fmt: skip


def test_without_a_mutant_all_is_well(ops, decoder, expected):
    assert distance(score(ops, decoder, Sequence(ids_of(ROWS))), expected) <= TOLERANCE


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(monkeypatch, ops, decoder, expected, mutant):
    wrong = MUTANTS[mutant](monkeypatch, decoder)
    assert distance(score(ops, wrong, Sequence(ids_of(ROWS))), expected) > TOLERANCE
