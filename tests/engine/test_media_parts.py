"""One piece of media shown in parts, with text between: encoded once, answered as the ids that it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from melody import melody
from test_media import GREEDY, LIMITS, PATIENCE, ear, engine, ids, notes_of, runner, spell, until  # noqa: F401

from opsin.engine.engine import Engine
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.errors import RequestError
from opsin.spans import Prompt

BREAK = [3]


def verses(notes, wide, **options):
    """A melody line by line, as a picture whose rows end with a token of their own."""
    whole = melody(notes, **options)
    lines = [
        whole.__class__(
            whole.digest, wide, wide, (1, wide), first=first, encoded=len(notes), features=whole.features
        )
        for first in range(0, len(notes), wide)
    ]  # fmt: skip
    return [part for line in lines for part in (line, BREAK)]


def spelt(notes, wide):
    return [part for first in range(0, len(notes), wide) for part in (notes[first : first + wide], BREAK)]


def submit(engine, *parts, sampling=GREEDY):  # noqa: F811
    return engine.submit(Prompt.of(parts), sampling)


@pytest.mark.parametrize(("rows", "wide"), [(12, 4), (60, 5), (150, 30), (128, 64), (9, 1)])
def test_parts_are_answered_as_the_ids_that_they_are_made_of(engine, ear, spell, rows, wide):  # noqa: F811
    tune = tuple(notes_of(rows, 11))
    assert ids(submit(engine, [5, 6], *verses(tune, wide), [7])) == spell([5, 6], *spelt(tune, wide), [7])
    assert ear.heard == 1
    assert len(engine._media.store) == 1


@pytest.mark.parametrize("size", [1, 7, 16])
def test_chunks_that_cut_parts_give_the_same_bits(engine, runner, size):  # noqa: F811
    tune = tuple(notes_of(45, 12))
    engine.embed([melody(tune)])
    prompt, text = Prompt.of([[3], *verses(tune, 9), [4]]), [3, *(i for part in spelt(tune, 9) for i in part), 4]
    whole = engine.call(lambda: runner.score(text, [0, 1]))
    assert np.array_equal(engine.call(lambda: runner.score(prompt, [0, 1], [size] * 60)), whole)


def test_parts_in_any_order_and_more_than_once(engine, ear, spell):  # noqa: F811
    tune = tuple(notes_of(12, 13))
    first, _, second, _, third, _ = verses(tune, 4)
    given = [[1], third, [2], first, second, first]
    assert ids(submit(engine, *given)) == spell([1], tune[8:], [2], tune[:4], tune[4:8], tune[:4])
    assert ear.heard == 1


def test_a_prefix_is_found_in_the_middle_of_the_parts(engine, runner, ear, spell, monkeypatch):  # noqa: F811
    tune = tuple(notes_of(150, 14))
    ids(submit(engine, [5], *verses(tune, 10), [6] * 40))
    rows, step = [], runner.step

    def watched(plan):
        rows.extend(part.rows for part in plan if part.rows > 1)
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    stream = submit(engine, [5], *verses(tune, 10)[:28], [7], [8])
    assert ids(stream) == spell([5], *spelt(tune, 10)[:28], [7], [8])
    assert stream.cached == 128
    assert sum(rows) == 1 + 154 + 2 - 128
    assert ear.heard == 1


def test_other_rows_of_the_same_media_are_another_prompt(engine, spell):  # noqa: F811
    tune = tuple(notes_of(140, 15))
    first, _, second, _ = verses(tune, 70)
    ids(submit(engine, first, [1]))
    stream = submit(engine, second, [1])
    assert ids(stream) == spell(tune[70:], [1])
    assert stream.cached == 0


def test_parts_in_company_are_answered_as_alone(engine, ear, spell):  # noqa: F811
    tunes = [tuple(notes_of(30, seed)) for seed in range(3)]
    jobs = [([i], *verses(tunes[i % 3], 5 + 5 * (i % 2)), [i]) for i in range(9)]
    streams = [submit(engine, *job) for job in jobs]
    wanted = [spell([i], *spelt(tunes[i % 3], 5 + 5 * (i % 2)), [i]) for i in range(9)]
    assert [ids(stream) for stream in streams] == wanted
    assert ear.heard == 3


def test_a_cancelled_prompt_of_parts_leaves_nothing_and_disturbs_nobody(engine, ear, spell):  # noqa: F811
    ear.gate.clear()
    tune, other = tuple(notes_of(40, 16)), tuple(notes_of(40, 17))
    victim, kept = submit(engine, *verses(tune, 8), [1]), submit(engine, *verses(other, 8), [2])
    assert ear.started.wait(PATIENCE)
    victim.cancel()
    ear.gate.set()
    assert ids(kept) == spell(*spelt(other, 8), [2])
    assert until(lambda: engine.pool.free == LIMITS.pages)


def test_a_store_that_keeps_nothing_keeps_what_the_last_part_needs(decoder, ear, spell):  # noqa: F811
    small = Engine(Runner(*decoder, LIMITS, "f16", MediaStore(0)), frozenset(), ear.load(decoder[0]))
    tune = tuple(notes_of(160, 18))  # three steps and more
    answers = [ids(submit(small, *verses(tune, 16), [2])) for _ in range(2)]
    small.close()
    assert answers == [spell(*spelt(tune, 16), [2])] * 2
    assert ear.heard == 1


def test_embeddings_of_parts_are_the_rows_that_they_show(engine, ear):  # noqa: F811
    tune = (1, 2, 3, 4, 5, 6)
    lines = verses(tune, 2)[::2]
    whole = engine.embed([melody(tune)])
    assert np.array_equal(engine.embed(lines), whole)
    assert np.array_equal(engine.embed([lines[2], lines[0]]), whole[[4, 5, 0, 1]])
    assert ear.heard == 1


@pytest.mark.parametrize(("first", "encoded"), [(5, 6), (-1, 6), (2, 3)])
def test_rows_that_nobody_encodes_are_refused(engine, first, encoded):  # noqa: F811
    span = melody((1, 2))
    wrong = span.__class__(span.digest, 2, 2, first=first, encoded=encoded, features=span.features)
    with pytest.raises(RequestError, match=f"shows embeddings {first} to {first + 2} of {encoded}"):
        submit(engine, [1], wrong)


def test_sampled_answers_share_the_rows_of_one_prompt(engine, ear, spell):  # noqa: F811
    tune = tuple(notes_of(66, 19))
    ear.gate.clear()
    jobs = [Sampling(seed=seed, max_tokens=4) for seed in range(3)]
    streams = [submit(engine, *verses(tune, 6), [4], sampling=sampling) for sampling in jobs]
    ear.gate.set()
    assert [ids(s) for s in streams] == [spell(*spelt(tune, 6), [4], sampling=sampling) for sampling in jobs]
    assert ear.heard == 1
