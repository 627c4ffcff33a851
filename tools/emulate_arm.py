"""Runs Python with opsin as on ARM: aarch64's Python and wheels, and qemu's emulation of a processor. On Debian.

    python tools/emulate_arm.py FOLDER dotprod -m opsin doctor
    python tools/emulate_arm.py FOLDER i8mm -m pytest tests/ops/cpu/test_linear.py
    python tools/emulate_arm.py FOLDER compare MODEL.gguf      # greedy_ids.py here and on each of MACHINES

FOLDER keeps what is fetched the first time by apt and pip (500 MB; nothing is installed beside it), and kernels, which
the Python that runs this compiles (arm_guest/). Emulation is 20 to 100 times slower than a processor: it says what
comes out, not how fast. Nor does it show what a processor's order of memory may do, since the one below orders stores.
Flags of float arithmetic are raised where a processor raises none: tests pass over what NumPy warns of then.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
GUEST = ("python3", "libstdc++6", "libgomp1")
WITH_TESTS = ("pytest", "pytest-timeout", "hypothesis", "gguf")
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
WORDS = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
NOT_THERE = ("invalid value", "divide by zero", "overflow")
NEWER = f"{WORDS} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Machine:
    """What qemu is told to be, and what /proc/cpuinfo says of it: qemu 7 would show that of the machine below."""

    cpu: str
    part: str
    words: str


MACHINES = {  # by the instruction set that opsin is to choose there
    "portable": Machine("cortex-a72", "0xd08", WORDS),
    "dotprod": Machine("neoverse-n1", "0xd0c", NEWER),
    "i8mm": Machine("max,pauth-impdef=on", "0xd40", f"{NEWER} sha3 sha512 asimdfhm sve i8mm bf16"),
}


def prepare(folder: Path) -> None:
    """Fetch what is not there yet: the emulator, the guest's files, wheels."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "qemu-aarch64-static").exists():
        _fetch_emulator(folder)
    if not (folder / "root").exists():
        _fetch_root(folder)
    if not (folder / "site").exists():
        _fetch_wheels(folder)
    for name, machine in MACHINES.items():
        _write_machine(folder, name, machine)


def _fetch_emulator(folder: Path) -> None:
    _call("apt-get", "-qq", "download", "qemu-user-static", cwd=folder)
    package = next(folder.glob("qemu-user-static_*.deb"))
    _call("dpkg", "-x", package, folder / "emulator")
    (folder / "emulator/usr/bin/qemu-aarch64-static").rename(folder / "qemu-aarch64-static")
    package.unlink()


def _fetch_root(folder: Path) -> None:
    """The guest's packages with what they depend on, unpacked: none needs its scripts."""
    apt, root = folder / "apt", folder / "root.part"
    for part in ("lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    told = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "", "Dir::State": apt,
        "Dir::State::lists": apt / "lists", "Dir::State::status": apt / "status", "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": next(path for path in SOURCES if Path(path).exists()), "Dir::Etc::sourceparts": "-",
    }  # fmt: skip
    options = [f"-o{name}={value}" for name, value in told.items()]
    _call("apt-get", "-qq", *options, "update")
    _call("apt-get", "-qq", *options, "install", "--download-only", "--no-install-recommends", "-y", *GUEST)
    for package in (apt / "cache/archives").glob("*.deb"):
        _call("dpkg", "-x", package, root)
    root.rename(folder / "root")


def _fetch_wheels(folder: Path) -> None:
    """opsin, what it needs and what the tests of operations need. opsin's own code is read where it stands."""
    version = _python(folder).name.removeprefix("python")
    newest = int(platform.libc_ver()[1].split(".")[1])  # the guest's, which is of the same Debian
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, newest + 1))]
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _call(*pip, "wheel", "--no-deps", "--wheel-dir", folder, HERE)
    wheel = next(folder.glob("opsin-*.whl"))
    _call(
        *pip, "install", "--no-compile", "--only-binary=:all:", "--target", folder / "site.part",
        "--implementation", "cp", "--python-version", version, *(f"--platform={tag}" for tag in tags),
        *(f"--abi={abi}" for abi in (f"cp{version.replace('.', '')}", "abi3", "none")), wheel, *WITH_TESTS,
    )  # fmt: skip
    (folder / "site.part").rename(folder / "site")


def _python(folder: Path) -> Path:
    """The guest's Python."""
    found = (folder / "root/usr/bin").iterdir()
    return next(path for path in found if re.fullmatch(r"python3\.\d+", path.name))


def _write_machine(folder: Path, name: str, machine: Machine) -> None:
    """A root of its own, for its /proc/cpuinfo, and the command that is its Python, also for processes it starts."""
    root, command = folder / name, command_of(folder, name)
    (root / "proc").mkdir(parents=True, exist_ok=True)
    for part in ("bin", "etc", "lib", "sbin", "usr"):
        if not (root / part).is_symlink():
            (root / part).symlink_to(folder / "root" / part)
    processor = (
        f"processor\t: {{}}\nFeatures\t: {machine.words}\nCPU implementer\t: 0x41\nCPU part\t: {machine.part}\n\n"
    )
    (root / "proc/cpuinfo").write_text("".join(processor.format(i) for i in range(2)))
    emulator = f'"{folder}/qemu-aarch64-static" -cpu {machine.cpu} -0 "$0" -L "{root}" "{_python(folder)}"'
    passed_over = " ".join(f"-W 'ignore:{what} encountered:RuntimeWarning'" for what in NOT_THERE)
    command.write_text(
        f'#!/bin/sh\nexport PYTHONHOME="{folder}/root/usr" PYTHON_BELOW="{sys.executable}"\n'
        f'export PYTHONPATH="{HERE}/tools/arm_guest:{HERE}/src:{folder}/site"\n'
        f'export OPSIN_CACHE="${{OPSIN_CACHE:-{folder}/cache}}" PYTEST_ADDOPTS="{passed_over}"\n'
        f'exec {emulator} "$@"\n'
    )
    command.chmod(0o755)


def command_of(folder: Path, name: str) -> Path:
    """The Python of one of MACHINES."""
    return folder / f"python-{name}"


def compare(folder: Path, *arguments: str) -> bool:
    """Whether each machine chooses its set of instructions and answers as this one with portable code, to the bit.

    A set with longer vectors adds up in another order, and may choose another id where two are as likely.
    """
    script = (HERE / "tools/greedy_ids.py", *arguments)
    here = json.loads(_call(sys.executable, *script, environment={"OPSIN_ISA": "portable"}))
    print(f"here: {len(here['ids'])} answers, {sum(map(len, here['ids'].values()))} ids", flush=True)
    good = True
    for name in MACHINES:
        found = json.loads(_call(command_of(folder, name), *script))
        equal = sum(found["ids"][question] == ids for question, ids in here["ids"].items())
        bits = "the same bits" if found["logits"] == here["logits"] else "other bits"
        print(f"{name}: chose {found['instructions']}, {equal} answers are equal, logits have {bits}", flush=True)
        good = good and found == {**here, "instructions": name}
    return good


def _call(*words: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**os.environ, **(environment or {})}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return done.stdout


def main() -> int:
    """Prepare, then run what is asked for."""
    if len(sys.argv) < 3 or sys.argv[2] not in (*MACHINES, "compare"):
        print(__doc__, file=sys.stderr)
        return 2
    folder, name, rest = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
    prepare(folder)
    if name == "compare":
        return 0 if compare(folder, *rest) else 1
    return subprocess.run([command_of(folder, name), *rest], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
