"""`pip install .` from nothing: brings no other package than those listed, stays small, and gives a command.

    python tools/check_install.py       # compares with tools/distributions.txt; exits with 1 where something differs

Makes a new environment in a temporary folder. Needs pip, and a network unless pip has all it needs in its cache.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tools" / "distributions.txt"
MOST_BYTES = 400_000_000
LIST = "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"


def listed(text: str) -> tuple[set[str], set[str]]:
    """Names that must be there, and names that may be."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    required = {words[0] for words in lines if words[1:] != ["?"]}
    return required, {words[0] for words in lines} - required


def differences(found: set[str], required: set[str], optional: set[str]) -> list[str]:
    """What was installed and not listed, or listed and not installed."""
    more = [f"{name} is installed, but not listed in {LISTED.name}" for name in sorted(found - required - optional)]
    return more + [f"{name} is listed in {LISTED.name}, but not installed" for name in sorted(required - found)]


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def check(folder: Path) -> list[str]:
    """Install into `folder`, and say what is wrong."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # pip of this environment works on the new one, which so holds nothing that opsin did not ask for. What counts is
    # what the packages hold; Python's bytecode beside it, which pip writes or not, is some 58 MB more.
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile", str(ROOT)]
    subprocess.run(install, check=True)
    names = json.loads(subprocess.run([python, "-c", LIST], check=True, capture_output=True, text=True).stdout)
    wrong = differences({normal(name) for name in names}, *listed(LISTED.read_text(encoding="utf-8")))
    used = size(folder)
    if used > MOST_BYTES:
        wrong.append(f"the installation takes {used / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f}")
    shown = subprocess.run([folder / "bin" / "opsin", "--version"], check=False, capture_output=True, text=True)
    if shown.returncode or not shown.stdout.startswith("opsin "):
        wrong.append(f"opsin --version gave {shown.stdout!r} {shown.stderr!r}")
    if not wrong:
        print(f"tools/check_install.py: {len(names)} distributions, {used / 1e6:.0f} MB")
    return wrong


def main() -> int:
    """Check in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = check(Path(folder))
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
