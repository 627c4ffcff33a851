"""A tiny random llama in the place of the one that llama-server's tests use: 512 SentencePiece tokens, 5 layers.

It says words in no order, never ends by itself, and starts in a moment. Bytes and control tokens have a logit of zero
among logits of some size, so that they are never drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.gguf import NewTensor, Typed, ValueType, write

WORDS = """
the and was to a she he it they in on of one day little girl boy named Lily Tom had big tree park play saw said mom dad
cat dog happy sad friend friends loved house red blue sun went home with his her for that very not you but so upon time
there is are small bird ball toy sky water flower found want wanted good fun look smiled then
"""
CONTROL, BYTE, NORMAL, UNKNOWN = 3, 6, 1, 2
FIM = ("pre", "suf", "mid", "rep", "sep")
WIDTH, LAYERS, HEADS, KV_HEADS, FFN, SIZE = 64, 5, 8, 4, 172, 512
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_stories(path: Path, *, infills: bool = False) -> None:
    """Write the model; with `infills` the file names tokens for that."""
    texts, kinds = vocabulary()
    metadata: dict[str, object] = {
        "general.architecture": "llama", "general.name": "random stories", "llama.block_count": LAYERS,
        "llama.context_length": 8192, "llama.embedding_length": WIDTH, "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": SIZE, "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": Typed(ValueType.FLOAT32, [-float(place) for place in range(SIZE)]),
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": CHATML,
    }  # fmt: skip
    if infills:
        metadata |= {f"tokenizer.ggml.fim_{name}_token_id": SIZE - len(FIM) + i for i, name in enumerate(FIM)}
    write(path, metadata, tensors(kinds))  # type: ignore[arg-type]


def vocabulary() -> tuple[list[str], list[int]]:
    """Texts and kinds: unknown, ends, bytes, letters, beginnings of words, tokens for infilling."""
    special = ["<unk>", "<s>", "</s>"]
    made = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["\u2581", *map(chr, range(33, 127))]
    starts = dict.fromkeys(("\u2581" + word)[:end] for end in range(2, 9) for word in WORDS.split())
    fim = [f"<fim_{name}>" for name in FIM]
    room = SIZE - len(special) - len(made) - len(letters) - len(fim)
    normal = [*letters, *list(starts)[:room]]
    texts = [*special, *made, *normal, *fim]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(normal), *[CONTROL] * len(fim)]
    if len(texts) != SIZE:
        raise ValueError(f"{len(texts)} tokens, not {SIZE}")
    return texts, kinds


def tensors(kinds: list[int]) -> list[NewTensor]:
    """Random weights under GGUF's names, [outputs, inputs]."""
    random = np.random.default_rng(0)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> NDArray[np.float32]:
        return (random.standard_normal((outputs, inputs)) * gain * inputs**-0.5).astype(np.float32)

    spoken = np.asarray(kinds) == NORMAL
    made = {"token_embd.weight": matrix(SIZE, WIDTH, 8.0), "output_norm.weight": np.ones(WIDTH, np.float32),
            "output.weight": matrix(SIZE, WIDTH, 2.0) * spoken[:, None].astype(np.float32)}  # fmt: skip
    kv = WIDTH // HEADS * KV_HEADS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (kv, WIDTH), "attn_v": (kv, WIDTH), "attn_output": (WIDTH, WIDTH),
              "ffn_gate": (FFN, WIDTH), "ffn_up": (FFN, WIDTH), "ffn_down": (WIDTH, FFN)}  # fmt: skip
    for layer in range(LAYERS):
        made |= {f"blk.{layer}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        made |= {f"blk.{layer}.{name}.weight": np.ones(WIDTH, np.float32) for name in ("attn_norm", "ffn_norm")}
    return [NewTensor.of(name, value) for name, value in made.items()]
