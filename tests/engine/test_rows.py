"""Rows of prompts: their positions and what they see, beside a definition that takes them one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opsin.engine.rows import PromptRows
from opsin.engine.sampling import Sampling
from opsin.engine.sequence import Sequence
from opsin.ops import PAGE
from opsin.spans import MediaSpan, Prompt, TextSpan, block_keys

GENERATED = 7


@st.composite
def pictures(draw, most=4):
    high, wide = draw(st.integers(1, most)), draw(st.integers(1, most))
    grid = draw(st.sampled_from([None, (high, wide)]))
    positions = high * wide if grid is None else max(high, wide)
    digest = draw(st.sampled_from([b"cat", b"dog"]))
    return MediaSpan(digest, high * wide, positions, grid, atomic=draw(st.booleans()))


prompts = st.lists(st.one_of(st.lists(st.integers(0, 5), max_size=9), pictures()), min_size=1, max_size=6).map(
    Prompt.of
)


def spelt(prompt, axes, window):
    """(positions, first, last) of every row, and of some that are generated after them."""
    rows, now = [], 0
    for start, span in prompt.placed():
        for i in range(len(span)):
            place = start + i
            low = max(0, place - window + 1) if window else 0
            if isinstance(span, TextSpan):
                rows.append(([now + i] * axes, low, place + 1))
                continue
            at = [now + i] * axes
            if axes == 3 and span.grid:
                at = [now, now + i // span.grid[1], now + i % span.grid[1]]
            rows.append((at, low, start + span.rows if span.atomic else place + 1))
        now += len(span) if isinstance(span, TextSpan) else span.positions
    for i in range(GENERATED):
        place = len(prompt) + i
        rows.append(([now + i] * axes, max(0, place - window + 1) if window else 0, place + 1))
    return rows


@given(prompts, st.sampled_from([1, 3]), st.sampled_from([0, 1, 3, 8]), st.lists(st.integers(0, 60), max_size=4))
def test_rows_in_chunks_are_as_they_are_spelt(prompt, axes, window, cuts):
    rows, expected = PromptRows(prompt, axes), spelt(prompt, axes, window)
    count = rows.count + GENERATED
    edges = sorted({0, count, *(cut for cut in cuts if cut < count)})
    for start, end in zip(edges, edges[1:], strict=False):
        places = np.arange(start, end, dtype=np.int32)
        positions = rows.positions(start, places)
        if positions.ndim == 1:
            positions = positions[:, None].repeat(axes, axis=1)
        first, last = rows.first(places, window), rows.last(start, places)
        found = list(zip(positions.tolist(), first.tolist(), last.tolist(), strict=True))
        assert found == expected[start:end]
        assert {positions.dtype, first.dtype, last.dtype} == {np.dtype(np.int32)}


@given(prompts, st.sampled_from([1, 3]))
def test_a_generated_row_has_one_position_on_all_axes(prompt, axes):
    rows, expected = PromptRows(prompt, axes), spelt(prompt, axes, 0)
    for place in range(rows.count, rows.count + GENERATED):
        assert [rows.position(place)] * axes == expected[place][0]


def test_a_grid_moves_positions_by_its_longer_side():
    prompt = Prompt.of([[7, 7], MediaSpan(b"cat", 6, 3, (2, 3)), [8]])
    rows = PromptRows(prompt, 3)
    positions = rows.positions(0, np.arange(10, dtype=np.int32)).tolist()
    assert positions == [
        [0, 0, 0], [1, 1, 1], [2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4], [5, 5, 5], [6, 6, 6],
    ]  # fmt: skip


def test_media_has_the_id_0_in_its_rows():
    assert PromptRows(Prompt.of([[5], MediaSpan(b"cat", 3, 3), [6]])).ids == [5, 0, 0, 0, 6]


@given(prompts, st.integers(0, 3))
def test_media_from_a_row_on(prompt, row):
    rows = PromptRows(prompt)
    left = [(start, span) for start, span in prompt.placed() if isinstance(span, MediaSpan) and start + len(span) > row]
    assert [(placed.start, placed.span) for placed in rows.media_from(row)] == left


memories = st.builds(
    lambda digest, rows, marker: MediaSpan(digest, 0, 0, memory=rows, marker=marker),
    st.sampled_from([b"cat", b"dog"]), st.integers(1, 150), st.integers(0, 2),
)  # fmt: skip
texts = st.lists(st.integers(0, 2), min_size=1, max_size=90)


@given(st.lists(st.one_of(texts, memories), min_size=1, max_size=6).map(Prompt.of))
def test_rows_remember_the_media_before_them(prompt):
    rows = PromptRows(prompt)
    expected, page, now, group, reach, since = [], 0, (0, 0), [], -1, -1
    for start, span in prompt.placed():
        if isinstance(span, MediaSpan):
            group = [*group, span.memory] if start <= reach else [span.memory]
            if start == since:  # nobody remembers what stood there without it
                page = now[0] // PAGE
            now = (page * PAGE, page * PAGE + sum(group))
            page += -(-sum(group) // PAGE)
            reach, since = start + span.marker, start
        expected += [now] * len(span)
    expected += [now] * GENERATED
    first, last = rows.remembered(np.arange(rows.count + GENERATED, dtype=np.int32))
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == expected
    assert rows.memory_pages == page


@given(st.lists(st.one_of(texts, pictures(14), memories), max_size=6), st.data())
def test_keys_of_a_growing_sequence_are_those_of_all_its_rows(spans, data):
    sequence = Sequence(Prompt.of([*spans, [1]]), Sampling(), frozenset())
    generated = data.draw(st.lists(st.integers(0, 2), max_size=200))
    for id in generated:
        sequence.accept(id, 10_000)
        if data.draw(st.booleans()):
            sequence.keys(sequence.known // PAGE)
    assert sequence.keys(sequence.known // PAGE) == block_keys(Prompt.of([*spans, [1, *generated]]), PAGE)
