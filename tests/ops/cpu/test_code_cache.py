"""Compiled kernels on disk: never stale, never torn, never somebody else's; and losing them costs only time."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from samples import normal

import opsin
from opsin.config import from_environment
from opsin.ops.cpu import Cpu, code
from opsin.ops.cpu.code import Code, Kernel, Store, source_key
from opsin.ops.cpu.isa import choose

PACKAGE = Path(opsin.__file__).parent
COPY = Kernel.of("pointwise", name="copy")
ISA = choose(from_environment())
DOUBLE = """
    import sys
    import numpy as np
    from opsin.config import from_environment
    from opsin.ops.cpu import Cpu

    cpu = Cpu(from_environment(), threads=1)
    ops = cpu.eager()
    print(ops.scale(ops.constant(np.full((1, 4), 3, np.float32)), 2.0).numpy()[0].tolist(), cpu.code.compiled)
    cpu.close()
"""


def run(program: str, cache: Path, package: Path = PACKAGE, **environment: str) -> str:
    done = start(program, cache, package, **environment)
    out, errors = done.communicate(timeout=600)
    assert done.returncode == 0, errors
    return out.strip()


def start(program: str, cache: Path, package: Path = PACKAGE, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths, "OPSIN_CACHE": str(cache), **environment},
    )  # fmt: skip


def device(cache: Path) -> Cpu:
    return Cpu(dataclasses.replace(from_environment(), cache=cache), threads=1)


def doubles(cpu: Cpu) -> bool:
    ops, x = cpu.eager(), normal(2, 40)
    right = bool((ops.scale(ops.constant(x), 2.0).numpy() == 2 * x).all())
    cpu.close()
    return right


class TestStaleness:
    @pytest.fixture
    def copy(self, tmp_path) -> Path:
        """The package, to be edited."""
        shutil.copytree(PACKAGE, tmp_path / "opsin", ignore=shutil.ignore_patterns("__pycache__"))
        return tmp_path / "opsin"

    def test_the_key_is_the_same_for_the_same_sources(self, copy):
        assert source_key(ISA, root=copy) == source_key(ISA)

    def test_every_source_of_ops_and_quants_changes_the_key(self, copy):
        seen = {source_key(ISA, root=copy)}
        paths = [*copy.glob("ops/**/*.py"), *copy.glob("quants/**/*.py")]
        assert len(paths) > 30
        for path in paths:
            path.write_bytes(path.read_bytes() + b"#")
            seen.add(source_key(ISA, root=copy))
        assert len(seen) == len(paths) + 1

    def test_a_new_source_and_a_renamed_one_change_the_key(self, copy):
        seen = {source_key(ISA, root=copy)}
        (copy / "quants" / "new.py").write_text("")
        seen.add(source_key(ISA, root=copy))
        (copy / "quants" / "new.py").rename(copy / "quants" / "newer.py")
        seen.add(source_key(ISA, root=copy))
        assert len(seen) == 3

    def test_text_moved_from_one_source_to_the_next_changes_the_key(self, copy):
        """Names and contents are told apart in what is hashed."""
        (copy / "quants" / "a.py").write_text("x")
        (copy / "quants" / "ab.py").write_text("")
        first = source_key(ISA, root=copy)
        (copy / "quants" / "a.py").write_text("")
        (copy / "quants" / "ab.py").write_text("x")
        assert source_key(ISA, root=copy) != first

    def test_compilers_and_cpus_change_the_key(self, monkeypatch):
        seen = {source_key(ISA)}
        for change in ({"cpu": "znver9"}, {"features": "+x"}, {"triple": "riscv64"}, {"name": "other"}):
            seen.add(source_key(dataclasses.replace(ISA, **change)))
        for package in ("numba", "llvmlite"):
            version = code._version
            monkeypatch.setattr(code, "_version", lambda name, p=package, v=version: b"9" if name == p else v(name))
            seen.add(source_key(ISA))
            monkeypatch.undo()
        assert len(seen) == 7

    def test_an_edited_shared_source_is_not_served_stale(self, copy, tmp_path):
        """A process with the edited package, on the same cache folder, computes by the new source."""
        assert run(DOUBLE, tmp_path / "cache", copy) == "[6.0, 6.0, 6.0, 6.0] 2"
        assert run(DOUBLE, tmp_path / "cache", copy) == "[6.0, 6.0, 6.0, 6.0] 0"
        simd = copy / "ops" / "cpu" / "simd.py"
        edited = simd.read_text().replace("lambda b, x, y: b.fmul(x, y))", "lambda b, x, y: b.fadd(x, y))")
        assert edited != simd.read_text()
        simd.write_text(edited)
        assert run(DOUBLE, tmp_path / "cache", copy) == "[5.0, 5.0, 5.0, 5.0] 2"


class TestSharing:
    def test_two_processes_fill_one_cache_at_once(self, tmp_path):
        """Both are right, and a third finds their kernels whole and apart from each other."""
        several = """
            import numpy as np, sys
            from opsin.config import from_environment
            from opsin.ops.cpu import Cpu

            names = sys.argv[1:] or NAMES
            cpu = Cpu(from_environment(), threads=1)
            ops = cpu.eager()
            x = ops.constant(np.full((1, 4), 3, np.float32))
            work = {
                "scale": lambda: ops.scale(x, 2.0), "add": lambda: x + x, "multiply": lambda: x * x,
                "norm": lambda: ops.rms_norm(x, None, 0.0), "relu": lambda: ops.activate(x, "relu"),
            }
            for name in names:
                print(name, work[name]().numpy()[0, 3])
            print(cpu.code.compiled)
            cpu.close()
        """
        wanted = {"scale": 6.0, "add": 6.0, "multiply": 9.0, "norm": 1.0, "relu": 3.0}
        orders = [list(wanted), list(wanted)[::-1]]
        programs = [several.replace("NAMES", repr(order)) for order in orders]
        processes = [start(program, tmp_path) for program in programs]
        for process, order in zip(processes, orders, strict=True):
            out, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
            assert out.split("\n")[:5] == [f"{name} {wanted[name]}" for name in order]
        third = run(programs[0], tmp_path).split("\n")
        assert third == [*(f"{name} {value}" for name, value in wanted.items()), "0"]
        assert not list(tmp_path.rglob(".new-*"))

    def test_no_kernel_compiles_numba_is_not_even_imported(self, tmp_path):
        program = DOUBLE + "    print('numba' in sys.modules)"
        assert run(program, tmp_path).split("\n")[-1] == "True"
        assert run(program, tmp_path).split("\n")[-1] == "False"


class TestUnwritable:
    """The tests may run as root, whom no mode stops: so the folder is made impossible in other ways, too."""

    def test_where_the_folder_is_a_file(self, tmp_path):
        (tmp_path / "cache").write_text("")
        cpu = device(tmp_path / "cache")
        assert doubles(cpu)
        assert cpu.code.compiled == 2
        assert not cpu.code.writable
        assert (tmp_path / "cache").read_text() == ""

    def test_where_new_files_are_refused(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(code.tempfile, "mkstemp", refuse)
        cpu = device(tmp_path)
        assert doubles(cpu)
        assert not cpu.code.writable

    def test_where_the_disk_is_full(self, tmp_path, monkeypatch):
        def full(self, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        cpu = device(tmp_path)
        assert doubles(cpu)
        assert not cpu.code.writable
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_where_the_mode_forbids_it(self, tmp_path):
        tmp_path.chmod(0o500)
        cpu = device(tmp_path)
        assert doubles(cpu)
        assert not cpu.code.writable
        tmp_path.chmod(0o700)

    def test_kernels_that_lie_in_a_folder_that_cannot_be_written_are_used(self, tmp_path, monkeypatch):
        assert doubles(device(tmp_path))
        monkeypatch.setattr(code.tempfile, "mkstemp", lambda **_: (_ for _ in ()).throw(PermissionError()))
        cpu = device(tmp_path)
        assert doubles(cpu)
        assert cpu.code.compiled == 0


class TestDamage:
    @pytest.fixture
    def stored(self, tmp_path) -> tuple[Path, Path]:
        """A cache folder and a kernel's file in it."""
        assert doubles(device(tmp_path))
        return tmp_path, next(tmp_path.rglob("pointwise-*.o"))

    @pytest.mark.parametrize(
        "damage",
        {
            "empty": lambda raw: b"",
            "torn": lambda raw: raw[: len(raw) // 2],
            "one byte short": lambda raw: raw[:-1],
            "one byte more": lambda raw: raw + b"\0",
            "one bit": lambda raw: raw[:1000] + bytes([raw[1000] ^ 4]) + raw[1001:],
            "digest": lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:],
            "another program's": lambda raw: b"\x7fELF" + raw[4:],
            "zeros": lambda raw: bytes(len(raw)),
        }.items(),
        ids=lambda pair: pair[0],
    )
    def test_a_damaged_object_is_made_again(self, stored, damage):
        cache, path = stored
        whole = path.read_bytes()
        path.write_bytes(damage[1](whole))
        cpu = device(cache)
        assert doubles(cpu)
        assert cpu.code.compiled == 1
        again = device(cache)
        assert doubles(again)
        assert again.code.compiled == 0

    @pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
    @pytest.mark.skipif(os.name != "posix", reason="modes of files")
    def test_a_file_that_others_can_write_is_not_executed(self, stored, mode):
        cache, path = stored
        path.chmod(mode)
        cpu = device(cache)
        assert doubles(cpu)
        assert cpu.code.compiled == 1
        assert not path.stat().st_mode & 0o022  # replaced by one of ours

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
    def test_a_file_of_somebody_else_is_not_executed(self, stored, monkeypatch):
        """As another user than root, to whom root's files are good but a third user's are not."""
        cache, path = stored
        os.chown(path, 12345, -1)
        cpu = device(cache)
        assert doubles(cpu)
        assert cpu.code.compiled == 1

    def test_a_folder_where_the_file_should_be_is_survived(self, stored):
        cache, path = stored
        path.unlink()
        path.mkdir()
        cpu = device(cache)
        assert doubles(cpu)
        assert cpu.code.compiled == 1


class TestCompiling:
    def test_nothing_is_compiled_before_it_is_used_and_then_once(self, tmp_path):
        told: list[str] = []
        made = Code(ISA, tmp_path, told.append)
        assert made.compiled == 0
        assert made.loaded == ()
        address = made.address(COPY)
        assert made.address(COPY) == address
        assert made.compiled == 1
        assert made.loaded == (COPY,)
        assert len(told) == 1
        assert "pointwise(name=copy)" in told[0]

    def test_kernels_of_other_options_are_others(self):
        store = Store(Path("somewhere"))
        kernels = [
            Kernel.of("linear", bits=4, group=32), Kernel.of("linear", bits=4, group=16), Kernel.of("linear", bits=5),
            Kernel.of("linear"), Kernel.of("rows", bits=4, group=32),
        ]  # fmt: skip
        assert len({store.path(kernel) for kernel in kernels}) == len(kernels)
        assert Kernel.of("linear", bits=4, group=32) == Kernel.of("linear", group=32, bits=4)

    def test_importing_compiles_nothing(self, tmp_path):
        program = "import sys, opsin, opsin.ops.cpu\nprint('numba' in sys.modules)"
        assert run(program, tmp_path) == "False"
        assert not list(tmp_path.iterdir())

    def test_values_come_out_of_a_kernel_that_was_just_compiled(self, tmp_path):
        cpu = device(tmp_path)
        ops, x = cpu.eager(), normal(3, 7)
        np.testing.assert_array_equal((ops.constant(x) + ops.constant(x)).numpy(), x + x)
        assert cpu.code.compiled == 2
        cpu.close()
