"""The tokenizer and the shape of a conversation.

Whole words that the questions use are one token; every other run of letters, every digit and sign is spelled out a
character a token (the tokenizer takes a piece whole if the vocabulary has it and has but one merge, of two line
breaks). `python -m training.text` writes `vocabulary.json` anew.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

FILE = Path(__file__).parent / "vocabulary.json"
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
            "<end_of_image>", "<image_soft_token>")
PAD, EOS, BOS = 0, 1, 2
END_OF_TURN, START_OF_IMAGE, END_OF_IMAGE, SOFT = 5, 6, 7, 8
SIZE = 1024
LINE_BREAK = "\u010a"  # how byte-level tokenizers write a line break
MERGES = [(LINE_BREAK, LINE_BREAK)]
# The cutting rule that GGUF files call "llama-bpe".
CUT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
       r"\s*[\r\n]+|\s+(?!\S)|\s+")
# Pictures stand where they were put, between texts too. But a message of texts and then pictures, which is what clients
# write most, has its pictures first: it was taught so, and answers 8 of 37 questions otherwise instead of all.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% set kinds = message['content'] | map(attribute='type') | join(' ') %}"
    "{% set taught = 'image text' not in kinds %}"
    "{% for item in message['content'] if taught and item['type'] == 'image' %}<start_of_image>{% endfor %}"
    "{% for item in message['content'] %}{% if item['type'] == 'text' %}"
    "{{ ' ' if not loop.first and loop.previtem['type'] == 'text' }}{{ item['text'] | trim }}"
    "{% elif item['type'] == 'image' and not taught %}<start_of_image>{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def byte_letters() -> list[str]:
    """The 256 characters that stand for bytes in byte-level tokenizers, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def write_vocabulary(pieces: list[str]) -> None:
    """Write the list of tokens: specials, bytes, two line breaks, words, unused ones up to the fixed size."""
    space = byte_letters()[32]
    words = sorted({piece.replace(" ", space) for piece in pieces} - set(byte_letters()))
    tokens = [*SPECIALS, *byte_letters(), LINE_BREAK * 2, *words]
    if len(tokens) > SIZE:
        raise ValueError(f"{len(tokens)} tokens, but the vocabulary has {SIZE}")
    tokens += [f"<unused{number}>" for number in range(SIZE - len(tokens))]
    FILE.write_text(json.dumps(tokens, indent=0, ensure_ascii=False) + "\n")


@cache
def load_tokens() -> list[str]:
    """All tokens in the order of their ids."""
    return list(json.loads(FILE.read_text()))


@cache
def load_tokenizer() -> Tokenizer:
    """The tokenizer; it adds no token by itself."""
    vocabulary = {token: number for number, token in enumerate(load_tokens())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CUT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return tokenizer


def encode(text: str) -> list[int]:
    """Ids of a text that may hold special tokens."""
    return list(load_tokenizer().encode(text, add_special_tokens=False).ids)


def decode(ids: list[int]) -> str:
    """The text of ids, special tokens left out."""
    return str(load_tokenizer().decode(ids, skip_special_tokens=True))


def picture_text(rows: int, *, lines: bool) -> str:
    """What stands for a picture; `lines` adds the line breaks that transformers' processor adds."""
    middle = "<start_of_image>" + "<image_soft_token>" * rows + "<end_of_image>"
    return f"\n\n{middle}\n\n" if lines else middle


def render(turns: list[tuple[str, str | None]], pictures: int, rows: int, *,
           lines: bool) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and which of them the model is to say.

    Each turn is a question and its answer; a last answer of None leaves the model to speak. The pictures come first.
    """
    ids, learn = [BOS], [False]
    before = picture_text(rows, lines=lines) * pictures
    for question, answer in turns:
        asked = encode(f"<start_of_turn>user\n{before}{question}<end_of_turn>\n<start_of_turn>model\n")
        ids, learn, before = ids + asked, learn + [False] * len(asked), ""
        if answer is not None:
            said = [*encode(answer), END_OF_TURN]
            after = encode("\n")
            ids, learn = ids + said + after, learn + [True] * len(said) + [False] * len(after)
    return ids, learn


def blocks_of(ids: list[int]) -> list[int]:
    """0 for text, n in the rows of the n-th picture."""
    number, blocks = 0, []
    for token in ids:
        number += token == START_OF_IMAGE
        blocks.append(number if token == SOFT else 0)
    return blocks


def pieces_of(text: str) -> list[str]:
    """The runs of letters in a text, each with the space before it, that should be tokens; quoted ones are left out."""
    return [piece for piece in re.findall(r'"[a-z]+"| ?[A-Za-z]+', text) if '"' not in piece]


if __name__ == "__main__":
    from training.words import common_pieces

    write_vocabulary(common_pieces())
