"""Paged attention against the definition: pages of every kind, windows, cut rows, scattered sequences."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FEW, Cache, close, normal

from opsin.errors import ModelError, RequestError
from opsin.ops import CHUNK, PAGE
from opsin.ops.alibi import Alibi, alibi_slopes
from opsin.ops.layout import SCALED, SHARED, page_bytes
from opsin.ops.reference import DensePages, Reference

KINDS = ("f32", "f16", "q8_0", "q4_0")
# Query heads, KV heads, width.
SHAPES = ((1, 1, 8), (6, 2, 24), (5, 1, 40), (3, 3, 72), (4, 2, 80), (2, 1, 96), (9, 3, 64), (2, 2, 128))
IN_Q8 = ((5, 1, 32), (9, 3, 64), (2, 1, 96), (2, 2, 128))
if FEW:  # widths that share one kernel a kind of page: each takes seconds to compile
    SHAPES, IN_Q8 = ((5, 1, 40), (4, 2, 80), (9, 3, 64)), IN_Q8[:2]


def attend(ops, cache: Cache, heads: int, rows, *, softcap: float = 0.0, seed: int = 0, sinks=None, alibi=None):
    """(the device's result, the definition's in float64 on the pages that the device really holds)."""
    q = 2 * normal(len(rows), heads, cache.width, seed=seed)
    pages, options = cache.fill(ops), {"scale": cache.width**-0.5, "softcap": softcap}
    sunk = None if sinks is None else ops.constant(sinks)
    falls = None if alibi is None else Alibi(*map(ops.constant, alibi))
    reads = cache.reads(ops, rows)
    got = ops.attend(ops.constant(q), pages, cache.layer, reads, sinks=sunk, alibi=falls, **options).numpy()
    reference = Reference(wide=True)
    shape = (1, cache.count, PAGE, cache.heads, cache.width)
    held = pages.rows(cache.layer, np.arange(cache.count, dtype=np.int32))
    dense = DensePages(*(part.astype(np.float64).reshape(shape) for part in held))
    sunk = None if sinks is None else reference.constant(sinks)
    there = cache.reads(reference, rows)
    falls = None if alibi is None else Alibi(*map(reference.constant, alibi))
    wanted = reference.attend(reference.constant(q), dense, 0, there, sinks=sunk, alibi=falls, **options).numpy()
    return got, wanted


def rows_of(sequence: int, lasts, first: int = 0):
    return [(sequence, first, last) for last in lasts]


@pytest.mark.parametrize(("heads", "kv", "width"), SHAPES)
@pytest.mark.parametrize("kind", KINDS[:1] if FEW else KINDS[:2])
def test_several_sequences(ops, kind, heads, kv, width):
    cache = Cache(kv, width, (150, 64, 1), kind)
    rows = [*rows_of(0, range(120, 151)), *rows_of(1, [63, 64]), *rows_of(2, [1])]
    close(*attend(ops, cache, heads, rows), 3e-6)


@pytest.mark.parametrize(("heads", "kv", "width"), IN_Q8)
@pytest.mark.parametrize("kind", KINDS[2:])
def test_pages_with_scales(ops, kind, heads, kv, width):
    cache = Cache(kv, width, (150, 70), kind)
    close(*attend(ops, cache, heads, [*rows_of(0, range(130, 151)), *rows_of(1, [70])]), 3e-6)


@pytest.mark.parametrize("last", [1, 63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("kind", KINDS[:1] if FEW else KINDS)
def test_one_row_of_any_length(ops, kind, last):
    """Long ones are cut into chunks, which several threads sum."""
    close(*attend(ops, Cache(2, 32, (last,), kind), 6, [(0, 0, last)]), 3e-6)


@pytest.mark.parametrize("first", [1, 63, 64, 100, CHUNK - 1, CHUNK, CHUNK + 70])
def test_windows(ops, first):
    cache = Cache(2, 40, (700,), "f32")
    rows = [(0, first + i, max(first + 3 * i, 640)) for i in range(9)]
    close(*attend(ops, cache, 4, rows), 3e-6)
    close(*attend(ops, cache, 4, [(0, first, 700)]), 3e-6)
    close(*attend(ops, cache, 4, [(0, first, first + 1)]), 3e-6)


def test_rows_that_see_nothing_give_zeros(ops):
    cache = Cache(2, 40, (130, 0), "f32")
    rows = [(0, 0, 0), (0, 0, 100), (0, 70, 70), (0, 130, 130), (1, 0, 0)]
    got, wanted = attend(ops, cache, 4, rows)
    close(got, wanted, 3e-6)
    assert not got[[0, 2, 3, 4]].any()
    assert got[1].any()
    assert not attend(ops, cache, 4, rows[:1])[0].any()


@pytest.mark.parametrize("kind", KINDS[:1] if FEW else KINDS)
def test_soft_caps(ops, kind):
    cache = Cache(1, 32, (200,), kind)
    for cap in (0.3, 5.0, 50.0):
        close(*attend(ops, cache, 3, rows_of(0, [1, 150, 200]), softcap=cap), 3e-6)


def test_many_query_heads_for_one_key_head(ops):
    """More than a tile's queries in one row."""
    close(*attend(ops, Cache(1, 40, (90,)), 71, rows_of(0, [80, 90])), 3e-6)


def test_more_cut_rows_than_there_is_room_for(ops):
    """Rows of sequences of their own, whose chunks are more than the slots for partial sums."""
    cache = Cache(1, 40, (40 * CHUNK,), "f32")
    rows = [(0, i, 40 * CHUNK - i) if i % 2 else (1, 0, 3) for i in range(15)]
    cache.tables = np.concatenate([cache.tables, cache.tables])
    close(*attend(ops, cache, 1, rows), 3e-6)


def test_peaked_attention_picks_the_value(ops):
    """Scores of hundreds: the running maximum has to carry them."""
    cache = Cache(1, 32, (1100,), "f32")
    cache.k[0] *= 40
    close(*attend(ops, cache, 1, rows_of(0, range(1000, 1101))), 1e-4)


def test_a_part_of_each_row_serves_as_queries_keys_and_values(ops):
    x = normal(7, 200)
    whole = ops.constant(x)
    parts = [whole[:, 3:67], whole[:, 70:102], whole[:, 110:142]]
    apart = [ops.constant(a) for a in (x[:, 3:67], x[:, 70:102], x[:, 110:142])]
    results = []
    for q, k, v in (parts, apart):
        cache = Cache(1, 32, (7,), "f32")
        pages = ops.pages(layers=2, heads=1, width=32, count=cache.count, kind="f32")
        ops.store(pages, 1, k.reshape(1, 32), v.reshape(1, 32), ops.constant(cache.slots(0)))
        reads = cache.reads(ops, rows_of(0, range(1, 8)))
        results.append(ops.attend(q.reshape(2, 32), pages, 1, reads, scale=0.2).numpy())
    np.testing.assert_array_equal(*results)


class TestPages:
    @pytest.mark.parametrize("kind", KINDS)
    def test_hold_what_was_stored_as_near_as_their_type_allows(self, ops, kind):
        cache = Cache(2, 64, (150,), kind)
        k, v = cache.fill(ops).rows(cache.layer, cache.tables[0])
        for held, given in ((k[:150], cache.k[0]), (v[:150], cache.v[0])):
            if kind in SCALED:
                groups = given.reshape(150, 2, -1, SHARED)
                step = np.abs(groups).max(-1, keepdims=True) / (127 if kind == "q8_0" else 8)
                error = np.abs(held.reshape(groups.shape) - groups)
                # Of 4 bits the largest is met, and one that is nearly as large on the other side is cut.
                cut = (kind == "q4_0") & (np.abs(groups) > 7.4 * step)
                assert (error <= np.where(cut, 1.001, 0.51 * 1.001) * step).all()
            else:
                np.testing.assert_array_equal(held, given.astype(np.float16 if kind == "f16" else np.float32))

    def test_f16_pages_round_as_f16_does(self, ops):
        """Also on CPUs that have no instruction for it."""
        edges = [0.0, -0.0, 1.0, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65519, 65520, -1e9, 2**-14, 2**-14 - 2**-26, 2**-24]
        edges += [2**-25, 3 * 2**-26, -3e-7, 1e-30, np.inf, -np.inf, np.nan, 3 * 2**-25]
        bits = np.random.default_rng(0).integers(0, 2**32, 44 * 64 - len(edges), np.uint64).astype(np.uint32)
        values = np.concatenate([np.array(edges, np.float32), bits.view(np.float32)]).reshape(-1, 1, 64)
        pages = ops.pages(layers=1, heads=1, width=64, count=1, kind="f16")
        x = ops.constant(values)
        ops.store(pages, 0, x, x, ops.constant(np.arange(len(values), dtype=np.int32)))
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = values.astype(np.float16).astype(np.float32)
        for held in pages.rows(0, np.zeros(1, np.int32)):
            np.testing.assert_array_equal(held[: len(values)], wanted)

    def test_negative_slots_are_skipped_and_the_other_layer_is_left_alone(self, ops):
        pages = ops.pages(layers=2, heads=1, width=8, count=3, kind="f32")
        for block in (pages.keys[0], pages.values[0]):
            block.address += page_bytes(8, "f32")  # so that what is written before the first page can be seen
        x = ops.constant(normal(3, 1, 8))
        ops.store(pages, 0, x, x, ops.constant(np.array([-1, 70, -5], np.int32)))
        for held in pages.rows(0, np.arange(3, dtype=np.int32)):
            assert np.flatnonzero(held.any((1, 2))).tolist() == [PAGE + 70]
        assert not pages.rows(1, np.arange(3, dtype=np.int32))[0].any()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("at", [0, 31, 40])
    def test_keep_a_nan(self, ops, kind, at):
        pages = ops.pages(layers=1, heads=1, width=64, count=1, kind=kind)
        k = normal(2, 1, 64)
        k[0, 0, at] = np.nan
        ops.store(pages, 0, ops.constant(k), ops.constant(k), ops.constant(np.arange(2, dtype=np.int32)))
        for held in pages.rows(0, np.zeros(1, np.int32)):
            assert np.isnan(held[0, 0, at])
            assert np.isfinite(held[1]).all()

    @pytest.mark.parametrize(("kind", "width", "whole"), [("q8_0", 40, 16), ("q4_0", 48, 32)])
    def test_of_scales_need_whole_groups(self, ops, kind, width, whole):
        with pytest.raises(RequestError, match=f"multiple of {whole}, not {width}"):
            ops.pages(layers=1, heads=1, width=width, count=1, kind=kind)

    def test_other_shapes_are_refused(self, ops):
        pages = ops.pages(layers=1, heads=2, width=32, count=1, kind="f32")
        x, slots = ops.constant(normal(3, 2, 31)), ops.constant(np.arange(3, dtype=np.int32))
        with pytest.raises(ModelError, match="store"):
            ops.store(pages, 0, x, x, slots)
        reads = Cache(2, 32, (3,)).reads(ops, rows_of(0, [1, 2, 3]))
        for q in (normal(3, 4, 31), normal(3, 3, 32), normal(2, 4, 32)):
            with pytest.raises(ModelError, match="attend"):
                ops.attend(ops.constant(q), pages, 0, reads, scale=1.0)


class TestNan:
    def run(self, ops, rows, *, q=None, k=None, v=None):
        cache = Cache(1, 32, (130,), "f32")
        queries = normal(len(rows), 1, 32)
        for array, place in ((queries, q), (cache.k[0], k), (cache.v[0], v)):
            if place is not None:
                array[place, 0, 3] = np.nan
        pages = cache.fill(ops)
        return ops.attend(ops.constant(queries), pages, 1, cache.reads(ops, rows), scale=0.2).numpy()

    def test_in_a_query_fills_its_row_only(self, ops):
        got = self.run(ops, rows_of(0, range(90, 100)), q=4)
        assert np.isnan(got).all((1, 2)).tolist() == [i == 4 for i in range(10)]
        assert np.isfinite(np.delete(got, 4, 0)).all()

    @pytest.mark.parametrize("place", [0, 31, 70, 98])
    def test_in_a_key_or_value_reaches_the_rows_that_see_it(self, ops, place):
        assert np.isnan(self.run(ops, [(0, 0, 99)], k=place)).all()
        assert np.isnan(self.run(ops, [(0, 0, 99)], v=place)[0, 0, 3])

    def test_in_a_key_is_not_seen_by_rows_before_it(self, ops):
        got = self.run(ops, rows_of(0, range(90, 100)), k=95)
        assert np.isnan(got).any((1, 2)).tolist() == [last > 95 for last in range(90, 100)]

    @pytest.mark.parametrize("rows", [3, 10, 40])
    def test_in_a_value_is_not_seen_by_rows_before_it(self, ops, rows):
        lasts = range(98 - rows, 98)
        got = self.run(ops, rows_of(0, lasts), v=95)
        assert np.isnan(got).any((1, 2)).tolist() == [last > 95 for last in lasts]

    @pytest.mark.parametrize("rows", [3, 10, 40])
    def test_in_a_value_is_not_seen_by_windows_after_it(self, ops, rows):
        windows = [(0, first, first + 30) for first in range(70, 70 + rows)]
        got = self.run(ops, windows, v=71)
        assert np.isnan(got).any((1, 2)).tolist() == [first <= 71 for _, first, _ in windows]

    def test_an_infinite_value_is_not_seen_by_rows_before_it(self, ops):
        cache = Cache(1, 32, (130,), "f16")
        cache.v[0][80] = np.inf
        pages = cache.fill(ops)
        q, rows = ops.constant(normal(10, 3, 32)), rows_of(0, range(76, 86))
        got = ops.attend(q, pages, 1, cache.reads(ops, rows), scale=0.2).numpy()
        assert np.isfinite(got).all((1, 2)).tolist() == [last <= 80 for _, _, last in rows]


def test_weights_and_what_they_make_are_attention_taken_apart(ops):
    cache = Cache(2, 32, (150,), "q4_0")
    pages, rows = cache.fill(ops), rows_of(0, [1, 70, 150], 0)
    q, reads = ops.constant(normal(3, 4, 32)), cache.reads(ops, rows)
    weights = ops.attention_weights(q, pages, 1, reads, scale=0.3)
    assert weights.shape == (3, 4, 150)
    np.testing.assert_allclose(weights.numpy().sum(-1), 1, atol=1e-5)
    whole = ops.attend(q, pages, 1, reads, scale=0.3).numpy()
    close(ops.apply_weights(weights, pages, 1, reads).numpy(), whole, 3e-6)


@pytest.mark.parametrize("lasts", [[1, 70, 150], list(range(100, 150)), [2 * CHUNK + 9]], ids=["few", "many", "cut"])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_sinks_take_their_share_of_each_head(ops, lasts, softcap):
    """Small ones and such as hide all keys, on rows whose keys are summed in one way and in the others."""
    sinks = np.array([-200, -3, 7, 4, 60, 300], np.float32)
    cache = Cache(2, 24, (2 * CHUNK + 10,))
    got, wanted = attend(ops, cache, 6, rows_of(0, lasts), softcap=softcap, sinks=sinks)
    close(got, wanted, 3e-6)
    assert np.abs(got[:, 5]).max() < 1e-9 < np.abs(got[:, 0]).max()
    plain, _ = attend(ops, cache, 6, rows_of(0, lasts), softcap=softcap)
    np.testing.assert_array_equal(got[:, 0], plain[:, 0])  # a sink of no weight changes no bit
    assert np.abs(got[:, 2] - plain[:, 2]).max() > 1e-3 * np.abs(plain).max()


def test_a_row_that_sees_nothing_gets_zeros_whatever_its_sinks(ops):
    got, _ = attend(ops, Cache(1, 24, (70,)), 2, [(0, 5, 5), (0, 0, 70)], sinks=np.array([9, -9], np.float32))
    assert not got[0].any() and got[1].any()


def test_sinks_of_other_heads_are_refused(ops):
    with pytest.raises(ModelError, match="sinks"):
        attend(ops, Cache(1, 24, (70,)), 2, [(0, 0, 70)], sinks=np.zeros(3, np.float32))


@pytest.mark.parametrize("places", [[0, 69, 149], list(range(0, 150, 3)), [CHUNK + 9]], ids=["few", "many", "cut"])
@pytest.mark.parametrize("sunk", [False, True])
def test_scores_fall_with_the_distance_on_both_sides(ops, places, sunk):
    """Rows that see what is ahead, one by one, in panels and cut for the threads."""
    length = 2 * CHUNK + 10 if len(places) == 1 else 150
    cache, slopes = Cache(2, 24, (length,)), alibi_slopes(6)
    rows, sinks = rows_of(0, [length] * len(places)), np.full(6, 3, np.float32) if sunk else None
    alibi = slopes, np.int32(places)
    got, wanted = attend(ops, cache, 6, rows, sinks=sinks, alibi=alibi)
    close(got, wanted, 3e-6)
    plain, _ = attend(ops, cache, 6, rows, sinks=sinks)
    assert (np.abs(got - plain).max(axis=(0, 2)) > 1e-3 * np.abs(plain).max()).all()
    flat, _ = attend(ops, cache, 6, rows, sinks=sinks, alibi=(0 * slopes, alibi[1]))
    np.testing.assert_array_equal(flat, plain)  # slopes of nothing change no bit


def test_slopes_of_other_heads_or_rows_and_of_bounded_scores_are_refused(ops):
    cache, rows = Cache(1, 24, (70,)), [(0, 0, 70)]
    for heads, places in ((3, [0]), (2, [0, 1])):
        with pytest.raises(ModelError, match="slopes"):
            attend(ops, cache, 2, rows, alibi=(np.zeros(heads, np.float32), np.int32(places)))
    with pytest.raises(ModelError, match="bounded"):
        attend(ops, cache, 2, rows, softcap=2.0, alibi=(np.zeros(2, np.float32), np.int32([0])))


@pytest.mark.parametrize("heads", [1, 6, 8, 12, 20])
def test_slopes_are_those_of_the_paper(heads):
    """Written down another way: a power by recursion, as the authors have it."""

    def slopes(n):
        if n & (n - 1) == 0:
            return [2 ** (-8 / n * (i + 1)) for i in range(n)]
        less = 1 << (n.bit_length() - 1)
        return slopes(less) + slopes(2 * less)[0::2][: n - less]

    np.testing.assert_allclose(alibi_slopes(heads), slopes(heads), rtol=1e-6)
