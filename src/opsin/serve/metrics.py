"""Counters and histograms of a server for Prometheus, in a registry of their own.

Names of ours begin with `opsin_`; `dashboard_metrics.py` has llama-server's. All sets of labels are bounded: routes
as they are declared, statuses, and the names of keys.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from opsin.serve.dashboard_metrics import COUNTED_MAXIMUM, Rate, Totals, families
from opsin.spans import MediaSpan, Prompt

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS: Final = {
    "requests_total": "Requests for answers that were taken in",
    "requests_failed_total": "Requests for answers that ended with an error",
    "requests_cancelled_total": "Requests for answers whose client went away",
    "prompt_tokens_total": "Tokens of prompts",
    "cached_tokens_total": "Tokens of prompts that the prefix cache held",
    "media_tokens_total": "Tokens of prompts that came from pictures",
    "generated_tokens_total": "Tokens that were generated",
    "prompt_seconds_total": "Time from the beginning of a prompt's work to the first token, summed",
    "first_token_seconds_total": "Time to the first text of answers, summed",
    "generating_seconds_total": "Time from the first to the last token of answers, summed",
    "answer_seconds_total": "Time of whole answers, summed",
}
_LONG: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
_SHORT: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_HISTOGRAMS: Final = {
    "time_to_first_token_seconds": ("From a whole request to the first token of an answer", _LONG),
    "time_between_tokens_seconds": ("From one token of an answer to the next", _SHORT),
    "queue_seconds": ("From a prompt that is ready to the beginning of its work", _LONG),
    "encode_seconds": ("Pictures that are encoded together, from the first of their work to the last", _LONG),
}
_GAUGES: Final = {
    "ready": "Whether the model is there",
    "requests_inside": "Answers that run, or wait anywhere",
    "requests_processing": "Answers that the engine computes",
    "requests_deferred": "Answers that wait",
    "pages_used": "Pages of the KV cache that somebody uses",
    "pages": "Pages of the KV cache",
    "memory_pages_used": "Pages of what sequences remember of pictures that somebody uses",
    "states_used": "Slots for recurrent states that somebody uses",
    "states": "Slots for recurrent states",
    "pictures_pinned": "Pictures whose embeddings somebody needs",
    "pictures_kept": "Pictures whose embeddings are kept",
    "pictures_read": "Pictures whose embeddings were read from disk, since the beginning",
    "pictures_encoded": "Pictures that were encoded, or parts of them, since the beginning",
    "rows_waiting": "Rows of prompts that wait to be computed",
    "leaked": "What is held while nobody is there: more than 0 is a defect",
}


@dataclass(frozen=True)
class AnswerCost:
    """What an answer took. A prompt with several answers costs its tokens once.

    Attributes:
        prompt_seconds: from the beginning of its work to its first token.
        generating_seconds: from there to its last.
    """

    prompt_tokens: int
    cached_tokens: int
    media_tokens: int
    generated_tokens: int
    prompt_seconds: float
    generating_seconds: float


class TimeHistogram(Collector):
    """Seconds up to each of `bounds`, which rise, and longer ones. The library's own takes longer for a token."""

    def __init__(self, name: str, told: str, bounds: Sequence[float]) -> None:
        self._name, self._told, self._bounds = name, told, bounds
        self._counts, self._sum, self._lock = [0] * (len(bounds) + 1), 0.0, threading.Lock()

    def observe(self, seconds: float) -> None:
        """One time."""
        place = bisect_left(self._bounds, seconds)
        with self._lock:
            self._counts[place] += 1
            self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        with self._lock:
            counts, total = [*accumulate(self._counts)], self._sum
        edges = [*map(floatToGoString, self._bounds), "+Inf"]
        yield HistogramMetricFamily(self._name, self._told, buckets=[*zip(edges, counts, strict=True)], sum_value=total)


class Metrics(Collector):
    """Sums since the start. Any thread may count.

    Args:
        look: what is so now, by the names of `_GAUGES`, and the engine's steps, the parts of all of them, and guesses.
    """

    def __init__(self, look: Callable[[], Mapping[str, float]]) -> None:
        self._look = look
        self._longest, self._prompt_rate, self._predicted_rate = 0, Rate(), Rate()
        self._counters = {name: Counter(f"opsin_{name}", told, registry=None) for name, told in _COUNTERS.items()}
        self._histograms = {
            name: TimeHistogram(f"opsin_{name}", told, buckets) for name, (told, buckets) in _HISTOGRAMS.items()
        }
        self._responses = Counter("opsin_responses_total", "Responses", ("route", "status"), registry=None)
        self._by_key = Counter(
            "opsin_key_requests_total", "Requests with a key that has a name", ("key",), registry=None
        )
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, name: str, amount: float = 1.0) -> None:
        """To a counter."""
        self._counters[name].inc(amount)

    def answered(self, cost: AnswerCost) -> None:
        """An answer is over."""
        for name, amount in asdict(cost).items():
            self.add(f"{name}_total", amount)
        computed = cost.prompt_tokens - cost.cached_tokens
        self._prompt_rate.add(computed, cost.prompt_seconds)
        self._predicted_rate.add(max(0, cost.generated_tokens - 1), cost.generating_seconds)
        self._longest = max(self._longest, cost.prompt_tokens + cost.generated_tokens)

    @contextmanager
    def reading(self, prompts: Sequence[Prompt]) -> Iterator[None]:
        """Within, prompts are read that nothing is generated from: for embeddings, or to rank them."""
        start = time.perf_counter()
        yield
        seconds = (time.perf_counter() - start) / max(1, len(prompts))
        for prompt in prompts:
            media = sum(len(span) for span in prompt.spans if isinstance(span, MediaSpan))
            self.answered(AnswerCost(len(prompt), 0, media, 0, seconds, 0.0))

    def observe(self, name: str, seconds: float) -> None:
        """A time, of a histogram."""
        self._histograms[name].observe(max(0.0, seconds))

    def respond(self, route: str, status: int, key: str) -> None:
        """A request has ended. `route` is one of the declared ones, `key` the name of one of the keys or ""."""
        self._responses.labels(route, str(status)).inc()
        if key:
            self._by_key.labels(key).inc()

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        text = generate_latest(self._registry).decode()
        name = COUNTED_MAXIMUM  # which the library would give another name
        return text.replace(f"# TYPE {name} gauge", f"# TYPE {name} counter")

    def collect(self) -> Iterator[Metric]:
        """For the registry. When a series began is left out: it would double them."""
        now = self._look()
        for made in (*self._counters.values(), *self._histograms.values(), self._responses, self._by_key):
            for metric in made.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric
        for name, told in _GAUGES.items():
            yield GaugeMetricFamily(f"opsin_{name}", told, value=now[name])
        yield from families(self._totals(now), now)

    def _totals(self, now: Mapping[str, float]) -> Totals:
        def of(name: str) -> float:
            (metric,) = self._counters[name].collect()
            return metric.samples[0].value

        return Totals(
            prompt=of("prompt_tokens_total") - of("cached_tokens_total"), cached=of("cached_tokens_total"),
            prompt_seconds=of("prompt_seconds_total"), predicted=of("generated_tokens_total"),
            predicted_seconds=of("generating_seconds_total"), steps=now["steps"], parts=now["parts"],
            guessing=now["guessing"], guessed=now["guessed"], right=now["right"],
            longest=self._longest, prompt_rate=self._prompt_rate(), predicted_rate=self._predicted_rate(),
        )  # fmt: skip
