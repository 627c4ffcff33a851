"""Thoughts of a reply: their length is held, whatever a model would write; what follows them keeps to its form."""

from __future__ import annotations

import numpy as np
import pytest
from forms import Anything, Places
from tiny import Shape
from waiting import until

from opsin.engine.engine import Engine
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.engine.thinking import Thinking, ThoughtMarkers
from opsin.spans import Prompt

WIDTH = Shape().vocabulary
OPEN, CLOSE, SPACE = 60, (61, 62), 63
PIECES = {OPEN: b"<t>", 61: b"</", 62: b"t>", SPACE: b"\n", 64: "\u00e9".encode()[:1], 65: "\u00e9".encode()[1:]}
FREE = object()


def markers(opening=(OPEN,), opens=b"<t>"):
    return ThoughtMarkers(opens, b"</t>", opening, CLOSE, (SPACE,), lambda id: PIECES.get(id, bytes([97 + id % 26])))


def allowed(held):
    mask = held.mask()
    return FREE if mask is None else set(np.flatnonzero(np.unpackbits(mask, bitorder="little")[:WIDTH]).tolist())


def taken(held, ids):
    """What might come before each of these ids, and after the last."""
    seen = []
    for id in ids:
        seen.append(allowed(held))
        assert seen[-1] is FREE or id in seen[-1]
        held.accept(id)
    return [*seen, allowed(held)]


@pytest.mark.parametrize("most", [0, 1, 5])
def test_thoughts_that_the_prompt_began_end_after_so_many_tokens(most):
    held = Thinking(markers(), WIDTH, thinking=True, most=most)
    seen = taken(held, [1] * most + [*CLOSE, 2])
    assert seen == [FREE] * most + [{CLOSE[0]}, {CLOSE[1]}, FREE, FREE]


def test_what_is_forced_is_the_end_of_thoughts_and_what_the_form_forces_behind_them():
    held = Thinking(markers(), WIDTH, thinking=True, most=1, form=Places({1, 3}, {2}, {4}), ends={7})
    seen = []
    for id in (9, *CLOSE, 1, 2, 4):
        seen.append([*held.forced()])
        held.accept(id)
    assert seen == [[], [*CLOSE], [CLOSE[1]], [], [2, 4], [4]]


def test_thoughts_that_the_reply_begins_are_counted_from_there():
    held = Thinking(markers(), WIDTH, thinking=False, most=2)
    assert taken(held, [1, 1, 1, OPEN, 1, 1, *CLOSE]) == [FREE] * 6 + [{61}, {62}, FREE]


def test_thoughts_that_end_in_time_are_left_alone_and_later_ones_have_the_rest():
    held = Thinking(markers(), WIDTH, thinking=True, most=5)
    assert taken(held, [1, 1, *CLOSE, 1, OPEN, 1, 1]) == [FREE] * 8 + [{61}]


def test_nothing_is_counted_outside_of_thoughts():
    held = Thinking(markers(), WIDTH, thinking=None, most=2)
    assert taken(held, [1] * 9) == [FREE] * 10


def test_thoughts_end_behind_a_whole_character():
    held = Thinking(markers(), WIDTH, thinking=True, most=1)
    assert taken(held, [64, 65]) == [FREE, FREE, {61}]


def test_a_marker_in_several_tokens_is_seen():
    spelt = ThoughtMarkers(b"<t>", b"</t>", (5, 6), CLOSE, (), {5: b"a<", 6: b"t>", 7: b"x<", 8: b"/t>"}.get)
    held = Thinking(spelt, WIDTH, thinking=False, most=3)
    assert taken(held, [5, 6, 7, 8, 7, 7, 7]) == [FREE] * 8


def test_a_form_begins_with_the_reply_unless_that_begins_with_thoughts():
    held = Thinking(markers(), WIDTH, thinking=False, form=Places({1}, {2}), ends={7})
    assert taken(held, [1, 2][:1]) == [{1, OPEN}, {2}]
    assert not held.ended
    held.accept(2)
    assert held.ended


def test_a_form_begins_behind_thoughts_and_an_end_of_a_line():
    thoughts = set(range(WIDTH)) - {7}
    for space in ([], [SPACE]):
        held = Thinking(markers(), WIDTH, thinking=False, form=Places({1}, {2}), ends={7})
        seen = taken(held, [OPEN, 9, *CLOSE, *space, 1, 2][:-1])
        assert seen == [{1, OPEN}, thoughts, thoughts, thoughts, {1, SPACE}, *[{1}][: len(space)], {2}]
        held.accept(2)
        assert held.ended


def test_a_form_is_not_met_in_thoughts_that_are_ended_by_force():
    held = Thinking(markers(), WIDTH, thinking=True, most=0, form=Places({1}), ends={7})
    assert not held.ended
    assert taken(held, [*CLOSE]) == [{61}, {62}, {1, SPACE}]


def test_no_thoughts_come_where_the_prompt_ended_them():
    held = Thinking(markers(), WIDTH, thinking=None, form=Places({1}), ends={7})
    assert taken(held, []) == [{1}]


def test_a_form_that_lets_all_goes_on_behind_thoughts():
    held = Thinking(markers(), WIDTH, thinking=False, most=1, form=Anything())
    assert taken(held, [1, OPEN, 1, *CLOSE, 3])[-1] is FREE
    assert not held.ended


def test_an_engine_holds_thoughts_to_their_length(decoder):
    runner = Runner(*decoder, Limits(rows=64, outputs=16, sequences=16, context=512, pages=60), "f16")
    engine = Engine(runner, frozenset({7}))
    sampling, prompt = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True), Prompt.of([[1, 2, 3]])
    ids = [out.id for out in engine.submit(prompt, sampling)]
    held = [
        [
            out.id
            for out in engine.submit(prompt, sampling, constraint=Thinking(markers(), WIDTH, thinking=True, most=m))
        ]
        for m in (4, None)
    ]
    assert held[0][:6] == [*ids[:4], *CLOSE]
    assert held[1] == ids
    assert until(lambda: engine.pool.free == 60)
    engine.close()
