"""What Prometheus reads: llama-server's names and ours, what they count, and that strangers make no series."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from running_server import Running, running, running_sight
from test_chat import MESSAGES
from test_serve_pictures import data_url, part, picture, text, user
from waiting import wait_for

from opsin.api import Times, Usage
from opsin.serve.dashboard_metrics import Rate
from opsin.serve.keys import ApiKey
from opsin.serve.metrics import Metrics, TimeHistogram
from opsin.serve.usage import timings_of

COUNTERS = {  # of llama-server b11434, as its /metrics tells them
    "prompt_tokens_total", "prompt_tokens_cached_total", "prompt_seconds_total", "tokens_predicted_total",
    "tokens_predicted_seconds_total", "n_decode_total", "n_tokens_max", "spec_decode_num_draft_tokens_total",
    "spec_decode_num_accepted_tokens_total", "spec_decode_num_drafts_total",
}  # fmt: skip
GAUGES = {
    "prompt_tokens_seconds", "predicted_tokens_seconds", "requests_processing", "requests_deferred",
    "n_busy_slots_per_decode",
}  # fmt: skip
HISTOGRAMS = {"time_to_first_token_seconds", "time_between_tokens_seconds", "queue_seconds", "encode_seconds"}


@pytest.fixture(scope="module")
def counting(text_model) -> Iterator[Running]:
    with running(lambda: text_model, keys=(ApiKey("a", "bob"), ApiKey("b"))) as made:
        made.headers["Authorization"] = "Bearer a"
        yield made


def values(server: Running) -> dict[str, float]:
    text = server.ask("/metrics").body.decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def types(server: Running) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", server.ask("/metrics").body.decode(), re.M))


def test_all_of_llama_servers_are_there_with_their_types_and_a_line_of_help(counting):
    told = types(counting)
    assert {name for name in told if told[name] == "counter"} >= {f"llamacpp:{name}" for name in COUNTERS}
    assert {name for name in told if told[name] == "gauge"} >= {f"llamacpp:{name}" for name in GAUGES}
    text, there = counting.ask("/metrics").body.decode(), values(counting)
    for name in COUNTERS | GAUGES:
        assert f"# HELP llamacpp:{name} " in text and f"llamacpp:{name}" in there


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/embeddings", {"input": [[3, 4, 5], [6]]}, lambda reply: 4),
        ("/embedding", {"content": [3, 4, 5]}, lambda reply: 3),
        ("/api/embed", {"input": ["rain", "sun"]}, lambda reply: reply["prompt_eval_count"]),
        ("/rerank", {"query": "rain", "documents": ["rain"]}, lambda reply: reply["usage"]["prompt_tokens"]),
        ("/v1/completions", {"prompt": [3, 4, 5], "echo": True, "logprobs": 1, "max_tokens": 0}, lambda reply: 3),
    ],
)
def test_prompts_of_which_nothing_is_generated_are_counted(counting, path, body, told):
    before, reply = values(counting), counting.ask(path, body)
    after = values(counting)
    more = {name: after[f"llamacpp:{name}"] - before[f"llamacpp:{name}"] for name in COUNTERS}
    assert more["prompt_tokens_total"] == told(reply.json) > 0
    assert more["prompt_seconds_total"] > 0
    assert more["n_decode_total"] > 0
    assert more["tokens_predicted_total"] == 0


def test_no_series_tells_when_it_was_made_and_the_text_can_be_read(counting):
    reply = counting.ask("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(reply.body.decode())}
    assert not [name for name in names if "_created" in name]
    assert names >= {f"opsin_{name}" for name in HISTOGRAMS}


def test_what_answers_took_is_counted(counting):
    before = values(counting)
    body = {"messages": MESSAGES, "max_tokens": 40, "ignore_eos": True, "n": 2}
    usage = counting.chat(**body).json["usage"]
    counting.chat(**body)
    after = values(counting)

    def more(name: str) -> float:
        return after[name] - before[name]

    computed = more("opsin_prompt_tokens_total") - more("opsin_cached_tokens_total")
    assert more("llamacpp:prompt_tokens_total") == computed
    assert more("opsin_prompt_tokens_total") == 2 * usage["prompt_tokens"]
    assert more("llamacpp:tokens_predicted_total") == 4 * 40
    assert more("llamacpp:n_decode_total") > 0 and more("llamacpp:tokens_predicted_seconds_total") > 0
    assert after["llamacpp:n_tokens_max"] >= usage["prompt_tokens"] + 40
    assert 0 < after["llamacpp:n_busy_slots_per_decode"] <= 8
    assert after["llamacpp:predicted_tokens_seconds"] > 0 and after["llamacpp:prompt_tokens_seconds"] > 0
    assert more("opsin_time_to_first_token_seconds_count") == 2
    assert more("opsin_queue_seconds_count") == 4
    assert more("opsin_time_between_tokens_seconds_count") == 4 * 39


def test_a_prompt_whose_best_answers_are_told_is_counted_once(counting):
    before = values(counting)
    reply = counting.ask("/v1/completions", {"prompt": ["rain", "sun"], "best_of": 3, "n": 2, "max_tokens": 2})
    more = values(counting)["opsin_prompt_tokens_total"] - before["opsin_prompt_tokens_total"]
    assert more == reply.json["usage"]["prompt_tokens"]


def test_times_are_counted_as_the_library_counts_them():
    bounds, times = (0.01, 0.5, 2.5), (0.0, 0.01, 0.0100001, 0.5, 1.0, 2.5, 3.0, 1e9)
    mine, theirs = TimeHistogram("a", "b", bounds), Histogram("a", "b", buckets=bounds, registry=None)
    for seconds in times:
        mine.observe(seconds)
        theirs.observe(seconds)

    def samples(one: Collector) -> list[tuple[object, ...]]:
        (metric,) = one.collect()
        return [(s.name, s.labels, s.value) for s in metric.samples if not s.name.endswith("_created")]

    assert samples(mine) == samples(theirs)


def test_reading_disturbs_nobody_who_reads_too(counting):
    counting.chat(messages=MESSAGES, max_tokens=7, ignore_eos=True)
    first, second = values(counting), values(counting)
    assert first["llamacpp:predicted_tokens_seconds"] == second["llamacpp:predicted_tokens_seconds"] > 0


def test_a_rate_is_that_of_the_last_minute():
    now = [0.0]
    rate = Rate(lambda: now[0])
    assert rate() == 0.0
    rate.add(100, 2.0)
    rate.add(50, 1.0)
    assert rate() == 50.0
    now[0] = 61.0
    assert rate() == 0.0


def test_strangers_make_no_series(counting):
    counting.ask("/metrics")
    before = set(values(counting))
    for number in range(30):
        counting.ask(f"/v1/{number}", headers={"X-Request-ID": f"r{number}", "User-Agent": f"u{number}"})
        counting.ask(f"/v1/models/{number}", headers={"Authorization": f"Bearer {number}"})
    made = set(values(counting)) - before
    assert made <= {
        'opsin_responses_total{route="other",status="404"}',
        'opsin_responses_total{route="/v1/models/{name:path}",status="401"}',
    }
    assert values(counting)['opsin_key_requests_total{key="bob"}'] > 30
    assert not [name for name in values(counting) if 'key="b"' in name]


def test_pictures_that_are_encoded_are_timed_and_none_stays_pinned(tmp_path):
    with running_sight(tmp_path) as made:
        made.chat(messages=user(part(data_url(picture(0))), text("what?")), max_tokens=1)
        told = values(made)
        assert told["opsin_encode_seconds_count"] == 1 and told["opsin_pictures_kept"] > 0
        wait_for(lambda: values(made)["opsin_pages_used"] == 0)
        assert (values(made)["opsin_pictures_pinned"], values(made)["opsin_leaked"]) == (0, 0)


def test_a_key_guards_them(counting):
    assert counting.ask("/metrics", headers={"Authorization": "Bearer wrong"}).status == 401


def test_an_unknown_name_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        Metrics(lambda: defaultdict(float)).add("nothing_total")


def test_what_was_guessed_is_told_of_an_answer_and_of_all():
    now = defaultdict(float, guessing=2.0, guessed=9.0, right=7.0)
    told = Metrics(lambda: now).text()
    for name, value in (("drafts", 2.0), ("draft_tokens", 9.0), ("accepted_tokens", 7.0)):
        assert f"llamacpp:spec_decode_num_{name}_total {value}" in told
    plain = timings_of(Usage(9, 0, 0, 5, ()), Times(0.0, 1.0, 2.0), 5)
    assert not {"draft_n", "draft_n_accepted"} & plain.keys()
    guessed = timings_of(Usage(9, 0, 0, 5, (), guessed=4, right=3), Times(0.0, 1.0, 2.0), 5)
    assert guessed == plain | {"draft_n": 4, "draft_n_accepted": 3}
