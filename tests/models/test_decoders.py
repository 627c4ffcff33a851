"""Every decoder family against transformers' class with the same float32 weights, and float32 pages."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

from by_hand import Bench, Sequence, chunks_of, distance, open_decoder, score  # noqa: E402
from checkpoints import CHECKPOINTS, VOCABULARY  # noqa: E402

import opsin  # noqa: E402

TOLERANCE = 1e-4
ROWS = 150  # more than two pages, and many windows


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(7, VOCABULARY, count).tolist()


@pytest.fixture(scope="module", params=CHECKPOINTS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def truth(family):
    return checkpoints.make(family)


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.fixture(scope="module")
def path(family, truth, tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp(family) / "tiny.gguf", family, truth)


@pytest.fixture(scope="module")
def decoder(ops, path):
    return open_decoder(ops, path)


@pytest.fixture(scope="module")
def expected(truth):
    return checkpoints.logits(truth, ids_of(ROWS))


@pytest.mark.parametrize("size", [ROWS, 64, 37], ids=["whole", "pages", "odd chunks"])
def test_logits_equal_transformers(ops, decoder, expected, size):
    assert distance(score(ops, decoder, Sequence(ids_of(ROWS)), chunks_of(ROWS, size)), expected) <= TOLERANCE


def test_rows_of_which_nobody_wants_logits_end_in_the_last_layer(ops, decoder):
    """And change nothing of the others', which are those of all rows to the bit."""
    sequences, parts, rows = [Sequence(ids_of(20, 1)), Sequence(ids_of(ROWS))], [(0, 0, 20), (1, 0, ROWS)], {}
    whole = Bench(ops, decoder, sequences).step(parts)

    def tap(name, x):
        rows[name] = x.shape[0]
        return x

    some = Bench(ops, decoder, sequences).step(parts, outputs=[3, 19 + ROWS], tap=tap)
    assert np.array_equal(some, whole[[3, 19 + ROWS]])
    layers = [count for name, count in rows.items() if name.endswith(".out")]
    assert layers[-1] == 2
    assert set(layers[:-1]) <= {2, 20 + ROWS}


def test_rows_one_by_one_equal_transformers(ops, decoder, expected):
    """The first ones, and those around a page's end."""
    alone = [(0, 1), (1, 2), (2, 3), (3, 110), *((row, row + 1) for row in range(110, ROWS))]
    assert distance(score(ops, decoder, Sequence(ids_of(ROWS)), alone), expected) <= TOLERANCE


def test_attention_is_peaked(truth):
    weights = checkpoints.run(truth, ids_of(ROWS), output_attentions=True).attentions
    assert np.mean([float(w[..., 100:, :].amax(-1).mean()) for w in weights]) > 0.2


def test_sequences_of_a_batch_do_not_see_each_other(ops, decoder, truth, expected):
    """One sequence decodes, one goes on with its prompt, one begins."""
    others = [ids_of(70, 1), ids_of(5, 2)]
    bench = Bench(ops, decoder, [Sequence(ids_of(ROWS)), *map(Sequence, others)])
    ours = [bench.step([(0, 0, 100), (1, 0, 69)])]
    ours.append(bench.step([(0, 100, 149), (1, 69, 70), (2, 0, 5)]))
    ours.append(bench.step([(0, 149, 150)]))
    first = np.concatenate([ours[0][:100], ours[1][:49], ours[2]])
    second = np.concatenate([ours[0][100:], ours[1][49:50]])
    assert distance(first, expected) <= TOLERANCE
    assert distance(second, checkpoints.logits(truth, others[0])) <= TOLERANCE
    assert distance(ours[1][50:], checkpoints.logits(truth, others[1])) <= TOLERANCE


def test_recorded_programs_and_traces_equal_transformers(path, expected):
    with opsin.load(path, threads=2, pages="f32") as model:
        assert distance(model.logits(ids_of(ROWS)), expected) <= TOLERANCE
        traced = model.trace(ids_of(ROWS), ["logits", "blk.*.attn.sum"])
    assert distance(traced["logits"], expected) <= TOLERANCE
    assert len(traced) > 2


def test_a_row_has_the_same_bits_in_any_chunks_and_company(ops, decoder):
    """Past the place where sums over keys are cut, with windows that lie on both sides of it."""
    ids = ids_of(600, 4)
    whole = score(ops, decoder, Sequence(ids))
    assert np.array_equal(score(ops, decoder, Sequence(ids), [(0, 500), (500, 531), (531, 599), (599, 600)]), whole)
    bench = Bench(ops, decoder, [Sequence(ids_of(90, 5)), Sequence(ids)])
    first = bench.step([(0, 0, 64), (1, 0, 512)])[64:]
    assert np.array_equal(np.concatenate([first, bench.step([(1, 512, 600), (0, 64, 90)])[:88]]), whole)


def test_output_of_its_own_equals_transformers(ops, family, tmp_path):
    truth = checkpoints.make(family, tied=False)
    decoder = open_decoder(ops, checkpoints.save(tmp_path / "untied.gguf", family, truth))
    theirs = checkpoints.logits(truth, ids_of(20))
    assert distance(score(ops, decoder, Sequence(ids_of(20))), theirs) <= TOLERANCE


def test_width_and_vocabulary_are_those_of_the_embeddings(decoder):
    assert (decoder.width, decoder.vocabulary) == (checkpoints.WIDTH, VOCABULARY)
