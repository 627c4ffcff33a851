"""Recurrent state: convolutions and the delta rule against their definition, and where states come from and go."""

from __future__ import annotations

import numpy as np
import pytest
from recurrences import LAYER, SLOTS, Rules, convolved, ruled, runs_of
from samples import FEW, agree, normal

from opsin.errors import DeviceError, ModelError
from opsin.ops.recurrence import Runs

# Sequences that begin, go on in place, go on elsewhere, have one row, have none; slots in no order.
TURNS = [
    [(5, -1, 2), (0, 3, 3), (37, -1, 0), (1, -1, 4)],
    [(1, 2, 2), (1, 0, 1), (2, 4, 4), (0, -1, 3)],
    [(3, 2, 3), (18, 0, 0)],
]
HEADS = [(1, 1, 4, 4), (2, 6, 8, 12), (2, 4, 128, 128), (3, 3, 40, 72), (1, 2, 7, 33)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("heads", HEADS[1:3] if FEW else HEADS)
def test_delta(ops, heads, grouped):
    for turn in range(len(TURNS)):
        agree(ops, lambda o, turn=turn: ruled(o, TURNS, heads, grouped)[turn], 5e-6)


@pytest.mark.parametrize("kind", [None, "silu"])
@pytest.mark.parametrize(("channels", "steps"), [(1, 2), (40, 4), (129, 3), (32, 5)])
def test_conv_state(ops, channels, steps, kind):
    for turn in range(len(TURNS)):
        agree(ops, lambda o, turn=turn: convolved(o, TURNS, channels, steps, kind)[turn])


def test_the_order_of_heads_is_another_where_there_are_more_of_values(ops):
    first, other = (ruled(ops, TURNS, (2, 6, 8, 12), grouped)[0].numpy() for grouped in (False, True))
    same = [
        np.array_equal(a, b)
        for a, b in zip(*(x.reshape(-1, 6, 12).swapaxes(0, 1) for x in (first, other)), strict=True)
    ]
    assert same == [True, False, True, True, False, True]


@pytest.mark.parametrize("sizes", [(1,) * 50, (7, 1, 32, 10), (16, 34), (17, 16, 17)])
def test_rows_in_chunks_in_company_and_with_other_threads_are_the_same_bits(teams, sizes):
    rules, others, rows = Rules(50, (2, 4, 16, 40)), Rules(50, (2, 4, 16, 40), seed=50), normal(50, 40, seed=3)
    wanted = rules.run(teams[2].eager(), rules.states(teams[2].eager()), [(50, -1, 0)]).numpy()
    convolution = convolved(teams[2].eager(), [[(50, -1, 0)]], 40, 4, "silu", rows=[rows])[0].numpy()
    for threads, device in teams.items():
        ops, start = device.eager(), 0
        states, got = rules.states(ops), []
        others.run(ops, states, [(50, -1, 3)])
        turns = [[(n, 3 if at == 0 else 1, 1), (n, 0 if at else -1, 0)] for at, n in enumerate(sizes)]
        for turn in turns:
            n = turn[1][0]
            both = Rules(2 * n, rules.heads)
            for name in ("q", "k", "v", "decay", "beta"):
                parts = (getattr(rule, name)[start : start + n] for rule in (others, rules))
                setattr(both, name, np.concatenate(list(parts)))
            got.append(both.run(ops, states, turn).numpy()[n:])
            start += n
        np.testing.assert_array_equal(np.concatenate(got), wanted, f"{threads} threads")
        ends = np.cumsum([0, *sizes])
        pairs = [np.concatenate([-rows[a:b], rows[a:b]]) for a, b in zip(ends, ends[1:], strict=False)]
        parts = convolved(ops, [[(n, -1, 1), turn[1]] for n, turn in zip(sizes, turns, strict=True)], 40, 4, "silu",
                          rows=pairs)  # fmt: skip
        np.testing.assert_array_equal(np.concatenate([p.numpy()[len(p.numpy()) // 2 :] for p in parts]), convolution)


def test_a_state_that_is_read_alone_is_kept_for_whoever_reads_it_next(ops):
    rules, states = Rules(20, (2, 4, 8, 12)), Rules(1, (2, 4, 8, 12)).states(ops)
    rules.run(ops, states, [(10, -1, 2)], slice(0, 10))
    first = rules.run(ops, states, [(10, 2, 0)], slice(10, 20)).numpy()
    rules.run(ops, states, [(10, 2, 1)], slice(0, 10))
    again = rules.run(ops, states, [(10, 2, 3)], slice(10, 20)).numpy()
    np.testing.assert_array_equal(again, first)
    on = rules.run(ops, states, [(10, 0, 2)], slice(10, 20)).numpy()
    assert not np.array_equal(on, first)


def test_layers_have_states_of_their_own(ops):
    states, w, x = ops.states(layers=2, shape=(2, 8), count=1), ops.constant(np.ones((3, 8))), np.ones((4, 8))
    runs, on = runs_of(ops, [(4, -1, 0)]), runs_of(ops, [(1, 0, 0)])
    ops.conv_state(ops.constant(x), w, states, 0, runs)
    ops.conv_state(ops.constant(2 * x), w, states, 1, runs)
    assert (ops.conv_state(ops.constant(x[:1]), w, states, 0, on).numpy() == 3).all()
    assert (ops.conv_state(ops.constant(x[:1]), w, states, 1, on).numpy() == 5).all()


def test_parts_of_wider_rows_are_taken_where_they_lie(ops):
    rules, states = Rules(9, (2, 4, 8, 12)), Rules(1, (2, 4, 8, 12)).states(ops)
    wanted = rules.run(ops, states, [(9, -1, 0)]).numpy()
    whole = ops.constant(np.concatenate([rules.q, rules.k, rules.v, rules.decay, rules.beta], 1))
    parts = [whole[:, a:b] for a, b in ((0, 16), (16, 32), (32, 80), (80, 84), (84, 88))]
    got = ops.delta(*parts, states, LAYER, runs_of(ops, [(9, -1, 1)]), scale=0.3, eps=1e-6)
    np.testing.assert_array_equal(got.numpy(), wanted)
    x, w = normal(9, 88), ops.constant(normal(4, 16))
    results = [
        ops.conv_state(given, w, ops.states(layers=1, shape=(3, 16), count=1), 0, runs_of(ops, [(9, -1, 0)])).numpy()
        for given in (ops.constant(x)[:, 40:56], ops.constant(x[:, 40:56]))
    ]
    np.testing.assert_array_equal(*results)


def test_in_a_recorded_program_sequences_come_and_go(cpu):
    """Inputs have room for three sequences; those that are not there have no rows."""
    ops, tape = cpu.record()
    rows, rules = tape.count("rows", 12), Rules(12, (2, 4, 8, 12))
    names = ("q", "k", "v", "decay", "beta")
    inputs = [tape.input(ops, name, (rows, getattr(rules, name).shape[1]), "f32") for name in names]
    runs = Runs(*(tape.input(ops, name, (n,), "i32") for name, n in (("starts", 4), ("reads", 3), ("writes", 3))))
    states, slots = rules.states(ops), ops.states(layers=2, shape=(3, 48), count=SLOTS)
    w = ops.constant(normal(4, 48))
    mixed = ops.conv_state(inputs[2], w, slots, LAYER, runs, "silu")
    y = ops.delta(inputs[0], inputs[1], mixed, *inputs[3:], states, LAYER, runs, scale=0.3, eps=1e-6)
    program = tape.finish({"y": y})
    wanted_states = (rules.states(cpu.eager()), cpu.eager().states(layers=2, shape=(3, 48), count=SLOTS))
    for turn in ([(5, -1, 0)], [(1, 0, 0), (7, -1, 3), (4, -1, 2)], [(6, 2, 2), (1, 3, 1)]):
        n = sum(count for count, _, _ in turn)
        ends = np.cumsum([count for count, _, _ in turn])
        program.inputs["starts"][:] = [0, *ends, *[n] * (3 - len(turn))]
        program.inputs["reads"][:] = [*(read for _, read, _ in turn), *[99] * (3 - len(turn))]
        program.inputs["writes"][:] = [*(write for _, _, write in turn), *[99] * (3 - len(turn))]
        for name in names:
            program.inputs[name][:n] = getattr(rules, name)[:n]
        program.run(rows=n)
        eager = cpu.eager()
        v = eager.conv_state(
            eager.constant(rules.v[:n]), eager.constant(normal(4, 48)), wanted_states[1], LAYER, runs_of(eager, turn),
            "silu",
        )  # fmt: skip
        given = [eager.constant(getattr(rules, name)[:n]) for name in names]
        given[2] = v
        wanted = eager.delta(*given, wanted_states[0], LAYER, runs_of(eager, turn), scale=0.3, eps=1e-6)
        np.testing.assert_array_equal(program.output("y")[:n], wanted.numpy())


@pytest.mark.parametrize("turn", [[(2, SLOTS, 0)], [(2, 0, SLOTS)], [(2, 0, -1)], [(1, 0, 0), (1, 2**31 - 1, 1)]])
def test_a_slot_that_is_not_there_is_an_error_and_the_team_works_on(ops, turn):
    rules = Rules(2, (2, 4, 8, 12))
    with pytest.raises(DeviceError, match="delta.*no slot for its state"):
        rules.run(ops, rules.states(ops), turn)
    with pytest.raises(DeviceError, match="conv_state.*no slot for its state"):
        convolved(ops, [turn], 8, 4)
    assert np.isfinite(rules.run(ops, rules.states(ops), [(2, -1, SLOTS - 1)]).numpy()).all()


def test_rows_past_the_batch_are_an_error(ops):
    states, rules = Rules(1, (2, 4, 8, 12)).states(ops), Rules(2, (2, 4, 8, 12))
    with pytest.raises(DeviceError, match="no slot"):
        rules.run(ops, states, [(3, -1, 0)])
    with pytest.raises(DeviceError, match="no slot"):
        convolved(ops, [[(3, -1, 0)]], 8, 4, rows=[normal(2, 8)])


def test_what_does_not_go_together_is_refused(ops):
    rules = Rules(3, (2, 4, 8, 12))
    with pytest.raises(ModelError, match="delta"):
        rules.run(ops, ops.states(layers=2, shape=(5, 8, 12), count=1), [(3, -1, 0)])
    with pytest.raises(ModelError, match="delta"):
        rules.run(ops, ops.states(layers=2, shape=(3, 12), count=1), [(3, -1, 0)])
    x, runs = ops.constant(normal(3, 8)), runs_of(ops, [(3, -1, 0)])
    for w, shape in (((4, 9), (3, 8)), ((4, 8), (4, 8)), ((4, 8), (3, 9))):
        with pytest.raises(ModelError, match="conv_state"):
            ops.conv_state(x, ops.constant(normal(*w)), ops.states(layers=1, shape=shape, count=1), 0, runs)
    uneven = Runs(ops.constant(np.zeros(3, np.int32)), runs.reads, runs.writes)
    with pytest.raises(ModelError, match="starts"):
        ops.conv_state(x, ops.constant(normal(4, 8)), ops.states(layers=1, shape=(3, 8), count=1), 0, uneven)


def test_bytes_are_those_of_padded_rows(ops):
    assert ops.states(layers=3, shape=(4, 8, 128), count=2).bytes == 3 * 2 * 4 * 8 * 128 * 4
    assert ops.states(layers=1, shape=(3, 40), count=2).bytes == 2 * 3 * 64 * 4
