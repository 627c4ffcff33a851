"""A layer of the model's own guesses: answers are those without it, and right guesses save steps."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from draws import check_draws
from oracles import know
from test_recurrent_engine import LIMITS, Eye, picture
from tiny_next_token import VOCABULARY, tiny_next_token
from waiting import PATIENCE, until

from opsin.engine.engine import Engine
from opsin.engine.guessing import Guessing
from opsin.engine.media_store import MediaStore
from opsin.engine.next_tokens import NextTokens
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.engine.step_costs import StepCosts
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.nn.next_token import WithoutNextToken
from opsin.spans import Prompt

FILES = {"sure": {}, "mixed": {"gain": 0.5, "wrong": 0.2}, "blind": {"gain": 0.5, "blind": True},
         "soft": {"sharp": 0.2}, "by state": {"by_state": True},
         "without states": {"gain": 0.5, "wrong": 0.2, "states": False}}  # fmt: skip


def ids(stream):
    return [output.id for output in stream if output.id is not None]


def told(stream):
    """Ids, and what the model held of them, to the bit."""
    return [(output.id, output.logprobs) for output in stream]


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def decoders(device, tmp_path_factory):
    """By names, with the layer that guesses and without."""
    found = {}
    for name, options in FILES.items():
        with File.open(tiny_next_token(tmp_path_factory.mktemp("next") / f"{name}.gguf", **options)) as file:
            reader = FileReader(file, device.eager())
            found[name, True] = load_decoder(file, reader)
            found[name, False] = load_decoder(file, WithoutNextToken(reader))
    return found


@pytest.fixture(autouse=True)
def blind(monkeypatch):
    """Nothing is looked up in texts."""
    know(monkeypatch, {})


@pytest.fixture
def make(device, decoders):
    """Engines, which hold nothing in the end."""
    made = []

    def engine(name, *, guesses=True, most=5, always=True, **limits):
        runner = Runner(device, decoders[name, guesses], replace(LIMITS, **limits), "f32", MediaStore(1 << 22))
        guessing = Guessing(most, always=always, drafter=NextTokens(runner)) if guesses else None
        made.append(Engine(runner, frozenset(), Eye(device).load, guessing))
        return made[-1]

    yield engine
    for one in made:
        assert until(lambda one=one: not one.watch.figures().leaked), one.watch.figures()
        for pool in (one.pool, *([] if one.states is None else [one.states.pool])):
            assert until(lambda pool=pool: pool.free == pool.count)
        one.close()


def greedy(tokens):
    return Sampling(temperature=0.0, max_tokens=tokens)


def test_a_layer_that_knows_is_always_right_and_saves_steps(make):
    prompt = Prompt.of([ids_of(100)])
    answer = ids(make("sure", guesses=False).submit(prompt, greedy(40)))
    assert answer == [(answer[0] + ahead) % VOCABULARY for ahead in range(40)]
    engine, seen = make("sure"), []
    step = engine._runner.step
    engine._runner.step = lambda plan: seen.append((plan[0].rows, len(plan[0].guesses))) or step(plan)
    stream = engine.submit(prompt, greedy(40))
    assert ids(stream) == answer
    assert stream.guessed == stream.right == 32
    # A state is kept where a page of the answer is full, behind row 128: a step ends there.
    assert seen == [(64, 0), (36, 0), *[(1, 5)] * 4, (1, 3), (1, 5), (1, 4)]


def test_it_goes_on_from_the_state_behind_the_last_right_id(make):
    """Also where rows are computed again: its first guess is right each time, and a second one never."""
    jobs = [(Prompt.of([ids_of(60 + 30 * i, seed=i)]), greedy(40)) for i in range(3)]
    plain = make("by state", guesses=False)
    expected = [ids(plain.submit(*job)) for job in jobs]
    engine, parts = make("by state", most=4), []
    step = engine._runner.step
    engine._runner.step = lambda plan: parts.extend((p.rows, len(p.guesses)) for p in plan if p.guesses) or step(plan)
    streams = [engine.submit(*job) for job in jobs]
    assert [ids(stream) for stream in streams] == expected
    assert sum(stream.right for stream in streams) == len(parts) > 40
    assert sum(stream.guessed for stream in streams) == sum(guesses for _, guesses in parts) > len(parts)
    assert max(rows for rows, _ in parts) > 1


@pytest.mark.parametrize("name", ["sure", "mixed", "blind", "without states"])
def test_answers_are_those_without_it_in_any_company_and_pool(make, name):
    """Greedy and drawn, beside pictures, where sequences are started again, and states taken back."""
    texts = [ids_of(5 + 37 * i, seed=i) for i in range(4)]
    prompts = [[text, picture(40, seed=i), text[:4]] if i == 2 else [text] for i, text in enumerate(texts)]
    drawn = [Sampling(seed=i, temperature=0.6, max_tokens=50 + i, logprobs=1) for i in range(3)]
    samplings = [replace(greedy(50), logprobs=1), *drawn]
    jobs = [(Prompt.of(some), sampling) for some, sampling in zip(prompts, samplings, strict=True)]
    plain = make(name, guesses=False)
    expected = [told(plain.submit(*job)) for job in jobs]
    for limits in ({}, {"states": 5, "pages": 8}):
        engine = make(name, **limits)
        streams = [engine.submit(*job) for job in jobs]
        assert [told(stream) for stream in streams] == expected
        right, guessed = (sum(getattr(stream, part) for stream in streams) for part in ("right", "guessed"))
        assert guessed > 0
        share = right / guessed
        least, most = {"sure": (0.3, 1), "blind": (0, 0.1)}.get(name, (0.1, 0.9))
        assert least <= share <= most


def test_a_layer_that_is_never_right_is_left_alone(make, monkeypatch):
    """Where a step of one row costs 1, each row more 0.1 and a guess 0.3."""
    monkeypatch.setattr(StepCosts, "of", lambda self, rows: 0.9 + 0.1 * rows)
    counts = {}
    for name in ("sure", "blind"):
        engine = make(name, always=False)
        drafter = engine.guessing.drafter
        asked, run = [], drafter._program.run
        drafter._program.run = lambda rows, asked=asked, run=run: asked.append(len(rows)) or run(rows)
        drafter.seconds, drafter.timed = 0.3, nullcontext
        list(engine.submit(Prompt.of([ids_of(20)]), greedy(300)))
        counts[name] = len(asked), drafter.share
    assert counts["sure"][0] > 150 and counts["sure"][1] > 0.95
    assert counts["blind"][0] < 60 and counts["blind"][1] < 0.5


def test_what_a_step_takes_without_guesses_is_known_before_any_is_made(make):
    engine, seen = make("sure", always=False), []
    step = engine._runner.step
    engine._runner.step = lambda plan: seen.append(len(plan[0].guesses)) or step(plan)
    list(engine.submit(Prompt.of([ids_of(20)]), greedy(40)))
    assert seen[1:4] == [0, 0, 0]
    assert seen[4] == 2


def test_drawn_ids_have_the_distribution_of_the_model(make):
    """Guesses are always of the likeliest id: those who take it too often, or too seldom, are seen."""
    prompt, sampling = ids_of(10), Sampling(temperature=1.0, top_k=4, top_p=1.0, min_p=0.0, max_tokens=3)
    engine = make("soft")
    first = int(engine.call(lambda: engine._runner.score(prompt, [0], states=(0, 1)))[-1].argmax())
    second = engine.call(lambda: engine._runner.score([*prompt, first], [0], states=(0, 1)))[-1]
    streams = [engine.submit(Prompt.of([prompt]), replace(sampling, seed=seed)) for seed in range(300)]
    answers = [ids(stream) for stream in streams]
    assert 0 < sum(stream.right for stream in streams) < sum(stream.guessed for stream in streams)
    follow = [answer[1] for answer in answers if answer[0] == first]
    check_draws(follow, second)


def test_cancelled_among_guesses_its_pages_are_free_and_others_go_on(make):
    jobs = [(Prompt.of([ids_of(10 + i, seed=i)]), greedy(80)) for i in range(3)]
    plain = make("mixed", guesses=False)
    expected = [ids(plain.submit(*job)) for job in jobs]
    engine, held, gate = make("mixed"), threading.Event(), threading.Event()
    step = engine._runner.step

    def watched(plan):
        if any(part.guesses for part in plan):
            held.set()
            gate.wait(PATIENCE)
        return step(plan)

    engine._runner.step = watched
    streams = [engine.submit(*job) for job in jobs]
    assert held.wait(PATIENCE)
    streams[1].cancel()
    gate.set()
    assert [ids(streams[0]), ids(streams[2])] == [expected[0], expected[2]]
    assert list(streams[1])[-1].reason == "cancelled"


def test_a_layer_whose_logits_are_no_numbers_guesses_nothing(make):
    prompt = Prompt.of([ids_of(20)])
    answer = ids(make("sure", guesses=False).submit(prompt, greedy(20)))
    engine = make("sure")
    program = engine.guessing.drafter._program
    run = program.run
    program.run = lambda rows: [(id, chance * float("nan"), after) for id, chance, after in run(rows)]
    stream = engine.submit(prompt, greedy(20))
    assert ids(stream) == answer
    assert stream.guessed == 0
