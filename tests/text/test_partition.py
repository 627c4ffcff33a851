"""Special tokens are found where llama.cpp finds them."""

from opsin.text.partition import Partition, SpecialToken


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
