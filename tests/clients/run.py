"""Unmodified clients on `opsin serve`, in one environment of their own.

    python tests/clients/run.py [--only NAME ...] [--environment FOLDER]

Makes the environment once (requirements.txt, and package.json where Node is), starts a server of SmolLM2 and one of
opsin-nano on loopback, and runs `with_*.py` and `with_*.mjs`, of which the suite knows nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from real_model import fetch  # noqa: E402


def environment(folder: Path) -> Path:
    """The Python of the clients, and beside it their packages for Node."""
    python, wanted = folder / "env/bin/python", HERE / "requirements.txt"
    mark, stamp = folder / "installed", wanted.read_text(encoding="utf-8")
    if not mark.exists() or mark.read_text(encoding="utf-8") != stamp:
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)  # pip resolves this for an hour
        subprocess.run([python, "-m", "uv", "pip", "install", "--python", python, "-r", str(wanted)], check=True)
        mark.write_text(stamp, encoding="utf-8")
    packages, copied = (HERE / "package.json").read_bytes(), folder / "package.json"
    if shutil.which("npm") and not (copied.exists() and copied.read_bytes() == packages):
        copied.write_bytes(packages)
        subprocess.run(["npm", "install", "--silent"], cwd=folder, check=True)
    return python


@contextmanager
def serving(model: Path | None, port: int, log: Path) -> Iterator[str]:
    """A server of a model (None: the bundled one); gives its address."""
    command = [str(Path(sys.executable).with_name("opsin")), "serve", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen([*command, *(["-m", str(model)] if model else [])], stderr=output)
        try:
            _await_health(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _await_health(address: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(address + "/health")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("the server ended")


def run(python: Path, folder: Path, names: list[str], addresses: dict[str, str]) -> int:
    """Run the clients; 0 where all are content."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**kept, **addresses, "LLM_USER_PATH": str(folder / "llm"), "DSPY_CACHEDIR": str(folder / "dspy"),
                   "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                   "NODE_PATH": str(folder / "node_modules")}  # fmt: skip
    failed = []
    for path in sorted((*HERE.glob("with_*.py"), *HERE.glob("with_*.mjs"))):
        if names and not any(name in path.stem for name in names):
            continue
        command = [str(python), "-m", "pytest", "-q", "--tb=short", "--confcutdir", str(HERE), "-c", os.devnull]
        command = [*command, "--rootdir", str(HERE), "-p", "no:cacheprovider", str(path)]
        if path.suffix == ".mjs":
            shutil.copy(path, folder)  # Node looks for packages beside the program
            command = ["node", "--test", str(folder / path.name)]
        print(f"== {path.stem}", flush=True)
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(path.stem)
    print("failed: " + ", ".join(failed) if failed else "all are content")
    return len(failed) > 0


def main() -> int:
    """Make the environment, start the servers, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="clients whose file has this in its name")
    default = platformdirs.user_cache_path("opsin-clients", appauthor=False)
    parser.add_argument("--environment", type=Path, default=default, metavar="FOLDER", help="where it is, or is made")
    parser.add_argument("--ports", type=int, nargs=2, default=(18081, 18082), help="of the two servers")
    args = parser.parse_args()
    folder = args.environment.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    with (
        serving(fetch(), args.ports[0], folder / "text.log") as text,
        serving(None, args.ports[1], folder / "sight.log") as sight,
    ):
        return run(python, folder, args.only, {"OPSIN_TEXT": text, "OPSIN_SIGHT": sight})


if __name__ == "__main__":
    sys.exit(main())
