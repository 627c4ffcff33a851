"""Counters of a server, written as Prometheus reads them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "requests_total": "Requests for answers that were taken in",
    "requests_failed_total": "Requests for answers that ended with an error",
    "requests_cancelled_total": "Requests for answers whose client went away",
    "prompt_tokens_total": "Rows of prompts",
    "cached_tokens_total": "Rows of prompts that the prefix cache held",
    "media_tokens_total": "Rows of prompts that came from pictures",
    "generated_tokens_total": "Tokens that were generated",
    "first_token_seconds_total": "Time to the first text of answers, summed",
    "generating_seconds_total": "Time from the first text to the end of answers, summed",
    "answer_seconds_total": "Time of whole answers, summed",
}
# The same under the names that dashboards for llama-server read.
_THEIR_PREFIX = "llamacpp:"
_THEIRS = {
    "prompt_tokens_total": "prompt_tokens_total",
    "prompt_tokens_cached_total": "cached_tokens_total",
    "prompt_seconds_total": "first_token_seconds_total",
    "tokens_predicted_total": "generated_tokens_total",
    "tokens_predicted_seconds_total": "generating_seconds_total",
    "requests_processing": "requests_processing",
    "requests_deferred": "requests_deferred",
}


@dataclass
class Metrics:
    """Sums since the start. Any thread may count."""

    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_HELP, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, name: str, amount: float = 1.0) -> None:
        with self._lock:
            self.counts[name] += amount

    def text(self, gauges: dict[str, float]) -> str:
        """All counters, and gauges as they are now."""
        with self._lock:
            counts = dict(self.counts)
        lines: list[str] = []
        for name, value in counts.items():
            lines += [
                f"# HELP opsin_{name} {_HELP[name]}",
                f"# TYPE opsin_{name} counter",
                f"opsin_{name} {value:.10g}",
            ]
        for name, value in gauges.items():
            lines += [f"# TYPE opsin_{name} gauge", f"opsin_{name} {value:.10g}"]
        for name, ours in _THEIRS.items():
            kind, value = ("gauge", gauges[ours]) if ours in gauges else ("counter", counts[ours])
            lines += [f"# TYPE {_THEIR_PREFIX}{name} {kind}", f"{_THEIR_PREFIX}{name} {value:.10g}"]
        return "\n".join(lines) + "\n"
