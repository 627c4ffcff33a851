"""Spans of requests for OpenTelemetry (`pip install 'opsin[otel]'`): parse, prompt, queue, encode, read, generate.

They are made of what the record has when a request has ended: nothing waits for them. A `traceparent` is taken.
No content is in them. Without an endpoint nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from opsin.errors import RequestError
from opsin.serve.record import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_LAST_SECONDS: Final = 1.0  # for what waits when the server ends


class SpanWriter:
    """Hands spans to an exporter, on a thread of OpenTelemetry's."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._exporter = exporter
        self._provider = TracerProvider(resource=Resource.create({"service.name": "opsin"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("opsin")

    @classmethod
    def load(cls, endpoint: str) -> SpanWriter:
        """To an endpoint of OTLP over HTTP. Raises RequestError where OpenTelemetry is not installed."""
        if not endpoint.startswith(("http://", "https://")):
            raise RequestError(f"{endpoint!r:.200} is no endpoint", hint="give one as http://host:4318/v1/traces")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise RequestError(
                "OpenTelemetry is not installed", hint="pip install 'opsin[otel]', or leave the endpoint out"
            ) from None
        return cls(OTLPSpanExporter(endpoint=endpoint))

    def add(self, record: Record, route: str) -> None:
        """A request that has ended."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        def when(seconds: float) -> int:
            return int(1e9 * (record.at + seconds - record.started))

        above = TraceContextTextMapPropagator().extract({"traceparent": record.parent})
        whole = self._tracer.start_span(
            f"{record.method[:16]} {route}", above, SpanKind.SERVER, _attributes(record, route),
            start_time=when(record.started),
        )  # fmt: skip
        inside = set_span_in_context(whole)
        for name, begin, end in record.stages:
            self._tracer.start_span(name, inside, start_time=when(begin)).end(when(max(begin, end)))
        whole.end(when(record.started + record.ended))

    def flush(self) -> None:
        """Hand over what waits."""
        self._provider.force_flush()

    def close(self) -> None:
        """The end, for which nobody waits long: what an endpoint has not taken by then is not tried again."""
        ending = threading.Thread(target=self._provider.shutdown, name="opsin-spans", daemon=True)
        ending.start()
        ending.join(_LAST_SECONDS)
        if ending.is_alive():
            self._exporter.shutdown()
            ending.join(_LAST_SECONDS)


def _attributes(record: Record, route: str) -> dict[str, str | int]:
    """In the words of OpenTelemetry's conventions where it has some."""
    words = {"prompt_tokens": "gen_ai.usage.input_tokens", "generated_tokens": "gen_ai.usage.output_tokens"}
    return {
        "http.request.method": record.method[:16],
        "http.route": route,
        "http.response.status_code": record.status,
        "client.address": record.client,
        "opsin.request_id": record.id,
        "opsin.key": record.key,
        **{words.get(name, f"opsin.{name}"): number for name, number in record.tokens.items()},
    }
