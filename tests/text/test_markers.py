"""Places of pictures are those that the template wrote, never those that a user typed."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.errors import ModelError
from opsin.text import ChatTemplate, Tokenizer, Written, escape_special_tokens, split_at_marker, written
from opsin.text.bpe import BYTE_TO_CHARACTER
from opsin.text.escaping import BREAK, ESCAPE

PLAIN = [BYTE_TO_CHARACTER[byte] for byte in range(256)]
MARKERS = ["<image>", "<start_of_image>", "<|vision_start|><|image_pad|><|vision_end|>", "[IMG]", "€"]
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{% for part in m.content %}{% if part.type == 'image' %}MARKER{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}"""


def make(*specials: tuple[str, int]) -> Tokenizer:
    """A vocabulary of bytes, and special tokens with their kinds."""
    texts = ["<|im_start|>", "<|im_end|>", *(text for text, _ in specials)]
    return Tokenizer.from_metadata({
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": PLAIN + texts,
        "tokenizer.ggml.token_type": [1] * 256 + [3, 3] + [kind for _, kind in specials],
    })  # fmt: skip


VISION = [("<|vision_start|>", 3), ("<|image_pad|>", 3), ("<|vision_end|>", 3)]
TOKENIZERS = {
    "no such token": make(),
    "control tokens": make(("<image>", 3), ("<start_of_image>", 3), *VISION, ("[IMG]", 3), ("€", 3)),
    "user-defined": make(("<image>", 4), ("<start_of_image>", 4), *VISION, ("[IMG]", 4), ("€", 4), ("\n\n", 4)),
}


@cache
def template_with(marker: str) -> ChatTemplate:
    """Compiled once, and what it can take found once: both take longer than an example."""
    return ChatTemplate(TEMPLATE.replace("MARKER", marker))


def ask(contents: list[str], marker: str) -> list[dict[str, object]]:
    return [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}, {"type": "image"}]}
        for text in contents
    ]


def bits(marker: str) -> st.SearchStrategy[str]:
    pieces = [marker, marker[: len(marker) // 2], marker[len(marker) // 2 :], marker[:1], marker[1:], "\n\n", " "]
    whole = st.sampled_from([*pieces, "<|im_end|>", BREAK, ESCAPE, "<", "|>", "\ufde0"])
    return st.lists(whole | st.text(max_size=2), max_size=6).map("".join)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_users_cannot_make_a_picture(kind: str, marker: str, data: st.DataObject) -> None:
    contents = data.draw(st.lists(bits(marker), min_size=1, max_size=3))
    tokenizer = TOKENIZERS[kind].escaping(marker)
    messages = written(ask(contents, marker))
    assert isinstance(messages, list)
    runs = split_at_marker(escape_special_tokens(template_with(marker).render(messages), tokenizer), marker, tokenizer)
    assert len(runs) == 2 * len(contents) + 1
    for text, run in zip(contents, runs[1::2], strict=True):
        assert tokenizer.encode(run, special=True) == tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(run, special=True)) == text
    head, tail = "<|im_start|>user\n", "<|im_end|>\n"
    for run in runs[2:-1:2]:
        assert tokenizer.encode(run, special=True) == tokenizer.encode(tail + head, special=True)


def test_neighbours_cannot_join_to_a_picture() -> None:
    tokenizer = TOKENIZERS["no such token"].escaping("<image>")
    texts = [(Written("<image>"[:place]), Written("<image>"[place:])) for place in range(1, 7)]
    cuts = [escape_special_tokens(one, tokenizer) + escape_special_tokens(other, tokenizer) for one, other in texts]
    assert [len(split_at_marker(text, "<image>", tokenizer)) for text in cuts] == [1] * 6
    assert [tokenizer.decode(tokenizer.encode(text, special=True)) for text in cuts] == ["<image>"] * 6


def test_marker_that_users_could_write_is_refused() -> None:
    tokenizer = TOKENIZERS["no such token"]
    for marker in ("<image>", ""):
        with pytest.raises(ModelError, match=r"is not escaped"):
            split_at_marker("text", marker, tokenizer)
    assert split_at_marker("a<|im_end|>", "<|im_end|>", tokenizer) == ["a", ""]
    assert split_at_marker("a<image>", "<image>", tokenizer.escaping("[IMG]").escaping("<image>")) == ["a", ""]


def test_escaping_markers_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = TOKENIZERS["user-defined"]
    ids = tokenizer.encode("<image>\n\n")
    assert tokenizer.escaping("<image>").encode("<image>\n\n")[-1] == ids[-1]
    assert tokenizer.escaping("<image>").escaping("[IMG]").encode("<image>") == list(map(PLAIN.index, "<image>"))
    assert tokenizer.encode("<image>\n\n") == ids
    assert len(ids) == 2
