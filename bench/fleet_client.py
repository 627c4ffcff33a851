"""Plays a trace of pictures at a server of several replicas, and counts what it encoded (`fleet.py --against`)."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))

from fleet_requests import Client, figures, look


def play(port: int, pictures: list[int], keyed: bool, *, replicas: int) -> tuple[int, dict[str, int]]:
    """Pictures encoded, and how many requests each replica took; three clients ask."""
    before, shares, asked = figures(port, "pictures_encoded", replicas), Counter[str](), iter(list(enumerate(pictures)))
    shift = 0 if keyed else 100_000  # other pictures

    def client() -> None:
        for number, picture in asked:
            own = {} if keyed else {"X-Opsin-Key": f"{number}"}
            status, headers, _ = Client(port).ask(look(picture + shift, question=f"Question {number}"), **own)
            assert status == 200, status
            shares[headers["x-opsin-replica"]] += 1

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = figures(port, "pictures_encoded", replicas)
    return sum(after.values()) - sum(before.values()), dict(shares)
