"""What is asked of a picture: read, checked, put together, and turned into sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsin.errors import RequestError
from opsin.media.budget import LOW_TOKENS, MOST, USUAL, WORDS, PictureBudget

number = st.one_of(st.none(), st.integers(1, 3000))


def budgets() -> st.SearchStrategy[PictureBudget]:
    """All that do not contradict themselves."""

    def made(detail: str, bounds: list[int | None]) -> PictureBudget:
        for i in (0, 2):
            if None not in bounds[i : i + 2]:
                bounds[i : i + 2] = sorted(bounds[i : i + 2])  # type: ignore[type-var]
        return PictureBudget(detail, *bounds)  # type: ignore[arg-type]

    return st.builds(made, st.sampled_from(["low", "high", "auto"]), st.lists(number, min_size=4, max_size=4))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"detail": "medium"}, "detail: 'medium' is not known (give low, high, auto)"),
        ({"detail": 5}, "detail: 5 is not known"),
        ({"detail": []}, "detail: [] is not known"),
        *(
            ({word: value}, f"{word}: {value!r} is out of range (give a whole number from 1 to {MOST})")
            for word in WORDS[1:]
            for value in (0, -1, True, 2.0, "7", MOST + 1)
        ),
        ({"min_pixels": 5, "max_pixels": 4}, "min_pixels: 5 is more than max_pixels, 4"),
        ({"min_image_tokens": 5, "max_image_tokens": 4}, "min_image_tokens: 5 is more than max_image_tokens, 4"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(words: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        PictureBudget(**words)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said) and caught.value.hint and caught.value.status == 400
    with pytest.raises(RequestError) as caught:
        PictureBudget.read({"url": "...", **words}, "messages[0].content[1]")
    assert str(caught.value).startswith(f"messages[0].content[1].{said}")


def test_an_object_is_read_by_our_words_and_none_means_absent() -> None:
    given = {"detail": None, "max_pixels": 7, "url": "x", "min_pixels": None, "other": 5}
    assert PictureBudget.read(given, "here") == PictureBudget(max_pixels=7)
    assert PictureBudget.read({}, "here") == USUAL


def test_of_two_the_inner_says_more_and_the_smaller_most_holds() -> None:
    server = PictureBudget("low", min_image_tokens=64, max_image_tokens=256)
    assert USUAL.within(server) == server.within(USUAL) == server
    assert PictureBudget("high").within(server).detail == "high"
    assert PictureBudget(max_image_tokens=1000).within(server).max_image_tokens == 256
    assert PictureBudget(max_image_tokens=10).within(server) == PictureBudget("low", None, None, 10, 10)
    assert PictureBudget(min_image_tokens=1000).within(server).min_image_tokens == 256
    assert PictureBudget(min_image_tokens=7).within(server).min_image_tokens == 7


@given(budgets(), budgets())
def test_two_together_never_contradict_each_other(inner: PictureBudget, outer: PictureBudget) -> None:
    both = inner.within(outer)
    for what in ("pixels", "image_tokens"):
        mosts = [most for budget in (inner, outer) if (most := getattr(budget, f"max_{what}")) is not None]
        assert getattr(both, f"max_{what}") == min(mosts, default=None)
    assert both.within(outer) == both


@given(budgets(), st.integers(1, 40), st.integers(1, 500), st.integers(0, 2000), st.integers(0, 2000))
def test_bounds_of_pixels(budget: PictureBudget, token: int, least: int, more: int, above: int) -> None:
    most, ceiling = least + more, least + more + above
    low, high = budget.pixels(token, least, most, ceiling=ceiling)
    assert 1 <= low <= high <= ceiling
    if budget == USUAL:
        assert (low, high) == (least, most)
    if budget.max_pixels is not None:
        assert high <= budget.max_pixels
    if budget.max_image_tokens is not None:
        assert high <= budget.max_image_tokens * token
    if budget.detail == "low":
        assert high <= min(LOW_TOKENS * token, most)
    elif budget.max_pixels is None and budget.max_image_tokens is None and budget.min_image_tokens is None:
        assert (low, high) == (min(budget.min_pixels or least, ceiling), max(most, min(low, ceiling)))


def test_ways_are_tried_from_the_finest() -> None:
    def cost(way: int) -> tuple[tuple[int, int], int]:
        return (way, way), way * 10

    ways = (4, 3, 2, 1)
    assert USUAL.choose(ways, cost) == PictureBudget("high").choose(ways, cost) == 4
    assert PictureBudget(max_pixels=9).choose(ways, cost) == PictureBudget(max_image_tokens=39).choose(ways, cost) == 3
    assert PictureBudget("low").choose(ways, cost) == PictureBudget(max_image_tokens=5).choose(ways, cost) == 1
    assert PictureBudget("low").in_tokens().choose((400, 26, 25, 3), cost) == 25
    assert PictureBudget(min_pixels=3, max_pixels=9).in_tokens() == PictureBudget(min_pixels=3, max_pixels=9)


def test_what_was_not_met_is_told() -> None:
    budget = PictureBudget("low", 100, 400, 10, 20)
    assert list(budget.unmet((20, 20), 20)) == list(budget.unmet((10, 10), 10)) == list(USUAL.unmet((1, 1), 1)) == []
    assert list(budget.unmet((21, 20), 21)) == [
        "max_pixels is 400: it takes 21 x 20 pixels", "max_image_tokens is 20: it takes 21 tokens"
    ]  # fmt: skip
    assert list(budget.unmet((9, 11), 9)) == [
        "min_pixels is 100: it takes 9 x 11 pixels", "min_image_tokens is 10: it takes 9 tokens"
    ]  # fmt: skip
    assert list(budget.unmet(None, 15)) == []
