"""Prompts are canonical, and block keys say which rows of two prompts are the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsin.errors import ContextError
from opsin.spans import Features, MediaSpan, Patches, Prompt, TextSpan, block_keys, check_context, memory_keys

BLOCK = 4
texts = st.lists(st.integers(0, 5), max_size=9)
media = st.builds(
    MediaSpan, st.sampled_from([b"cat", b"dog"]), st.integers(0, 9), st.just(3), first=st.sampled_from([0, 0, 20])
)
spans = st.lists(st.one_of(texts, texts.map(tuple).map(TextSpan), media), max_size=6)


def rows_of(prompt):
    """What each row is, spelt out."""
    rows = []
    for _, span in prompt.placed():
        ids = span.ids if isinstance(span, TextSpan) else [(span.digest, span.first + i) for i in range(span.rows)]
        rows += ids
    return rows


@given(spans)
def test_a_prompt_is_canonical(given_spans):
    prompt = Prompt.of(given_spans)
    kinds = [isinstance(span, TextSpan) for span in prompt.spans]
    assert all(len(span) for span in prompt.spans)
    assert not any(a and b for a, b in zip(kinds, kinds[1:], strict=False))
    assert Prompt.of(prompt.spans) == prompt
    assert len(prompt) == len(rows_of(prompt)) == sum(len(span) for span in given_spans)


@given(spans)
def test_spans_are_placed_one_after_another(given_spans):
    end = 0
    for start, span in Prompt.of(given_spans).placed():
        assert start == end
        end += len(span)


@given(texts, st.lists(st.integers(0, 9), max_size=3))
def test_text_in_pieces_is_the_same_prompt(ids, cuts):
    places = [0, *sorted(cuts), len(ids)]
    pieces = [ids[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert Prompt.of(pieces) == Prompt.of([ids])
    assert block_keys(Prompt.of(pieces), BLOCK) == block_keys(Prompt.of([ids]), BLOCK)


@given(spans, spans)
def test_keys_are_equal_exactly_as_far_as_rows_are(first, second):
    first, second = Prompt.of(first), Prompt.of(second)
    a, b = block_keys(first, BLOCK), block_keys(second, BLOCK)
    assert len(a) == len(first) // BLOCK
    for block, (key, other) in enumerate(zip(a, b, strict=False)):
        end = BLOCK * (block + 1)
        assert (key == other) == (rows_of(first)[:end] == rows_of(second)[:end])


@given(spans, spans)
def test_what_follows_does_not_change_the_keys_before(first, more):
    keys = block_keys(Prompt.of(first), BLOCK)
    assert block_keys(Prompt.of([*first, *more]), BLOCK)[: len(keys)] == keys


def test_another_picture_differs_from_its_block_on():
    before, after = list(range(10)), list(range(20))
    cat, dog = (block_keys(Prompt.of([before, MediaSpan(name, 7, 7), after]), BLOCK) for name in (b"cat", b"dog"))
    assert cat[:2] == dog[:2]
    assert len(cat) == 9
    assert not set(cat[2:]) & set(dog[2:])


def test_the_same_picture_elsewhere_has_other_keys():
    early, late = (block_keys(Prompt.of([[1] * n, MediaSpan(b"cat", 12, 3)]), BLOCK) for n in (0, 4))
    assert not set(early) & set(late)


def test_equal_rows_at_another_place_have_other_keys():
    keys = block_keys(Prompt.of([[7] * 40]), BLOCK)
    assert len(set(keys)) == 10


def test_what_is_remembered_is_part_of_the_keys_after_it():
    def keys(*names):
        spans = [MediaSpan(name, 0, 0, memory=9) for name in names]
        return block_keys(Prompt.of([[1] * 6, *spans, [1] * 6]), BLOCK)

    assert len(keys(b"cat")) == len(keys()) == 3
    assert keys(b"cat")[0] == keys(b"dog")[0] == keys()[0]
    assert len({keys(b"cat")[1], keys(b"dog")[1], keys(b"cat", b"dog")[1], keys()[1]}) == 4
    assert len({keys(b"cat")[2], keys(b"dog")[2], keys()[2]}) == 3


def test_memory_has_a_key_a_block():
    spans = cat, dog = [MediaSpan(name, 0, 0, memory=9) for name in (b"cat", b"dog")]
    keys = [memory_keys(together, BLOCK) for together in ([cat], [dog], spans, spans[::-1])]
    assert [len(found) for found in keys] == [3, 3, 5, 5]
    assert len({key for found in keys for key in found}) == 16
    assert memory_keys([MediaSpan(b"cat", 5, 5)], BLOCK) == []


def test_text_is_not_mistaken_for_media():
    span = MediaSpan(b"\1\0\0\0", 1, 1)
    assert block_keys(Prompt.of([span]), 1) != block_keys(Prompt.of([[1]]), 1)


def test_text_that_spells_a_media_span_has_other_keys():
    spelt = [5, int.from_bytes(b"Mcat", "little"), 0, 3]
    assert block_keys(Prompt.of([spelt]), BLOCK) != block_keys(Prompt.of([[5], MediaSpan(b"cat", 3, 3)]), BLOCK)


def test_digests_of_other_lengths_do_not_run_together():
    one = [MediaSpan(b"a", 1, 1), MediaSpan(b"bc", 1, 1)]
    two = [MediaSpan(b"ab", 1, 1), MediaSpan(b"c", 1, 1)]
    assert block_keys(Prompt.of(one), 2) != block_keys(Prompt.of(two), 2)


@pytest.mark.parametrize("block", [1, 3, 64])
def test_only_full_blocks_have_keys(block):
    assert len(block_keys(Prompt.of([[1] * 130]), block)) == 130 // block


def never():
    raise AssertionError("nothing needs the pixels")


def test_the_pixels_are_not_part_of_equality():
    features = Features((4, 3), never)
    a, b = (MediaSpan(b"cat", 4, 4, features=given, size=size) for given, size in ((None, None), (features, (8, 8))))
    assert a == b
    assert hash(a) == hash(b)


def test_features_are_equal_by_their_shape():
    assert Features((4, 3), never) == Features((4, 3), lambda: None) != Features((3, 4), never)


# Pictures


def test_a_picture_knows_its_rows_grid_markers_and_sizes():
    span = MediaSpan(b"cat", 6, 3, (2, 3), size=(48, 32), area=(0, 0, 90, 40))
    picture = Patches(("<image>", span, "</image>"), ("frame 1 of 2",), original=(90, 40))
    assert picture.rows == 6
    assert picture.grid == (2, 3)
    assert picture.markers == ("<image>", "</image>")
    assert picture.spans == (span,)
    assert picture.size == (48, 32)


def test_a_picture_in_tiles_has_no_grid_and_a_size_as_a_whole():
    tiles = [MediaSpan(name, 4, 4, (2, 2), size=(8, 8)) for name in (b"left", b"right")]
    picture = Patches((tiles[0], "\n", tiles[1]), whole=(16, 8))
    assert picture.rows == 8
    assert picture.grid is None
    assert picture.size == (16, 8)


def test_rows_show_the_cells_of_the_picture_in_reading_order():
    span = MediaSpan(b"cat", 6, 3, (2, 3), area=(0, 0, 90, 40))
    assert Patches((span,)).rectangles() == [
        (0, 0, 30, 20), (30, 0, 60, 20), (60, 0, 90, 20), (0, 20, 30, 40), (30, 20, 60, 40), (60, 20, 90, 40),
    ]  # fmt: skip


def test_rows_of_a_tile_show_its_own_part():
    left = MediaSpan(b"left", 1, 1, (1, 1), area=(0, 0, 50, 40))
    right = MediaSpan(b"right", 2, 2, (2, 1), area=(50, 0, 100, 40))
    assert Patches((left, right)).rectangles() == [(0, 0, 50, 40), (50, 0, 100, 20), (50, 20, 100, 40)]


def test_rows_of_a_picture_may_be_spans_of_their_own():
    whole = MediaSpan(b"cat", 6, 6, (2, 3), size=(48, 32), area=(0, 0, 90, 40))
    first, second = whole.by_rows()
    assert [(row.first, row.rows, row.encoded, row.grid) for row in (first, second)] == [
        (0, 3, 6, (1, 3)),
        (3, 3, 6, (1, 3)),
    ]
    cut = Patches((first, "[BREAK]", second, "[END]"))
    assert cut.rectangles() == whole.rectangles()
    assert (cut.grid, cut.rows, cut.size) == (whole.grid, 6, (48, 32))
    assert first.digest == second.digest == whole.digest
    assert block_keys(Prompt.of([first]), 3) != block_keys(Prompt.of([second]), 3)


def test_the_first_rows_have_the_keys_of_the_whole():
    whole = MediaSpan(b"cat", 8, 8, (2, 4))
    assert block_keys(Prompt.of([whole.by_rows()[0]]), BLOCK) == block_keys(Prompt.of([whole]), BLOCK)[:1]


def test_without_a_grid_every_row_shows_all():
    assert MediaSpan(b"cat", 2, 2, area=(1, 2, 3, 4)).rectangles() == [(1, 2, 3, 4)] * 2


def test_a_span_without_an_area_cannot_say_what_it_shows():
    with pytest.raises(ValueError, match="which part"):
        MediaSpan(b"cat", 2, 2, (1, 2)).rectangles()


def test_a_prompt_that_fills_the_context_is_told_with_both_numbers() -> None:
    check_context(511, 512)
    for options, told in (
        ({}, "the prompt (512 tokens) exceeds the available context size (512 tokens)"),
        ({"at_least": True}, "the prompt (at least 512 tokens) exceeds the available context size (512 tokens)"),
        ({"picture": "picture 1 of 2,"}, "picture 1 of 2 (up to token 512) exceeds the available context size (512"),
        (
            {"picture": "picture 1 of 2", "at_least": True},
            "picture 1 of 2 (up to token 512 or later) exceeds",
        ),
    ):
        with pytest.raises(ContextError, match=re.escape(told)) as caught:
            check_context(512, 512, **options)  # type: ignore[arg-type]
        assert (caught.value.prompt_tokens, caught.value.context_tokens) == (512, 512)
        assert ("smaller pictures" in str(caught.value.hint)) == ("picture" in options)
