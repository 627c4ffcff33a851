"""What requests share (counters, places, words, embeddings, pages), asked for by eight clients at once."""

from __future__ import annotations

import random
import string
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from running_server import running_sight
from test_serve_pictures import data_url, part, picture, text, user
from waiting import wait_for

from opsin.serve.metrics import Metrics

CLIENTS, ROUNDS = 8, 12


def words(draw: random.Random) -> str:
    """New words, so that nothing that is remembered fits."""
    return " ".join("".join(draw.choices(string.ascii_letters, k=draw.randint(1, 12))) for _ in range(20))


def asks(server, number):
    """One client's requests of all kinds, mixed; what came of each."""
    draw = random.Random(number)
    kinds = [
        lambda: server.chat(messages=user(text(words(draw))), max_tokens=3),
        lambda: server.chat(messages=user(part(data_url(picture(draw.randrange(5)))), text(words(draw))), max_tokens=2),
        lambda: server.chat(messages=user(text(words(draw))), max_tokens=3, stream=True, n=2),
        lambda: server.ask("/tokenize", {"content": [words(draw) for _ in range(20)]}),
        lambda: server.ask("/detokenize", {"tokens": [draw.randrange(256) for _ in range(50)]}),
        lambda: server.ask("/completion", {"prompt": words(draw), "n_predict": 2, "n_probs": 2}),
        lambda: server.ask("/v1/completions", {"prompt": [words(draw), words(draw)], "max_tokens": 2, "seed": 1}),
        lambda: server.ask("/v1/chat/completions/input_tokens", {"messages": user(part(data_url(picture(9))))}),
        lambda: server.ask("/apply-template", {"messages": user(text(words(draw)))}),
        lambda: server.ask(draw.choice(["/metrics", "/slots", "/props", "/health", "/v1/models"])),
        lambda: server.chat(messages=user(part("data:image/png;base64,AAAA"))),
        lambda: server.chat(messages=user(text("x" * 5000)), max_tokens=1),
    ]
    todo = kinds * (ROUNDS // 4)
    draw.shuffle(todo)
    return [(kinds.index(kind), kind()) for kind in todo]


def test_eight_clients_of_all_routes_fail_nobody_and_leave_nothing(tmp_path, complaints):
    with running_sight(tmp_path, all_bodies_bytes=64 << 20) as server:
        with ThreadPoolExecutor(CLIENTS) as threads:
            came = [one for part in threads.map(lambda n: asks(server, n), range(CLIENTS)) for one in part]
        wrong = {(kind, reply.status, reply.body[:200]) for kind, reply in came if reply.status >= 500}
        assert not wrong
        assert {kind for kind, reply in came if reply.status == 400} == {10, 11}
        assert all(reply.status == 400 for kind, reply in came if kind in (10, 11))
        wait_for(lambda: server.service.active == 0)
        lines = server.ask("/metrics").body.decode().splitlines()
        counts = dict(line.split() for line in lines if line[0] != "#")
        assert float(counts["opsin_requests_inside"]) == float(counts["llamacpp:requests_deferred"]) == 0
        assert float(counts["opsin_requests_total"]) == sum(kind != 9 for kind, _ in came)
        assert float(counts["opsin_requests_failed_total"]) == sum(kind in (10, 11) for kind, _ in came)
        pool = server.service.model.engine.pool
        server.service.model.engine.call(pool.check)
        assert server.service.model.engine.call(lambda: pool.free) == pool.count
        rooms = server.service.model.vision.budgets
        wait_for(lambda: (rooms.decoded.used, rooms.files.used) == (0, 0))
    assert not complaints


def test_counters_lose_nothing_between_threads():
    metrics = Metrics(lambda: defaultdict(float))

    def count(_: int) -> None:
        for number in range(2000):
            metrics.add("requests_total")
            if number % 100 == 0:
                assert "opsin_requests_total" in metrics.text()

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(count, range(CLIENTS)))
    assert f"\nopsin_requests_total {float(2000 * CLIENTS)}\n" in metrics.text()
