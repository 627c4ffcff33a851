"""What answers cost and how they ended, in OpenAI's shapes. Where a picture stood, how it was really processed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsin import __version__
from opsin.api import Answer, Sampling, Usage
from opsin.text import Tokenizer

FINGERPRINT = f"opsin-{__version__}"


def usage_of(answers: list[Answer], choices: int = 1) -> dict[str, Any]:
    """The usage of a request: each prompt once, what was generated summed over its answers.

    Args:
        answers: those to each prompt stand together, `choices` of them.

    `pictures` is ours: one entry a picture, in the order of the prompt. A picture is never shrunk in silence.
    """
    prompts = [answer.usage for answer in answers[::choices]]
    prompt = sum(usage.prompt for usage in prompts)
    generated = sum(len(answer.ids) for answer in answers)
    details = {"cached_tokens": sum(u.cached for u in prompts), "image_tokens": sum(u.pictures for u in prompts)}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": details,
        "pictures": [
            {
                "part": p.name,
                "original": p.original,
                "size": p.size,
                "area": p.area,
                "tokens": p.rows,
                "notes": p.notes,
            }  # fmt: skip
            for usage in prompts
            for p in usage.each
        ],
    }


def timings_of(usage: Usage, first: float, whole: float) -> dict[str, float]:
    """llama-server's timings of an answer whose first text came after `first` of `whole` seconds."""
    read, wrote = usage.prompt - usage.cached, usage.answer
    writing = max(whole - first, 0.0)
    return {
        "cache_n": usage.cached,
        "prompt_n": read,
        "prompt_ms": 1000 * first,
        "prompt_per_token_ms": 1000 * first / max(read, 1),
        "prompt_per_second": read / first if first else 0.0,
        "predicted_n": wrote,
        "predicted_ms": 1000 * writing,
        "predicted_per_token_ms": 1000 * writing / max(wrote, 1),
        "predicted_per_second": wrote / writing if writing else 0.0,
    }


def settings_of(sampling: Sampling, stop: Sequence[str], *, stream: bool) -> dict[str, Any]:
    """llama-server's generation_settings, those that there are here."""
    most = -1 if sampling.max_tokens is None else sampling.max_tokens
    return {
        "seed": -1 if sampling.seed is None else sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "stop": list(stop),
        "max_tokens": most,
        "n_predict": most,
        "ignore_eos": sampling.ignore_eos,
        "stream": stream,
        "n_probs": sampling.logprobs or 0,
        "samplers": ["top_k", "temperature", "min_p", "top_p"],
    }


def finish_reason(answer: Answer) -> str:
    """OpenAI's word for why an answer ended."""
    return "length" if answer.reason == "length" else "stop"


def logprobs_of(answer: Answer, start: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The entries of an answer's tokens from `start` on, as OpenAI writes them."""

    def entry(id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.piece(id, special=True)
        return {"id": id, "token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}

    told = answer.logprobs[start:]
    return [
        {**entry(*token.chosen), "top_logprobs": [entry(id, logprob) for id, logprob in token.likeliest]}
        for token in told
    ]
