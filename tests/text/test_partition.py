"""Special tokens are found where llama.cpp finds them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.text.partition import Fragment, Partition, SpecialToken


def test_longest_token_wins_everywhere_before_the_next() -> None:
    partition = Partition([SpecialToken(1, "<a>"), SpecialToken(2, "<a><b>"), SpecialToken(3, "b><a")])
    assert partition.split("x<a><b><a>y<a>") == ["x", 2, 1, "y", 1]


def test_length_counts_in_bytes() -> None:
    partition = Partition([SpecialToken(1, "abcd"), SpecialToken(2, "d世")])
    assert partition.split("abcd世") == [1, "世"]
    assert Partition([SpecialToken(1, "abc"), SpecialToken(2, "c世")]).split("abc世") == ["ab", 2]


def test_stripping_tokens_swallow_ascii_whitespace_only() -> None:
    left = Partition([SpecialToken(1, "<m>", strip_left=True)])
    assert left.split("a \n<m> b <m>") == ["a", 1, " b", 1]
    right = Partition([SpecialToken(1, "<m>", strip_right=True)])
    assert right.split("<m> \u00a0x<m>\n") == [1, "\u00a0x", 1]


def test_text_without_special_tokens_stays_whole() -> None:
    assert Partition([SpecialToken(1, "<m>")]).split("a < m > b") == ["a < m > b"]
    assert Partition([]).split("") == []


@settings(deadline=None, max_examples=400)
@given(st.lists(st.text("ab\n", min_size=1, max_size=4), unique=True, max_size=5), st.text("ab\n", max_size=20))
def test_one_pass_finds_what_many_find(words: list[str], text: str) -> None:
    tokens = sorted((SpecialToken(id, word) for id, word in enumerate(words)), key=lambda t: (-len(t.text), t.id))
    wanted: list[Fragment] = [text] if text else []
    for token in tokens:
        parts = [part for fragment in wanted for part in cut(fragment, token)]
        wanted = [part for part in parts if part != ""]
    assert Partition(tokens).split(text) == wanted


def cut(fragment: Fragment, token: SpecialToken) -> list[Fragment]:
    if isinstance(fragment, int):
        return [fragment]
    first, *rest = fragment.split(token.text)
    return [first, *(part for text in rest for part in (token.id, text))]


def test_runs_of_one_character_are_cut_from_the_left() -> None:
    partition = Partition([SpecialToken(size, "\n" * size) for size in (1, 2, 3)])
    assert partition.split("a" + "\n" * 8 + "b\n") == ["a", 3, 3, 2, "b", 1]
