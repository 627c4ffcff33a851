"""What answers cost and how they ended, in OpenAI's shapes. Where a picture stood, how it was really processed."""

from __future__ import annotations

from typing import Any

from opsin.api import Answer
from opsin.text import Tokenizer


def usage_of(answers: list[Answer]) -> dict[str, Any]:
    """The usage of a request: its prompt once, what was generated summed over its answers.

    `pictures` is ours: one entry a picture, in the order of the prompt. A picture is never shrunk in silence.
    """
    usage = answers[0].usage
    generated = sum(len(answer.ids) for answer in answers)
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": generated,
        "total_tokens": usage.prompt + generated,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "image_tokens": usage.pictures},
        "pictures": [
            {"part": p.name, "original": p.original, "size": p.size, "tokens": p.rows, "notes": p.notes}
            for p in usage.each
        ],
    }


def finish_reason(answer: Answer) -> str:
    """OpenAI's word for why an answer ended."""
    return "length" if answer.reason == "length" else "stop"


def logprobs_of(answer: Answer, start: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The entries of an answer's tokens from `start` on, as OpenAI writes them."""

    def entry(id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.piece(id, special=True)
        return {"token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}

    told = answer.logprobs[start:]
    return [
        {**entry(*token.chosen), "top_logprobs": [entry(id, logprob) for id, logprob in token.likeliest]}
        for token in told
    ]
