"""Spans of requests: which there are, how they hang together, and that nothing of OpenTelemetry is needed."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from running_server import running, running_sight
from test_chat import MESSAGES
from test_serve_pictures import data_url, part, picture, text, user
from waiting import wait_for

from opsin.errors import RequestError
from opsin.serve.record import Record
from opsin.serve.spans import SpanWriter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def spans(made, path: str, body: object = None, **headers: str):
    """What a request leaves, by name."""
    exporter = InMemorySpanExporter()
    made.service.state._spans = SpanWriter(exporter)
    made.ask(path, body, headers=headers)

    def found():
        made.service.state._spans.flush()
        return {span.name: span for span in exporter.get_finished_spans()}

    wait_for(lambda: any(name.startswith(("GET ", "POST ")) for name in found()))  # the whole is written last
    return found()


def test_an_answer_leaves_a_span_for_each_part_of_its_way(text_model):
    with running(lambda: text_model) as made:
        body = {"messages": MESSAGES, "max_tokens": 4, "ignore_eos": True}
        left = spans(made, "/v1/chat/completions?q=word", body, traceparent=PARENT, **{"X-Request-ID": "mine"})
    whole = left.pop("POST /v1/chat/completions")
    assert left.keys() == {"parse", "prompt", "queue", "read", "generate"}
    assert f"{whole.context.trace_id:032x}" == TRACE and f"{whole.parent.span_id:016x}" == "00f067aa0ba902b7"
    told = dict(whole.attributes)
    assert told["gen_ai.usage.output_tokens"] == 4 and told["http.response.status_code"] == 200
    assert told["opsin.request_id"] == "mine" and not any("word" in str(value) for value in told.values())
    for span in left.values():
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
    order = [left[name].start_time for name in ("parse", "prompt", "queue", "read", "generate")]
    assert order == sorted(order)


def test_a_picture_leaves_one_for_its_encoding_when_it_is_encoded(tmp_path):
    with running_sight(tmp_path) as made:
        body = {"messages": user(part(data_url(picture(3))), text("what?")), "max_tokens": 1}
        left = spans(made, "/v1/chat/completions", body)
        read, encode = left["read"], left["encode"]
        assert read.start_time <= encode.end_time <= read.end_time
        assert "encode" not in spans(made, "/v1/chat/completions", body)  # it is known


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000])
def test_a_parent_that_is_none_begins_a_trace_and_paths_make_no_names(text_model, parent):
    with running(lambda: text_model) as made:
        left = spans(made, "/v1/secret-path", traceparent=parent)
    assert left.keys() == {"GET other"} and left["GET other"].parent is None


def test_without_an_endpoint_nothing_of_it_is_imported():
    code = "import sys, opsin.serve.server; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_missing_is_told(monkeypatch):
    with pytest.raises(RequestError, match="'localhost:4318' is no endpoint"):
        SpanWriter.load("localhost:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(RequestError, match="OpenTelemetry is not installed"):
        SpanWriter.load("http://localhost:4318/v1/traces")


def test_an_endpoint_that_is_not_there_holds_up_nothing_and_is_not_tried_after_the_end():
    before = set(threading.enumerate())
    writer = SpanWriter.load("http://127.0.0.1:9/v1/traces")
    writer.add(Record("a", "", "GET", "/"), "/")
    writer.close()
    assert set(threading.enumerate()) <= before
