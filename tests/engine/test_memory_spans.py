"""Media that rows attend to beside their sequence: encoded once, written once, shared by digest."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import memory_decoder as toy
import numpy as np
import pytest
from waiting import until

from opsin.engine import scheduler
from opsin.engine.engine import Engine
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.errors import RequestError
from opsin.spans import Features, MediaSpan, Prompt

TENSORS = toy.tensors()
LIMITS = Limits(rows=64, outputs=16, sequences=8, context=320, pages=30, memory=20)
GREEDY = Sampling(temperature=0.0, max_tokens=6)


def memory(rows, seed=0):
    """Media of which nothing but memory is kept."""
    values = np.random.default_rng(seed).standard_normal((rows, toy.WIDTH)).astype(np.float32)
    digest = blake2b(values.tobytes(), digest_size=16).digest()
    return MediaSpan(digest, 0, 0, memory=rows, features=Features(values.shape, lambda: values)), values


class Eye:
    """Gives features as they are."""

    def __init__(self, device):
        self.device, self.seen = device, 0

    def load(self, turn):
        self.ops = self.device.eager(turn)
        return self

    def encode(self, features):
        self.seen += len(features)
        return self.ops.constant(features.reshape(-1, toy.WIDTH))


@pytest.fixture(scope="module")
def decoder(device):
    return toy.MemoryDecoder.load(toy.Made(device.eager(), TENSORS))


@pytest.fixture
def eye(device):
    return Eye(device)


def start(device, decoder, eye, limits=LIMITS):
    return Engine(Runner(device, decoder, limits, "f32", MediaStore(1 << 20)), frozenset(), eye.load)


@pytest.fixture
def engine(device, decoder, eye):
    made = start(device, decoder, eye)
    yield made
    assert until(lambda: (made.pool.free, made.memory.pool.free) == (LIMITS.pages, LIMITS.memory))
    made.pool.check()
    made.memory.pool.check()
    made.close()


def text(count, seed=0):
    return np.random.default_rng(seed + 50).integers(0, toy.VOCABULARY, count).tolist()


def ids(stream):
    return [output.id for output in stream if output.id is not None]


def greedy(before, after, values):
    """What the formula answers: rows after the media remember it."""
    known = [*before, *after]
    for _ in range(GREEDY.max_tokens):
        known.append(int(toy.formula(TENSORS, known, values, len(before))[-1].argmax()))
    return known[len(before) + len(after) :]


@pytest.mark.parametrize("rows", [1, 64, 150])
@pytest.mark.parametrize("before", [0, 5, 64, 100])
def test_rows_after_media_remember_it(engine, before, rows):
    span, values = memory(rows)
    prompt = [text(before), span, text(7, 1)]
    assert ids(engine.submit(Prompt.of(prompt), GREEDY)) == greedy(text(before), text(7, 1), values)


def test_other_media_gives_another_answer_at_the_same_place(engine):
    answers = []
    for seed in range(3):
        span, values = memory(90, seed)
        answers.append(ids(engine.submit(Prompt.of([text(70), span, text(70, 1)]), GREEDY)))
        assert answers[-1] == greedy(text(70), text(70, 1), values)
    assert len({tuple(answer) for answer in answers}) > 1


def answer(known, values, seen_by):
    """What the formula answers; `seen_by` says for each row of the prompt what of the memory it sees, from and to."""
    known, ranges = list(known), list(seen_by)
    for _ in range(GREEDY.max_tokens):
        columns = np.arange(len(values))
        mask = np.array([(columns >= first) & (columns < last) for first, last in ranges])
        known.append(int(toy.formula(TENSORS, known, values, seen_by=mask)[-1].argmax()))
        ranges.append(ranges[-1])
    return known[len(seen_by) :]


def test_the_last_media_is_what_rows_remember(engine):
    (first, a), (second, b) = memory(70, 1), memory(20, 2)
    stream = engine.submit(Prompt.of([first, text(4), second, text(9, 1)]), GREEDY)
    seen_by = [(0, 70)] * 4 + [(70, 90)] * 9
    assert ids(stream) == answer([*text(4), *text(9, 1)], np.concatenate([a, b]), seen_by)


@pytest.mark.parametrize("sizes", [(70, 20, 100), (64, 64), (3, 130), (1, 1, 1, 1)])
def test_media_at_one_place_is_remembered_together(engine, eye, sizes):
    made = [memory(size, seed) for seed, size in enumerate(sizes)]
    for seed in range(3):
        stream = engine.submit(Prompt.of([text(3, seed), *(span for span, _ in made), text(9, seed)]), GREEDY)
        values = np.concatenate([values for _, values in made])
        assert ids(stream) == greedy(text(3, seed), text(9, seed), values)
    assert eye.seen == len(sizes)


def test_media_with_nothing_but_markers_between_is_remembered_together(engine):
    """As Mllama's processor masks it: a marker sees its own picture and those right before it."""
    sizes, values = (70, 20, 100, 40), np.concatenate([memory(size, i)[1] for i, size in enumerate((70, 20, 100, 40))])
    a, b, c, d = (replace(memory(size, i)[0], marker=1) for i, size in enumerate(sizes))
    for seed in range(4):
        begin, between, end = text(3, seed), text(1 + 5 * (seed % 2), seed + 9), text(5, seed + 20)
        prompt = [begin, a, [7], b, [7], between, c, [7], d, [7], end]
        seen_by = [(0, 0)] * 3 + [(0, 70)] + [(0, 90)] * (1 + len(between)) + [(90, 190)] + [(90, 230)] * 6
        known = [id for part in prompt if isinstance(part, list) for id in part]
        assert ids(engine.submit(Prompt.of(prompt), GREEDY)) == answer(known, values, seen_by)


def test_what_is_remembered_together_is_not_what_is_remembered_alone(device, decoder, eye):
    runner = Runner(device, decoder, LIMITS, "f32", MediaStore(0))  # of embeddings only those are kept that are needed
    small = Engine(runner, frozenset(), eye.load)
    (first, a), (second, b) = memory(70, 1), memory(20, 2)
    both, turned = np.concatenate([a, b]), np.concatenate([b, a])
    jobs = (([first], a), ([second], b), ([first, second], both), ([first], a), ([second, first], turned))
    for spans, values in jobs:
        stream = small.submit(Prompt.of([*spans, text(9)]), GREEDY)
        assert ids(stream) == greedy([], text(9), values)
    small.close()


def test_media_is_encoded_and_written_once(engine, eye, decoder, monkeypatch):
    written, remember = [], toy.MemoryDecoder.remember

    def watched(self, *args):
        written.append(args[0].shape)
        return remember(self, *args)

    monkeypatch.setattr(toy.MemoryDecoder, "remember", watched)
    span, values = memory(100)
    for seed in range(3):
        prompt = Prompt.of([text(3, seed), span, text(7, 1)])
        assert ids(engine.submit(prompt, GREEDY)) == greedy(text(3, seed), text(7, 1), values)
    assert eye.seen == 1
    assert written == [(100, toy.WIDTH)]


def test_media_that_is_written_in_steps_gives_the_same_answers(engine, eye, decoder, monkeypatch):
    monkeypatch.setattr(scheduler, "WRITES", 60)
    written, remember = [], toy.MemoryDecoder.remember

    def watched(self, *args):
        written.append(len(args[0].numpy()))
        return remember(self, *args)

    monkeypatch.setattr(toy.MemoryDecoder, "remember", watched)
    (first, a), (second, b) = memory(100, 1), memory(70, 2)
    stream = engine.submit(Prompt.of([text(3), first, second, text(7, 1)]), GREEDY)
    assert ids(stream) == greedy(text(3), text(7, 1), np.concatenate([a, b]))
    assert written == [60, 40, 20, 50]


def test_what_is_remembered_needs_no_embeddings_any_more(engine, eye):
    span, values = memory(100)
    ids(engine.submit(Prompt.of([span, text(70)]), GREEDY))
    engine._media.store = engine._runner.media = MediaStore(1 << 20)
    stream = engine.submit(Prompt.of([span, text(70), text(5, 1)]), GREEDY)
    assert ids(stream) == greedy([], [*text(70), *text(5, 1)], values)
    assert stream.cached == 70


def test_memories_beside_text_alone(engine):
    spans = [memory(30 + 50 * seed, seed) for seed in range(3)]
    jobs = [(text(20 + i, i), spans[i % 4][0] if i % 4 < 3 else None) for i in range(8)]
    streams = [engine.submit(Prompt.of([*([span] if span is not None else []), known]), GREEDY) for known, span in jobs]
    for i, stream in enumerate(streams):
        values = spans[i % 4][1] if i % 4 < 3 else np.zeros((0, toy.WIDTH), np.float32)
        assert ids(stream) == greedy([], jobs[i][0], values)


def test_a_small_cache_makes_them_wait_and_changes_nothing(device, decoder, eye):
    small = start(device, decoder, eye, Limits(rows=64, outputs=8, sequences=6, context=192, pages=6, memory=4))
    jobs = [(text(50 + i, i), memory(70 + 60 * (i % 2), i % 3)) for i in range(9)]
    streams = [small.submit(Prompt.of([known[:20], span, known[20:]]), GREEDY) for known, (span, _) in jobs]
    for (known, (_, values)), stream in zip(jobs, streams, strict=True):
        assert ids(stream) == greedy(known[:20], known[20:], values)
    assert until(lambda: (small.pool.free, small.memory.pool.free) == (6, 4))
    small.pool.check()
    small.memory.pool.check()
    small.close()


def test_many_who_ask_about_one_picture_share_its_pages(device, decoder, eye):
    """What is there takes no room once more: all of them run at once."""
    one = start(device, decoder, eye, Limits(rows=64, outputs=8, sequences=6, context=192, pages=20, memory=3))
    span, values = memory(150)
    assert ids(one.submit(Prompt.of([span, text(3)]), GREEDY)) == greedy([], text(3), values)
    streams = [one.submit(Prompt.of([span, text(30, i)]), GREEDY) for i in range(6)]
    assert [ids(stream) for stream in streams] == [greedy([], text(30, i), values) for i in range(6)]
    assert eye.seen == 1
    one.close()


def test_more_than_the_cache_remembers_is_refused(engine):
    span, _ = memory(64 * 20 + 1)
    with pytest.raises(RequestError, match="take 1344 rows beside it, there is room for 1280") as caught:
        engine.submit(Prompt.of([span, text(3)]), GREEDY)
    assert "fewer or smaller pictures" in caught.value.hint
