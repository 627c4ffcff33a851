"""README's list of wishes: each line answers, where a tiny model of that family stands under the name it gives."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_hub import as_the_hub
from ollama_store import pull
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent / "models"))
from truths import TOWERS

from opsin.cli.main import run
from opsin.convert.hf import convert

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([^|]+) \| `(opsin chat [^`]+)` \|$", re.MULTILINE)
WISHES = dict(ROW.findall(README.partition("<!-- wishes -->")[2].partition("<!-- /wishes -->")[0]))
FAMILIES = {
    "LLaVA 1.5": "llava",
    "LLaVA 1.6": "llava next of mistral",
    "MiniCPM-V 2.6": "minicpmv2.6",
    "MiniCPM-V 4.5": "minicpmv4.5",
    "Pixtral": "pixtral",
    "Llama 3.2 Vision": "mllama_vision",
    "Mistral Small 3.1": "mistral small",
    "Gemma 3": "gemma3",
    "Qwen2.5-VL": "qwen2.5vl",
    "Qwen3-VL": "qwen3vl",
    "InternVL 3": "internvl",
    "SmolVLM": "idefics3",
}


def test_every_wish_is_listed() -> None:
    assert WISHES.keys() == FAMILIES.keys()


@pytest.fixture
def files(wish: str, tmp_path: Path) -> list[Path]:
    """A tiny model of the family, as a pair."""
    truth = TOWERS[FAMILIES[wish]]
    truth.save(truth.make(), tmp_path / "checkpoint")
    made = convert(tmp_path / "checkpoint", tmp_path / "m-Q4_K_M.gguf", mmproj=tmp_path / "mmproj-f16.gguf")
    return [*made.paths]


@pytest.mark.parametrize("wish", WISHES)
def test_its_line_answers(
    wish: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(WISHES[wish])
    name = next(word for word in words if "/" in word or word.startswith("ollama:"))
    model, _, tag = name.removeprefix("ollama:").partition(":")
    pixels = np.random.default_rng(0).integers(0, 255, (41, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    with as_the_hub(tmp_path, monkeypatch) as hub:
        if name.startswith("ollama:"):
            layers = [(kind, path.read_bytes()) for kind, path in zip(("model", "projector"), files, strict=True)]
            pull(tmp_path / "ollama", layers, f"registry.ollama.ai/library/{model}/{tag or 'latest'}")
        else:
            hub.repos[name] = {path.name: path.read_bytes() for path in files}
        assert run([*words[1:], "-n", "4", "--ignore-eos", "-c", "1024", "--temperature", "0", "--stats"]) == 0
    told = capfd.readouterr()
    assert "cat.jpg" in told.err and "60 x 41" in told.err  # it says how it sees the picture
    assert told.out.strip() and "prompt" in told.err
