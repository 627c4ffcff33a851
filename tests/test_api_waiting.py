"""Pictures that wait for their encoder: what stays decoded, and what is decoded once more."""

from __future__ import annotations

import gc
import io
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_api_pictures import OPTIONS, ask, model, pair, picture, png, tiled  # noqa: F401 - fixtures
from waiting import wait_for

import opsin
from opsin.api import vision
from opsin.api.byte_budget import ByteBudget
from opsin.api.waiting import PictureBytes
from opsin.config import available_threads
from opsin.errors import BusyError
from opsin.media.limits import PictureLimits

WIDE = png(picture(150, 60))


@pytest.fixture
def opened(monkeypatch):
    """How often a picture was decoded."""
    count, right = [], vision.open_picture

    def watched(*args, **options):
        count.append(args)
        return right(*args, **options)

    monkeypatch.setattr(vision, "open_picture", watched)
    return count


def features(patches):
    return [span.features.make() for span in patches.spans]


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_a_picture_that_was_dropped_has_the_same_values(tiled, monkeypatch, opened, room):  # noqa: F811
    expected = features(tiled.prepare(picture(150, 60)))
    monkeypatch.setattr(tiled.vision, "budgets", PictureBytes(ByteBudget(room), ByteBudget(None)))
    opened.clear()
    patches = tiled.prepare(WIDE)
    assert len(expected) > 2
    for ours, right in zip(features(patches), expected, strict=True):
        assert np.array_equal(ours, right)
    assert len(opened) == (1 if room else 2)  # once more for all of its tiles
    for ours, right in zip(features(patches), expected, strict=True):  # as often as anybody asks
        assert np.array_equal(ours, right)


def test_room_is_given_back_by_who_was_encoded_and_by_who_was_dropped(tiled, monkeypatch):  # noqa: F811
    room, files = ByteBudget(1 << 20), ByteBudget(None)
    monkeypatch.setattr(tiled.vision, "budgets", PictureBytes(room, files))
    first, second = tiled.prepare(WIDE), tiled.prepare(png(picture(80, 80)))
    assert room.used == 4 * (150 * 60 + 80 * 80)
    features(first)
    assert room.used == 4 * 80 * 80
    features(first)
    assert room.used == 4 * 80 * 80
    assert files.used == len(WIDE) + len(png(picture(80, 80)))
    del first, second
    gc.collect()
    assert room.used == files.used == 0


def test_files_that_wait_have_a_limit_where_there_is_one(pair):  # noqa: F811
    limits = PictureLimits(waiting_bytes=5 * len(WIDE) // 2)
    with opsin.load(pair[0], threads=1, context=512, sequences=1, limits=limits) as small:
        kept = [small.prepare(WIDE) for _ in range(2)]
        with pytest.raises(BusyError, match="come again"):
            small.prepare(WIDE)
        assert small.chat(ask(kept.pop(), "?"), **OPTIONS).text
        wait_for(lambda: small.vision.budgets.files.used == len(WIDE))
        assert small.prepare(WIDE).rows


def test_answers_are_the_same_where_nothing_may_wait_decoded(tiled, monkeypatch):  # noqa: F811
    questions = [ask(png(picture(90 + seed, 60, seed)), f"What is {seed}?") for seed in range(6)]
    expected = [tiled.chat(question, **OPTIONS).text for question in questions]
    monkeypatch.setattr(tiled.vision, "budgets", PictureBytes(ByteBudget(0), ByteBudget(None)))
    other = [ask(png(picture(90 + seed, 60, seed)) + b" ", f"What is {seed}?") for seed in range(6)]  # unknown files
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda question: tiled.chat(question, **OPTIONS).text, other)) == expected


def resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def test_a_queue_of_large_pictures_stays_small(model):  # noqa: F811
    file = io.BytesIO()
    Image.linear_gradient("L").resize((4000, 3000)).convert("RGB").save(file, "JPEG")
    model.prepare(file.getvalue())
    before, room = resident(), model.vision.budgets.decoded
    queue = [model.prepare(file.getvalue() + bytes([number])) for number in range(24)]
    assert len({patches.spans[0].digest for patches in queue}) == 24
    grown = resident() - before  # little where the process held free memory of other pictures before
    assert grown < room.limit + 24 * len(file.getvalue()) + (64 << 20)  # 1.15 GB if all were kept
    assert room.used > room.limit // 2


def test_no_more_pictures_are_decoded_at_once_than_there_are_processors(model, monkeypatch):  # noqa: F811
    now, most, lock, right = [0], [0], threading.Lock(), vision.open_picture

    def watched(*args, **options):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return right(*args, **options)

    monkeypatch.setattr(vision, "open_picture", watched)
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda number: model.prepare(WIDE + bytes([number])), range(64)))
    assert 0 < most[0] <= available_threads()
