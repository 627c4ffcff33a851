"""What answers cost and how they ended, in OpenAI's shapes. Where a picture stood, how it was really processed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opsin import __version__
from opsin.api import Answer, Logprobs, Sampling, Times, Usage
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
        "completion_tokens_details": {"reasoning_tokens": sum(answer.thought_tokens for answer in answers)},
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


def timings_of(usage: Usage, times: Times, count: int) -> dict[str, float]:
    """llama-server's timings of an answer of `count` tokens up to now.

    The first token comes with the prompt's last rows: its time is the prompt's, and rates leave it out.
    """
    read, steps = usage.prompt - usage.cached, max(count - 1, 0)
    reading, writing = max(times.first - times.started, 1e-6), max(times.last - times.first, 1e-6)
    return {
        "cache_n": usage.cached,
        "prompt_n": read,
        "prompt_ms": 1000 * reading,
        "prompt_per_token_ms": 1000 * reading / max(read, 1),
        "prompt_per_second": read / reading,
        "predicted_n": count,
        "predicted_ms": 1000 * writing,
        "predicted_per_token_ms": 1000 * writing / steps if steps else 0.0,
        "predicted_per_second": steps / writing,
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
    return "length" if answer.reason == "length" else "tool_calls" if answer.is_calling else "stop"


def logprobs_of(told: Iterable[Logprobs], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The entries of tokens, as OpenAI writes them."""

    def entry(id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.piece(id, special=True)
        return {"id": id, "token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}

    return [
        {**entry(*token.chosen), "top_logprobs": [entry(id, logprob) for id, logprob in token.likeliest]}
        for token in told
    ]
