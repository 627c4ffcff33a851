"""What answers cost and how they ended, in OpenAI's shapes. Where a picture stood, how it was really processed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from opsin import __version__
from opsin.api import Answer, Logprobs, Times, Usage
from opsin.text import Tokenizer

FINGERPRINT = f"b0-opsin-{__version__}"  # some look for llama-server's "b" and the number of its build

_LEAST = 1e-6  # seconds


def usage_of(answers: list[Answer], choices: int = 1) -> dict[str, Any]:
    """The usage of a request: each prompt once, what was generated summed over its answers.

    Args:
        answers: those to each prompt stand together, `choices` of them.

    `pictures` and `sounds` are ours: one entry each, in the order of the prompt. A picture is never shrunk in silence.
    """
    prompts = [answer.usage for answer in answers[::choices]]
    prompt = sum(usage.prompt for usage in prompts)
    generated = sum(len(answer.ids) for answer in answers)
    details = {
        "cached_tokens": sum(u.cached for u in prompts),
        "image_tokens": sum(u.pictures for u in prompts),
        "audio_tokens": sum(u.sounds for u in prompts),
    }
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
            if p.kind == "image"
        ],
        "sounds": [
            {"part": p.name, "seconds": p.seconds, "tokens": p.rows, "notes": p.notes}
            for usage in prompts
            for p in usage.each
            if p.kind == "audio"
        ],
    }


def timings_of(usage: Usage, times: Times, count: int) -> dict[str, float]:
    """llama-server's timings of an answer of `count` tokens up to now.

    The first token comes with the prompt's last rows: its time is the prompt's, and rates leave it out. What has not
    begun took no time. What was guessed is told where anything was.
    """
    read, steps = usage.prompt - usage.cached, max(count - 1, 0)
    reading = max(times.first - times.started, _LEAST) if read else 0.0
    writing = max(times.last - times.first, _LEAST) if count else 0.0
    return {
        "cache_n": usage.cached,
        "prompt_n": read,
        "prompt_ms": 1000 * reading,
        "prompt_per_token_ms": 1000 * reading / max(read, 1),
        "prompt_per_second": read / reading if read else 0.0,
        "predicted_n": count,
        "predicted_ms": 1000 * writing,
        "predicted_per_token_ms": 1000 * writing / steps if steps else 0.0,
        "predicted_per_second": steps / writing if steps else 0.0,
        **({"draft_n": usage.guessed, "draft_n_accepted": usage.right} if usage.guessed else {}),
    }


def finish_reason(answer: Answer) -> str:
    """OpenAI's word for why an answer ended."""
    return "length" if answer.reason == "length" else "tool_calls" if answer.is_calling else "stop"


def token_entry(id: int, tokenizer: Tokenizer, *, as_ids: bool = False, begins: bool = False) -> dict[str, Any]:
    """A token's text and bytes; `as_ids`: it is called by its id, as vLLM does; `begins`: without its first space."""
    data = tokenizer.piece(id, special=True)
    data = data.removeprefix(b" ") if begins else data
    return {"id": id, "token": f"token_id:{id}" if as_ids else data.decode("utf-8", "replace"), "bytes": list(data)}


def logprobs_of(
    told: Iterable[Logprobs], tokenizer: Tokenizer, *, as_ids: bool = False, drawn: bool = False
) -> list[dict[str, Any]]:
    """The entries of tokens, as OpenAI writes them; `drawn`: as llama-server writes what was drawn from in the end."""
    name = "prob" if drawn else "logprob"

    def entry(id: int, logprob: float, begins: bool) -> dict[str, Any]:
        value = math.exp(logprob) if drawn else logprob
        return {**token_entry(id, tokenizer, as_ids=as_ids, begins=begins), name: value}

    return [
        {**entry(*token.chosen, token.begins), f"top_{name}s": [entry(*one, token.begins) for one in token.likeliest]}
        for token in told
    ]


def prompt_logprobs_of(told: Sequence[Logprobs], tokenizer: Tokenizer) -> list[dict[str, Any] | None]:
    """Those of a prompt, as vLLM writes them: by ids, and none of the first. A rank is told where it is known."""

    def entry(id: int, logprob: float, rank: int | None) -> dict[str, Any]:
        known = {} if rank is None else {"rank": rank}
        return {"logprob": logprob, **known, "decoded_token": token_entry(id, tokenizer)["token"]}

    return [
        None,
        *(
            {str(id): entry(id, p, None) for id, p in [token.chosen]}
            | {str(id): entry(id, p, rank) for rank, (id, p) in enumerate(token.likeliest, 1)}
            for token in told
        ),
    ]
