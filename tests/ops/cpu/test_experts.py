"""Experts: where rows go, and products that are those of `linear` with each row's own matrices, to the bit."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from samples import FEW, FLOATS, QUANTISED, agree, close, normal, raw

from opsin.errors import ModelError
from opsin.ops import Raw
from opsin.ops.reference import Reference
from opsin.ops.routes import Routing
from opsin.quants import BY_NAME

WAYS = {
    "softmax": Routing(3),
    "softmax as it is": Routing(3, normalised=False),
    "sigmoid": Routing(3, "sigmoid", scale=2.5),
    "sigmoid as it is": Routing(1, "sigmoid", normalised=False),
    "groups": Routing(3, "sigmoid", groups=4, used_groups=2),
    "groups of a softmax": Routing(2, groups=6, used_groups=3),
    "all": Routing(12),
}


def inputs_of(name: str) -> int:
    return max(64, BY_NAME[name].elements)


def part_of(tensor: Raw, first: int, outputs: int) -> Raw:
    def read(start, stop, into):
        tensor.read(first + start, first + stop, into)

    return Raw(tensor.name, tensor.type, (outputs, tensor.shape[1]), read)


def routed(ops, rows: int, experts: int, how: Routing, seed: int = 0):
    return ops.route(ops.constant(normal(rows, experts, seed=seed)), how)


@pytest.mark.parametrize("name", [*FLOATS, *QUANTISED])
@pytest.mark.parametrize("outputs", [77, 64])
def test_products_are_those_of_linear(ops, name, outputs):
    """Few rows and many of one expert, some experts with none."""
    experts, inputs = 6, inputs_of(name)
    tensor, bias = raw(name, experts * outputs, inputs), normal(experts, outputs)
    stack = ops.pack_experts(tensor, experts)
    assert stack.shape == (experts, outputs, inputs)
    weights = [ops.pack(part_of(tensor, e * outputs, outputs)) for e in range(experts)]
    for rows in (1, 2, 5, 40):
        x, routes = normal(rows, inputs), routed(ops, rows, experts, Routing(2), seed=rows)
        spread = ops.spread(ops.constant(x), routes)
        got = ops.experts(spread, stack, routes, ops.constant(bias)).numpy().reshape(-1, outputs)
        chosen, places = routes.experts.numpy(), routes.places.numpy()
        for row in range(rows):
            for s in range(2):
                e = int(chosen[row, s])
                alone = ops.linear(ops.constant(x[row : row + 1]), weights[e], ops.constant(bias[e])).numpy()[0]
                np.testing.assert_array_equal(got[places[row, s]], alone)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("biased", [False, True])
def test_routes_are_those_of_the_definition(ops, way, biased):
    for rows in (1, 7, 50):
        logits, bias = 3 * normal(rows, 12), normal(12, seed=1) if biased else None
        gains = normal(12, seed=2)

        def run(o, logits=logits, bias=bias, gains=gains):
            return o.route(o.constant(logits), WAYS[way], None if bias is None else o.constant(bias), o.constant(gains))

        got, wanted = run(ops), run(Reference(wide=True))
        for name in ("experts", "pairs", "places"):
            np.testing.assert_array_equal(getattr(got, name).numpy(), getattr(wanted, name).numpy())
        close(got.shares.numpy(), wanted.shares.numpy(), 1e-6)


def test_of_equal_experts_the_first_is_chosen(ops):
    logits = np.zeros((3, 12), np.float32)
    logits[1, [4, 9, 11]] = 1
    logits[2] = -np.inf
    chosen = ops.route(ops.constant(logits), Routing(4, "sigmoid")).experts.numpy()
    np.testing.assert_array_equal(chosen, [[0, 1, 2, 3], [4, 9, 11, 0], [0, 1, 2, 3]])
    in_groups = ops.route(ops.constant(logits), Routing(4, "sigmoid", groups=3, used_groups=1)).experts.numpy()
    np.testing.assert_array_equal(in_groups, [[0, 1, 2, 3], [9, 11, 8, 10], [0, 1, 2, 3]])


def test_scores_that_round_alike_do_not_hide_which_is_larger(ops):
    logits = np.float32([[30, 20, 31, 25]])
    assert ops.route(ops.constant(logits), Routing(2, "sigmoid")).experts.numpy().tolist() == [[2, 0]]


def test_a_bias_changes_the_choice_alone(ops):
    logits, bias = np.float32([[2, 1, 0, -1]]), np.float32([0, 0, 0, 9])
    routes = ops.route(ops.constant(logits), Routing(2, "sigmoid", normalised=False), ops.constant(bias))
    assert routes.experts.numpy().tolist() == [[3, 0]]
    np.testing.assert_allclose(routes.shares.numpy(), [1 / (1 + np.exp([1.0, -2.0]))], rtol=1e-6)


def test_a_row_with_a_nan_spoils_no_other(ops):
    logits, values = normal(6, 12), normal(6, 64)
    stack = ops.pack_experts(raw("Q8_0", 12 * 32, 64), 12)

    def run(logits, values):
        routes = ops.route(ops.constant(logits), Routing(3))
        return ops.join(ops.experts(ops.spread(ops.constant(values), routes), stack, routes), routes).numpy()

    sound = run(logits, values)
    logits[2, 5] = logits[4] = np.nan
    values[4] = np.nan
    spoilt = run(logits, values)
    assert np.isnan(spoilt[[2, 4]]).all()
    np.testing.assert_array_equal(np.delete(spoilt, [2, 4], 0), np.delete(sound, [2, 4], 0))


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("width", [1, 40, 67])
def test_spread_and_join_are_those_of_the_definition(ops, weighed, width):
    x, more, logits = normal(9, width), normal(9, width, seed=1), normal(9, 12)

    def run(o, residual):
        routes = o.route(o.constant(logits), Routing(3))
        places = o.spread(o.constant(x), routes, weighed=weighed)
        return o.join(places, routes, o.constant(more) if residual else None, weighed=weighed)

    for residual in (False, True):
        agree(ops, lambda o, residual=residual: run(o, residual), 1e-6)


def feed_forward(ops, x, logits, name):
    """A whole part: routes, two products, a gate, the way back."""
    experts, inner = 8, inputs_of(name)
    up, gate = (ops.pack_experts(raw(name, experts * inner, x.shape[1], seed=i), experts) for i in range(2))
    down, routes = ops.pack_experts(raw(name, experts * 77, inner, seed=2), experts), ops.route(logits, Routing(3))
    there = ops.spread(x, routes)
    middle = ops.glu(ops.experts(there, gate, routes), ops.experts(there, up, routes), "silu")
    return ops.join(ops.experts(middle, down, routes), routes)


@pytest.mark.parametrize("name", ["F16", "Q4_K", "Q8_0"] if FEW else ["F32", "F16", "BF16", "Q4_0", "Q4_K", "Q6_K"])
def test_rows_alone_in_chunks_and_with_other_threads(teams, name):
    rows, width = 70, inputs_of(name)
    x, logits = normal(rows, width), normal(rows, 8)

    def run(threads, at):
        ops = teams[threads].eager()
        return feed_forward(ops, ops.constant(x[at]), ops.constant(logits[at]), name).numpy()

    whole = run(2, slice(0, rows))
    for threads in (1, 3):
        np.testing.assert_array_equal(run(threads, slice(0, rows)), whole)
    for size in (1, 3, 26):
        for start in range(0, rows, size * 5):
            at = slice(start, min(start + size, rows))
            np.testing.assert_array_equal(run(2, at), whole[at])


def test_a_program_of_any_number_of_rows(cpu, ops):
    x, logits = normal(40, 64), normal(40, 8)
    recorded_ops, recording = cpu.record()
    count = recording.count("rows", 40)
    given = recording.input(recorded_ops, "x", (count, 64), "f32")
    router = recording.input(recorded_ops, "logits", (count, 8), "f32")
    program = recording.finish({"y": feed_forward(recorded_ops, given, router, "Q8_0")})
    for rows in (40, 1, 17, 0, 2):
        program.inputs["x"][:rows], program.inputs["logits"][:rows] = x[:rows], logits[:rows]
        program.run(rows=rows)
        if rows:
            wanted = feed_forward(ops, ops.constant(x[:rows]), ops.constant(logits[:rows]), "Q8_0").numpy()
            np.testing.assert_array_equal(program.output("y")[:rows], wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is locked by a call of Linux")
@pytest.mark.parametrize("rows", [1, 3])
def test_only_the_experts_that_rows_chose_are_read(rows):
    """All others are locked: whoever reads one byte of them dies. So the bytes read are those of the touched."""
    script = f"""
        import ctypes, mmap
        import numpy as np
        from samples import raw, normal
        from opsin.config import from_environment
        from opsin.ops.cpu import Cpu
        from opsin.ops.routes import Routing

        ops = Cpu(from_environment(), threads=2).eager()
        experts, libc = 16, ctypes.CDLL(None, use_errno=True)
        stack = ops.pack_experts(raw("Q8_0", experts * 256, 512), experts)
        x, logits = normal({rows}, 512), normal({rows}, experts)

        def run():
            routes = ops.route(ops.constant(logits), Routing(3))
            return ops.experts(ops.spread(ops.constant(x), routes), stack, routes).numpy(), routes.experts.numpy()

        free, chosen = run()
        touched, size = set(chosen.reshape(-1).tolist()), stack.expert_bytes
        locked = 0
        for e in sorted(set(range(experts)) - touched):
            first = -(-(stack.block.address + e * size) // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (stack.block.address + (e + 1) * size) // mmap.PAGESIZE * mmap.PAGESIZE
            assert libc.mprotect(ctypes.c_void_p(first), ctypes.c_size_t(last - first), 0) == 0
            locked += last - first
        assert locked > (experts - len(touched)) * (size - 2 * mmap.PAGESIZE)
        np.testing.assert_array_equal(run()[0], free)
        print(len(touched))
        libc.mprotect(ctypes.c_void_p(first), ctypes.c_size_t(mmap.PAGESIZE), 0)
        import os; os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd="tests/ops"
    )
    assert done.returncode == 0, done.stderr
    assert 3 <= int(done.stdout) <= 3 * rows


def test_wrong_shapes_are_refused(ops):
    stack, routes = ops.pack_experts(raw("F32", 4 * 33, 64), 4), routed(ops, 5, 4, Routing(2))
    x = ops.spread(ops.constant(normal(5, 64)), routes)
    with pytest.raises(ModelError, match="those of 5 experts"):
        ops.pack_experts(raw("F32", 4 * 33, 64), 5)
    with pytest.raises(ModelError, match="chosen from"):
        routed(ops, 5, 4, Routing(5))
    with pytest.raises(ModelError, match="chosen from"):
        routed(ops, 5, 4, Routing(3, groups=2, used_groups=1))
    with pytest.raises(ModelError, match="gains"):
        ops.route(ops.constant(normal(5, 4)), Routing(2), gains=ops.constant(normal(5)))
    with pytest.raises(ModelError, match="is needed"):
        ops.experts(ops.spread(ops.constant(normal(5, 65)), routes), stack, routes)
    with pytest.raises(ModelError, match="routes to 8 experts"):
        more = routed(ops, 5, 8, Routing(2))
        ops.experts(ops.spread(ops.constant(normal(5, 64)), more), stack, more)
    with pytest.raises(ModelError, match="bias"):
        ops.experts(x, stack, routes, ops.constant(normal(33)))
    with pytest.raises(ModelError, match="spread"):
        ops.spread(ops.constant(normal(6, 64)), routes)
    with pytest.raises(ModelError, match="join"):
        ops.join(ops.constant(normal(5, 64)), routes)
    with pytest.raises(ModelError, match="residual"):
        ops.join(x, routes, ops.constant(normal(5, 65)))


@pytest.mark.parametrize("width", [1, 40, 67])
def test_a_gate_of_the_row_itself_is_that_of_the_definition(ops, width):
    x, by, w, more = normal(9, width), normal(9, 50, seed=1), normal(50), normal(9, width, seed=2)

    def run(o, residual):
        return o.gated(o.constant(x), o.constant(by), o.constant(w), o.constant(more) if residual else None)

    for residual in (False, True):
        agree(ops, lambda o, residual=residual: run(o, residual), 1e-6)
    with pytest.raises(ModelError, match="gated"):
        ops.gated(ops.constant(x), ops.constant(by), ops.constant(normal(51)))
    with pytest.raises(ModelError, match="residual"):
        ops.gated(ops.constant(x), ops.constant(by), ops.constant(w), ops.constant(normal(9, 68)))


def test_the_clamped_glu_is_that_of_the_definition(ops):
    gate, up = 6 * normal(9, 67), 6 * normal(9, 67, seed=1)
    assert (np.abs(gate) > 7).any() and (np.abs(up) > 7).any()
    agree(ops, lambda o: o.glu(o.constant(gate), o.constant(up), "swiglu_oai"))
    gate[2, 3] = up[5, 1] = np.nan
    spoilt = np.isnan(ops.glu(ops.constant(gate), ops.constant(up), "swiglu_oai").numpy())
    assert np.argwhere(spoilt).tolist() == [[2, 3], [5, 1]]
