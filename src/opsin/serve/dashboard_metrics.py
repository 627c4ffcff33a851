"""llama-server's metrics, under its names and with its meanings, so that dashboards made for it go on.

Rates differ: they are those of the last minute, where there they are since the last scrape, so that two scrapers do not
disturb each other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

MINUTE: Final = 60.0
COUNTED_MAXIMUM: Final = "llamacpp:n_tokens_max"  # llama-server calls it a counter


@dataclass
class Rate:
    """Work of the last minute, in units a second. `clock` gives seconds."""

    clock: Callable[[], float] = time.monotonic
    _done: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=1 << 14))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, amount: float, seconds: float) -> None:
        """Some work, and the time that it took."""
        with self._lock:
            self._done.append((self.clock(), amount, seconds))

    def __call__(self) -> float:
        with self._lock:
            while self._done and self._done[0][0] < self.clock() - MINUTE:
                self._done.popleft()
            seconds = sum(took for _, _, took in self._done)
            return sum(amount for _, amount, _ in self._done) / seconds if seconds else 0.0


@dataclass(frozen=True)
class Totals:
    """What was done by now. `steps` are the engine's, `parts` their sequences, `guessing` those that had guesses."""

    prompt: float
    cached: float
    prompt_seconds: float
    predicted: float
    predicted_seconds: float
    steps: float
    parts: float
    guessing: float
    guessed: float
    right: float
    longest: int
    prompt_rate: float
    predicted_rate: float


def families(totals: Totals, now: Mapping[str, float]) -> Iterator[Metric]:
    """All of them."""
    counters = {
        "prompt_tokens_total": ("Tokens of prompts that were computed, without cached ones", totals.prompt),
        "prompt_tokens_cached_total": ("Tokens of prompts that the cache held", totals.cached),
        "prompt_seconds_total": ("Time in prompts", totals.prompt_seconds),
        "tokens_predicted_total": ("Tokens that were generated", totals.predicted),
        "tokens_predicted_seconds_total": ("Time in generating them", totals.predicted_seconds),
        "n_decode_total": ("Steps of the engine", totals.steps),
        "spec_decode_num_draft_tokens_total": ("Tokens that were guessed and computed", totals.guessed),
        "spec_decode_num_accepted_tokens_total": ("Guessed tokens that were right", totals.right),
        "spec_decode_num_drafts_total": ("Times that some were guessed for an answer", totals.guessing),
    }
    gauges = {
        "n_tokens_max": ("Longest sequence by now, prompt and answer", totals.longest),
        "prompt_tokens_seconds": ("Tokens of prompts a second, within a minute", totals.prompt_rate),
        "predicted_tokens_seconds": ("Generated tokens a second, within a minute", totals.predicted_rate),
        "requests_processing": ("Answers that are computed", now["requests_processing"]),
        "requests_deferred": ("Answers that wait", now["requests_deferred"]),
        "n_busy_slots_per_decode": ("Sequences of a step, on average", totals.parts / max(totals.steps, 1)),
    }
    for name, (told, value) in counters.items():
        yield CounterMetricFamily(f"llamacpp:{name}", told, value=value)
    for name, (told, value) in gauges.items():
        yield GaugeMetricFamily(f"llamacpp:{name}", told, value=value)
