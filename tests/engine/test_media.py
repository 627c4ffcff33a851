"""Media in the engine: an invented modality flows through, and is answered as the ids that it is made of."""

from __future__ import annotations

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from melody import Ear, melody
from prompts import LIMITS
from tiny import Shape
from waiting import PATIENCE, until

from opsin.engine.engine import Engine
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.errors import DeviceError, RequestError
from opsin.ops.cpu.tape import place, view
from opsin.spans import Features, MediaSpan, Prompt

GREEDY = Sampling(temperature=0.0, max_tokens=12)


def notes_of(count, seed=0):
    return np.random.default_rng(seed + 100).integers(0, Shape().vocabulary, count).tolist()


def ids(stream):
    return [output.id for output in stream if output.id is not None]


@pytest.fixture(scope="module")
def runner(decoder):
    return Runner(*decoder, LIMITS, "f16", MediaStore(1 << 20))


@pytest.fixture
def ear(decoder):
    made = Ear(decoder[1].weights.token_embd.weight)
    made.gate.set()
    return made


@pytest.fixture
def engine(runner, ear):
    """An engine whose pages must all be free in the end, and its encoder idle."""
    runner.media = MediaStore(1 << 20)
    made = Engine(runner, frozenset(), ear.load(runner.device))
    yield made
    if made._thread.is_alive():
        assert until(lambda: made.pool.free == LIMITS.pages and not made._media.is_busy)
        made.pool.check()
    made.close()
    assert made.pool.free == LIMITS.pages


@pytest.fixture(scope="module")
def spell(decoder):
    """Answers of an engine of text to the ids that a prompt is made of."""
    engine = Engine(Runner(*decoder, LIMITS, "f16"), frozenset())
    known = {}

    def answer(*parts, sampling=GREEDY):
        spelt = tuple(int(i) for part in parts for i in part)
        if (spelt, sampling) not in known:
            known[spelt, sampling] = ids(engine.submit(Prompt.of([spelt]), sampling))
        return known[spelt, sampling]

    yield answer
    engine.close()


def ask(engine, *parts, sampling=GREEDY, **options):
    """Text parts are lists, melodies are tuples of notes."""
    spans = [melody(part, **options) if isinstance(part, tuple) else part for part in parts]
    return engine.submit(Prompt.of(spans), sampling)


# Answers


@pytest.mark.parametrize("before", [0, 1, 63, 64, 100])
@pytest.mark.parametrize("rows", [1, 5, 64, 150])
def test_media_is_answered_as_the_ids_that_it_is_made_of(engine, spell, before, rows):
    text, tune, after = notes_of(before, 1), tuple(notes_of(rows, 2)), notes_of(3, 3)
    assert ids(ask(engine, text, tune, after)) == spell(text, tune, after)


def test_a_prompt_may_end_with_media_or_hold_nothing_else(engine, spell):
    tune = tuple(notes_of(20))
    assert ids(ask(engine, tune)) == spell(tune)
    assert ids(ask(engine, [1, 2], tune)) == spell([1, 2], tune)


def test_several_pieces_with_and_without_text_between(engine, spell):
    a, b, c = (tuple(notes_of(10 + 30 * i, i)) for i in range(3))
    assert ids(ask(engine, [5], a, b, [6, 7], c, [8])) == spell([5], a, b, [6, 7], c, [8])


def test_many_at_once_are_answered_as_alone(engine, spell):
    prompts = []
    for i in range(16):
        tunes = [tuple(notes_of(5 + 13 * (i % 5), seed=i % 7)) for _ in range(i % 3)]
        prompts.append([notes_of(3 + 11 * i, i), *tunes, [i]])
    jobs = [(prompt, Sampling(seed=i, max_tokens=10 + i)) for i, prompt in enumerate(prompts)]
    streams = [ask(engine, *prompt, sampling=sampling) for prompt, sampling in jobs]
    answers = [ids(stream) for stream in streams]
    assert answers == [spell(*prompt, sampling=sampling) for prompt, sampling in jobs]


def test_a_step_of_text_after_one_of_media_is_not_disturbed(engine, spell):
    tune, text = tuple(notes_of(30)), notes_of(40, 5)
    ids(ask(engine, tune, [1]))
    assert ids(ask(engine, text)) == spell(text)


def test_scoring_a_prompt_with_media(engine, runner):
    tune = tuple(notes_of(70))
    engine.embed([melody(tune)])
    spelt = engine.call(lambda: runner.score([3, *tune, 4], [0, 1, 2]))
    prompt = Prompt.of([[3], melody(tune), [4]])
    assert np.array_equal(engine.call(lambda: runner.score(prompt, [0, 1, 2])), spelt)


def test_scoring_media_that_was_not_encoded_is_refused(engine, runner):
    with pytest.raises(RequestError, match="are not kept"):
        engine.call(lambda: runner.score(Prompt.of([melody((1, 2))]), [0]))


def test_embeddings_are_read_where_the_encoder_left_them(engine, runner, monkeypatch):
    seen, step = [], runner.step

    def watched(plan):
        result = step(plan)
        seen.append(runner.program.rows["media"]._addresses[:8].copy())
        return result

    monkeypatch.setattr(runner, "step", watched)
    tune = (9, 8, 7)
    ids(ask(engine, tune, [3], sampling=Sampling(max_tokens=1)))
    array = runner.media.get(melody(tune).digest).array
    made = view(place(array).block, place(array).offset, array.shape, "f32")
    assert [bool(a) for a in seen[0]] == [True] * 3 + [False] * 5
    for row, address in enumerate(seen[0][:3].tolist()):
        read = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (made.shape[1],))
        assert np.shares_memory(read, made[row])
        assert np.array_equal(read, made[row])


# Encoding


def test_the_same_media_twice_is_encoded_once(engine, ear, spell):
    tune = tuple(notes_of(20))
    ear.gate.clear()
    streams = [ask(engine, notes_of(5, seed), tune, tune) for seed in range(4)]
    ear.gate.set()
    assert [ids(stream) for stream in streams] == [spell(notes_of(5, seed), tune, tune) for seed in range(4)]
    assert ear.heard == 1


def test_media_of_one_shape_is_encoded_together(engine, ear, spell):
    ear.gate.clear()
    first = ask(engine, tuple(notes_of(7)))
    assert ear.started.wait(PATIENCE)
    tunes = [tuple(notes_of(20 if i % 2 else 30, i)) for i in range(8)]
    streams = [ask(engine, tune) for tune in tunes]
    assert until(lambda: len(engine._scheduler.running) == 9)
    ear.gate.set()
    assert [ids(stream) for stream in streams] == [spell(tune) for tune in tunes]
    assert ids(first) == spell(notes_of(7))
    assert [batch.shape for batch in ear.batches] == [(1, 7), (4, 30), (4, 20)]


def test_the_encoder_is_loaded_when_it_is_first_needed(engine, ear):
    ids(ask(engine, [1, 2, 3]))
    assert ear.loads == 0
    ids(ask(engine, (1, 2, 3)))
    ids(ask(engine, (4, 5, 6)))
    assert ear.loads == 1


def test_a_question_about_media_takes_as_many_steps_as_its_answer_has_ids(engine, spell):
    """The few rows before the media are no step of their own."""
    tune = tuple(notes_of(20, 41))
    assert ids(ask(engine, [1, 2, 3], tune, [4, 5])) == spell([1, 2, 3], tune, [4, 5])
    assert len(engine.step_seconds) == GREEDY.max_tokens


def test_streams_go_on_while_media_is_encoded(engine, ear, spell):
    ear.gate.clear()
    stream = ask(engine, [1, 2], sampling=Sampling(temperature=0.0, max_tokens=30))
    outputs = iter(stream)
    next(outputs)
    other = ask(engine, (1, 2, 3))
    assert ear.started.wait(PATIENCE)
    assert len([output for output in outputs if output.id is not None]) == 29  # and the gate has not been opened
    assert engine._media.encoded == 0
    other.cancel()
    ear.gate.set()
    assert ids(ask(engine, [9], (1, 2, 3))) == spell([9], (1, 2, 3))


def test_hurrying_never_waits(engine, ear):
    """A collector of garbage may cancel an answer in any thread, also in one that holds the lock."""
    encoding = engine._media._encoding
    held, done = threading.Event(), threading.Event()

    waited = []

    def hold():
        with encoding._changed:
            held.set()
            waited.append(not done.wait(PATIENCE))

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    ask(engine, [1, 2]).cancel()
    done.set()
    holder.join()
    assert waited == [False]  # the lock was held until the answer was cancelled


def test_cancelling_ends_the_encoding_that_nobody_else_needs(engine, ear):
    ear.gate.clear()  # for ever
    streams = [ask(engine, tuple(notes_of(9, seed))) for seed in range(2)]
    assert ear.started.wait(PATIENCE)
    for stream in streams:
        stream.cancel()
    assert until(lambda: not engine._media.is_busy)
    assert [[output.reason for output in stream] for stream in streams] == [["cancelled"]] * 2
    assert ear.heard <= 2


def test_media_that_somebody_else_needs_goes_on(engine, ear, spell):
    ear.gate.clear()
    victim, other = ask(engine, (1, 2, 3), [5]), ask(engine, (1, 2, 3), [6])
    assert ear.started.wait(PATIENCE)
    victim.cancel()
    ear.gate.set()
    assert ids(other) == spell((1, 2, 3), [6])
    assert ear.heard == 1


def test_a_small_cache_makes_sequences_wait_and_changes_nothing(decoder, spell, ear):
    store = MediaStore(0)  # nothing is kept that is not needed
    limits = Limits(rows=64, outputs=8, sequences=8, context=192, pages=5)
    small = Engine(Runner(*decoder, limits, "f16", store), frozenset(), ear.load(decoder[0]))
    jobs = [([i], tuple(notes_of(40 + i, i)), [i]) for i in range(6)]
    sampling = Sampling(temperature=0.0, max_tokens=60)
    streams = [ask(small, *job, sampling=sampling) for job in jobs]
    assert [ids(stream) for stream in streams] == [spell(*job, sampling=sampling) for job in jobs]
    assert until(lambda: small.pool.free == 5)
    small.pool.check()
    small.close()
    assert len(store) <= 1


# Failures


def test_a_failure_is_only_theirs_who_need_that_media(engine, ear, spell):
    ear.wrong = 13.0
    ear.gate.clear()
    streams = [ask(engine, tune) for tune in ((1, 2), (13, 2), (3, 4), (5, 13))]
    text = ask(engine, [7, 7])
    assert until(lambda: len(engine._scheduler.running) >= 4)
    ear.gate.set()
    assert ids(streams[0]) == spell((1, 2))
    assert ids(streams[2]) == spell((3, 4))
    assert ids(text) == spell([7, 7])
    for stream in (streams[1], streams[3]):
        with pytest.raises(DeviceError, match="could not be encoded: ValueError") as caught:
            ids(stream)
        assert "a note out of range" in str(caught.value.__cause__)


def test_features_that_cannot_be_made_fail_their_request_alone(engine, spell):
    def broken():
        raise RequestError("picture 2 is damaged")

    bad = ask(engine, (1, 2), make=broken, name=b"broken")
    good = ask(engine, (3, 4))
    with pytest.raises(RequestError, match="picture 2 is damaged"):
        ids(bad)
    assert ids(good) == spell((3, 4))


def test_features_of_another_shape_than_promised_are_an_error(engine):
    with pytest.raises(DeviceError, match=r"\(3,\), where \(2,\)"):
        ids(ask(engine, (1, 2), make=lambda: np.zeros(3), name=b"short"))


def test_an_encoder_that_cannot_be_loaded_fails_its_requests_and_is_tried_again(engine, ear, spell, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine._media._encoding, "_load", lambda turn: 1 / 0)
        with pytest.raises(DeviceError, match="ZeroDivisionError"):
            ids(ask(engine, (1, 2)))
    assert ids(ask(engine, (1, 2))) == spell((1, 2))


def test_a_surprise_in_planning_reaches_whoever_waits(engine, spell, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine._media, "_choose", lambda *_: 1 / 0)
        with pytest.raises(DeviceError, match="ZeroDivisionError"):
            ids(ask(engine, (1, 2)))
        with pytest.raises(DeviceError, match="ZeroDivisionError"):
            engine.embed([melody((1, 2))])
    assert ids(ask(engine, (1, 2))) == spell((1, 2))


def test_closing_ends_what_waits_for_media(engine, ear):
    ear.gate.clear()  # for ever
    stream = ask(engine, (1, 2))
    assert ear.started.wait(PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(engine.embed, [melody((3, 4))])
        assert until(lambda: engine._media.requests)
        engine.close()
        for wait in (lambda: ids(stream), request.result):
            with pytest.raises(DeviceError, match="closed"):
                wait()
    assert "opsin-encoding" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (melody(range(65), atomic=True), "takes 65 tokens that see each other, a step holds 64"),
        (MediaSpan(b"x", 4, 4), "neither features nor embeddings"),
        (MediaSpan(b"x", 2, 2, embeddings=np.zeros((2, 63), np.float32)), r"\(2, 63\).*\(2, 64\)"),
        (MediaSpan(b"x", 2, 2, embeddings=np.full((2, 64), np.inf, np.float32)), "finite"),
        (MediaSpan(b"x", 2, 2, memory=5, features=Features((1,), lambda: None)), "cross-attention"),
    ],
)
def test_what_cannot_work_is_refused_when_submitted(engine, span, said):
    for begin in (lambda: engine.submit(Prompt.of([[1], span]), GREEDY), lambda: engine.embed([span])):
        with pytest.raises(RequestError, match=said):
            begin()


# Rows that see each other


def test_atomic_media_is_computed_in_one_step(engine, runner, monkeypatch):
    parts, step = [], runner.step

    def watched(plan):
        parts.extend((part.start, part.rows) for part in plan)
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    ids(ask(engine, notes_of(50, 1), tuple(notes_of(40)), [1], atomic=True, sampling=Sampling(max_tokens=1)))
    assert parts == [(0, 50), (50, 41)]


def test_atomic_rows_see_each_other(engine, runner):
    """A change of the last note changes what the first one's row gives."""
    logits = []
    for tune in ((1, 2, 3), (1, 2, 4)):
        for atomic in (False, True):
            span = melody(tune, atomic=atomic)
            engine.embed([span])
            logits.append(engine.call(lambda span=span: runner.score(Prompt.of([[7], span, [8]]), [0])))
    plain, together, other, changed = logits
    assert np.array_equal(plain[:3], other[:3])
    assert np.array_equal(plain[0], together[0])
    assert np.array_equal(together[0], changed[0])
    assert not np.array_equal(together[1], changed[1])


def test_streams_beside_atomic_media_larger_than_their_budget(engine):
    stream = ask(engine, [1, 2], sampling=Sampling(temperature=0.0, max_tokens=100))
    next(iter(stream))
    engine._budget.saw(64, 100.0)  # so slow that 32 rows are a step
    assert len(ids(ask(engine, tuple(notes_of(60)), atomic=True))) == 12
    assert len(ids(stream)) == 99


# Embeddings


def test_embeddings_alone(engine, runner, decoder):
    tunes = [(1, 2, 3), (4, 5), (6, 7, 8)]
    rows = engine.embed([melody(tune) for tune in tunes])
    ops = runner.device.eager()
    known = ops.embed(ops.constant(np.arange(1, 9, dtype=np.int32)), decoder[1].weights.token_embd.weight).numpy()
    assert np.array_equal(rows, known)


def test_embeddings_that_are_given_need_no_encoder(engine, ear, spell):
    rows = engine.embed([melody((4, 5, 6))])
    heard = ear.heard
    given = MediaSpan(b"given", 3, 3, embeddings=rows)
    assert ids(engine.submit(Prompt.of([[9], given, [1]]), GREEDY)) == spell([9], (4, 5, 6), [1])
    assert ear.heard == heard


# The prefix cache


def test_several_answers_to_one_prompt_compute_it_once(engine, runner, ear, spell, monkeypatch):
    rows, step = [], runner.step

    def watched(plan):
        rows.extend(part.rows for part in plan if part.rows > 1)
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    tune, text = tuple(notes_of(150)), notes_of(60, 8)
    ear.gate.clear()  # until all are there
    streams = [ask(engine, tune, text, sampling=Sampling(seed=i, max_tokens=5)) for i in range(4)]
    ear.gate.set()
    assert [ids(s) for s in streams] == [spell(tune, text, sampling=Sampling(seed=i, max_tokens=5)) for i in range(4)]
    assert sum(rows) == 210 + 3 * (210 - 192)


def test_what_is_cached_is_neither_computed_nor_encoded_again(engine, runner, ear, spell, monkeypatch):
    tune, more = tuple(notes_of(100)), notes_of(70, 9)
    first = ask(engine, [5], tune, more)
    assert ids(first) == spell([5], tune, more)
    assert first.cached == 0
    engine._media.store = runner.media = MediaStore(1 << 20)

    def never():
        raise AssertionError("nobody needs the features")

    again = ask(engine, [5], tune, more, [1], make=never)
    assert ids(again) == spell([5], tune, more, [1])
    assert again.cached == 171
    assert ear.heard == 1


def test_half_cached_media_is_encoded_and_its_rest_computed(engine, ear, spell):
    tune = tuple(notes_of(100))
    ids(ask(engine, [5], tune, [6] * 40))  # its second page is full, and so of no use to others
    again = ask(engine, [5], tune, [7])
    assert ids(again) == spell([5], tune, [7])
    assert again.cached == 64


def test_another_picture_at_the_same_place_is_another_prompt(engine, spell):
    one, other = tuple(notes_of(100, 1)), tuple(notes_of(100, 2))
    ids(ask(engine, notes_of(64), one))
    stream = ask(engine, notes_of(64), other)
    assert ids(stream) == spell(notes_of(64), other)
    assert stream.cached == 64


def test_random_company_cancels_and_evictions_change_no_answer(decoder, ear, spell):
    """Few pages, a small store, prompts with common beginnings: whoever is not cancelled is answered as alone."""
    random = np.random.default_rng(7)
    limits = Limits(rows=64, outputs=8, sequences=6, context=320, pages=14)
    small = Engine(Runner(*decoder, limits, "f16", MediaStore(40_000)), frozenset(), ear.load(decoder[0]))
    beginnings = [[notes_of(70, seed), tuple(notes_of(30 + 20 * seed, seed))] for seed in range(3)]
    jobs, cached = [], 0
    for _ in range(60):
        parts = [*beginnings[int(random.integers(3))], notes_of(int(random.integers(1, 9)), int(random.integers(4)))]
        if random.random() < 0.4:
            parts += [tuple(notes_of(int(random.integers(1, 60)), int(random.integers(5)))), [1]]
        sampling = Sampling(temperature=0.0, max_tokens=int(random.integers(1, 30)))
        jobs.append((parts, sampling, ask(small, *parts, sampling=sampling)))
        if random.random() < 0.3:
            jobs.pop(int(random.integers(len(jobs))))[2].cancel()
        time.sleep(float(random.random()) * 0.01)
        if len(jobs) > 12:
            parts, sampling, stream = jobs.pop(0)
            assert ids(stream) == spell(*parts, sampling=sampling)
            cached += stream.cached
    for parts, sampling, stream in jobs:
        assert ids(stream) == spell(*parts, sampling=sampling)
        cached += stream.cached
    assert until(lambda: small.pool.free == limits.pages and not small._media.is_busy)
    small.pool.check()
    small.close()
    assert cached > 1000
