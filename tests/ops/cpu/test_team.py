"""The team of threads: programs from anywhere, one at a time; stopped, forked, closed, idle, beside others' work."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest
from samples import normal, raw
from waiting import wait_for

from opsin.config import from_environment
from opsin.errors import DeviceError
from opsin.ops.cpu import Cpu, cells
from opsin.ops.cpu.program import Entry, Program
from opsin.ops.device import Stopped


def add_one_often(cpu, times: int, width: int = 64, most: int = 64):
    """A program of `times` operations: x + times."""
    ops, tape = cpu.record()
    x, one = tape.input(ops, "x", (tape.count("rows", most), width), "f32"), ops.constant(np.ones(width, np.float32))
    for _ in range(times):
        x = x + one
    return tape.finish({"y": x})


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 63, 64])
def test_every_item_is_done_once_by_any_number_of_threads(teams, threads, rows):
    program = add_one_often(teams[threads], 40)
    assert teams[threads].threads == threads
    program.inputs["x"][:] = np.arange(64)[:, None]
    for _ in range(20):
        program.run(rows=rows)
        np.testing.assert_array_equal(program.output("y")[:rows], program.inputs["x"][:rows] + 40)


def test_a_cpu_that_reorders_stores_is_told_between_tickets_and_counts(monkeypatch):
    cpu = Cpu(from_environment(), threads=2)
    team, roles = cpu.team, []
    enter = team._enter
    monkeypatch.setattr(team, "_settles", True)
    monkeypatch.setattr(team, "_enter", lambda thread, role: (roles.append(role), enter(thread, role))[1])
    program = add_one_often(cpu, 3)
    program.inputs["x"][:] = 1
    program.run(rows=64)
    np.testing.assert_array_equal(program.output("y"), np.full((64, 64), 4))
    assert roles == [cells.SETTLE, cells.LEAD]
    cpu.close()


def test_an_operation_waits_until_all_that_it_reads_is_there(teams):
    """A chain of matrices, each of whose results needs the whole one before."""
    tensor, results = raw("F32", 256, 256), {}
    for threads in (1, 2, 3):
        ops, tape = teams[threads].record()
        weight, x = ops.pack(tensor), tape.input(ops, "x", (tape.count("rows", 16), 256), "f32")
        y = x
        for _ in range(12):
            y = ops.rms_norm(ops.linear(y, weight), None, 1e-5)
        program, results[threads] = tape.finish({"y": y}), []
        for run in range(40):
            program.inputs["x"][:] = normal(16, 256, seed=run)
            program.run(rows=16)
            results[threads].append(program.output("y").copy())
    np.testing.assert_array_equal(results[2], results[1])
    np.testing.assert_array_equal(results[3], results[1])


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_impossible_numbers_of_threads_are_refused(threads):
    from opsin.ops.cpu.team import Team

    cpu = Cpu(from_environment(), threads=1)
    with pytest.raises(DeviceError, match=f"{threads} threads"):
        Team(cpu.code, threads)
    cpu.close()


class TestStop:
    @pytest.fixture
    def cpu(self):
        device = Cpu(from_environment(), threads=2)
        yield device
        device.close()

    def test_ends_a_long_program_early_and_resume_recovers(self, cpu):
        program = add_one_often(cpu, 1000, width=2048, most=512)
        program.inputs["x"][:] = 1
        began = time.perf_counter()
        program.run(rows=512)
        whole = time.perf_counter() - began
        go = cpu.team._cells[cells.GO // 8 :]

        def stop(epoch):
            while go[0] == epoch:
                time.sleep(1e-4)
            time.sleep(whole / 10)
            cpu.team.stop()

        def is_stopped():
            """Whether a program of which a part ran was ended; it may have been over before, on a busy machine."""
            cpu.team.resume()
            stopper = threading.Thread(target=stop, args=(int(go[0]),))
            stopper.start()
            try:
                program.run(rows=512)
            except Stopped:
                return True
            finally:
                stopper.join()
            return False

        assert any(is_stopped() for _ in range(20))
        with pytest.raises(Stopped):  # until resumed
            cpu.eager().scale(cpu.eager().constant(normal(2, 2)), 2.0)
        cpu.team.resume()
        program.run(rows=512)
        np.testing.assert_array_equal(program.output("y"), 1001)

    def test_without_a_running_program_stops_the_next_one(self, cpu):
        program = add_one_often(cpu, 3)
        cpu.team.stop()
        with pytest.raises(Stopped):
            program.run(rows=1)
        cpu.team.resume()
        program.inputs["x"][:] = 1
        program.run(rows=1)
        assert (program.output("y")[0] == 4).all()


class TestClose:
    def test_ends_the_threads_and_nothing_runs_afterwards(self):
        before = set(threading.enumerate())
        cpu = Cpu(from_environment(), threads=3)
        program = add_one_often(cpu, 3)
        program.run(rows=1)
        assert len(set(threading.enumerate()) - before) == 2
        cpu.close()
        assert not set(threading.enumerate()) - before
        with pytest.raises(DeviceError, match="closed"):
            program.run(rows=1)
        with pytest.raises(DeviceError, match="closed"):
            cpu.eager().scale(cpu.eager().constant(normal(2, 2)), 2.0)
        cpu.close()  # again: nothing happens


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="no clocks of threads on this platform")
def test_an_idle_team_uses_next_to_no_processor():
    cpu = Cpu(from_environment(), threads=3)
    add_one_often(cpu, 3).run(rows=1)
    clocks = [time.pthread_getcpuclockid(worker.ident) for worker in cpu.team._workers]
    if sys.platform == "linux":
        wait_for(lambda: cpu.team._cells[cells.SLEEPERS // 8] == 2)
    time.sleep(0.2)
    before = [time.clock_gettime(clock) for clock in clocks]
    time.sleep(1.0)
    used = [time.clock_gettime(clock) for clock in clocks]
    cpu.close()
    assert max(now - then for now, then in zip(used, before, strict=True)) < 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads nap")
def test_idle_threads_are_asleep_until_they_are_woken():
    cpu = Cpu(from_environment(), threads=3)
    program = add_one_often(cpu, 3)
    for _ in range(5):
        program.run(rows=64)
        wait_for(lambda: cpu.team._cells[cells.SLEEPERS // 8] == 2)
    cpu.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads nap")
def test_who_sleeps_for_others_items_is_not_lost_when_nobody_wakes_it():
    """A thread that is put aside before it sleeps may do so when its run is over and the next has none of its items."""
    real, slept, cpu = ctypes.CDLL(None), [], Cpu(from_environment(), threads=2)
    go = cpu.team._address + cells.GO

    @ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)
    def syscall(number, word, action, value, limit):
        if word != go:
            if action != 128:
                return 0  # nobody is woken
            slept.append(limit)
        return real.syscall(*map(ctypes.c_int64, (number, word, action, value, limit)))

    @ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 6)
    def kernel(result, exception, args, first, last, thread):
        time.sleep(0.02 * first)
        return 0

    cpu.team._put(cells.SYSCALL_FUNCTION, ctypes.cast(syscall, ctypes.c_void_p).value)
    cpu.team._put(cells.SLEEP_TIME + 8, 1_000_000)
    args, items = np.zeros(1, np.int64), np.array([2])
    address = ctypes.cast(kernel, ctypes.c_void_p).value
    program = Program([Entry("waits", address, args, items.ctypes.data, 1, (), (), (args, items))])
    for _ in range(100):
        cpu.team.run(program)
        if slept:
            break
    cpu.close()
    assert slept


def test_two_python_threads_take_turns(cpu):
    """Programs of two threads, many of each, all right: the team does one at a time."""
    wrong: list[object] = []

    def work(seed: int) -> None:
        program, ops, x = add_one_often(cpu, 5, width=40), cpu.eager(), normal(64, 40, seed=seed)
        for turn in range(150):
            program.inputs["x"][:] = turn + seed
            program.run(rows=64)
            if not (program.output("y") == np.float32(turn + seed + 5)).all():
                wrong.append((seed, turn))
            if not (ops.scale(ops.constant(x), 2.0).numpy() == 2 * x).all():
                wrong.append((seed, turn, "eager"))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in (1, 1000, 5000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_thousands_of_short_programs_beside_a_busy_process(teams):
    """More threads than processors and a neighbour: threads are put aside in the middle of everything."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for threads in (2, 3):
            weight = teams[threads].eager().pack(raw("Q4_0", 97, 64))
            ops, tape = teams[threads].record()
            x = tape.input(ops, "x", (tape.count("rows", 4), 64), "f32")
            y = ops.linear(ops.activate(x + x, "silu"), weight)
            program = tape.finish({"y": y})
            inputs = [normal(rows, 64, seed=rows) for rows in (1, 2, 3, 4)]
            wanted = []
            for x in inputs:
                program.inputs["x"][: len(x)] = x
                program.run(rows=len(x))
                wanted.append(program.output("y")[: len(x)].copy())
            for turn in range(2000):
                rows = turn % 4 + 1
                program.inputs["x"][:rows] = inputs[rows - 1]
                program.run(rows=rows)
                assert (program.output("y")[:rows] == wanted[rows - 1]).all(), turn
    finally:
        busy.kill()
        busy.wait()


def test_programs_may_come_and_go_while_threads_are_behind(teams):
    """Each program is dropped after its run: a thread that comes late must not read what is gone."""
    ops, x = teams[3].eager(), normal(2, 40)
    held = ops.constant(x)
    for _ in range(1500):
        assert (ops.scale(held, 2.0).numpy() == 2 * x).all()


class TestLateThreads:
    """A thread may still walk through a run that has ended when the next one is made ready."""

    def test_counts_change_only_when_tickets_of_the_last_run_are_void(self, teams, monkeypatch):
        program, seen = add_one_often(teams[2], 3), []
        header, start = program._tape.header, program._program.start

        def watched(epoch: int) -> None:
            seen.append((int(header[0]), program._program._table[0, cells.ENTRY_TICKET // 8] >> 32 < epoch))
            start(epoch)

        monkeypatch.setattr(program._program, "start", watched)
        for rows in (1, 64, 7):
            program.run(rows=rows)
        assert seen == [(0, True), (1, True), (64, True)]

    def test_counts_outlive_their_recording_while_the_team_may_look_at_them(self, teams):
        program = add_one_often(teams[2], 3)
        program.run(rows=2)
        header = weakref.ref(program._tape.header)
        del program
        gc.collect()
        assert header() is not None
        for _ in range(2):
            add_one_often(teams[2], 1).run(rows=1)

        def is_gone():
            add_one_often(teams[2], 1).run(rows=1)
            gc.collect()
            return header() is None

        wait_for(is_gone)  # not for ever


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_use_after_a_fork_raises_in_the_child_and_not_in_the_parent():
    program = textwrap.dedent("""
        import os, warnings
        import numpy as np
        from opsin.config import from_environment
        from opsin.errors import DeviceError
        from opsin.ops.cpu import Cpu

        warnings.simplefilter("ignore")  # newer Pythons warn of a fork with threads
        cpu = Cpu(from_environment(), threads=2)
        ops = cpu.eager()
        x = ops.constant(np.ones((2, 8), np.float32))
        assert ((x + x).numpy() == 2).all()
        child = os.fork()
        if child == 0:
            try:
                x + x
            except DeviceError as error:
                cpu.close()  # harms nobody
                os._exit(7 if "fork" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert ((x + x).numpy() == 2).all()
        cpu.close()
        print("both as they should")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.stdout == "both as they should\n", done.stderr


ENDS = {"open": "", "dropped": "del cpu; import gc; gc.collect(); time.sleep(0.1)", "closed": "cpu.close()"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_process_with_an_open_team_ends_well(end):
    """Threads that wait in compiled code must not find it gone."""
    program = f"""
        import time
        from opsin.config import from_environment
        from opsin.ops.cpu import Cpu
        cpu = Cpu(from_environment(), threads=3)
        {end}
    """
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=600, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
