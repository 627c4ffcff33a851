"""One tiny model in every packaging in which people hold it: the same logits, bit for bit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
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

import opsin
from opsin.convert.hf import convert
from opsin.gguf import File, write

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (41, 60, 3), np.uint8))
OPTIONS = {"threads": 1, "context": 512}


class Shelf:
    """The model as a folder of transformers, and as everything that is made of that."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "tiny"
        truth = TOWERS["llava"]
        truth.save(truth.make(), self.folder)

        for name in ("pair", "one", "split"):
            (root / name).mkdir()
        self.one = convert(self.folder, root / "one" / "tiny.gguf").paths[0]
        self.text, self.eyes = convert(
            self.folder, root / "pair" / "tiny.gguf", mmproj=root / "pair" / "mmproj.gguf"
        ).paths
        self.parts = [part for path in (self.text, self.eyes) for part in self.split(path)]

    def split(self, path: Path) -> list[Path]:
        with File.open(path) as file:
            tensors = [file.copy_tensor(name) for name in file.tensors]
            made = write(self.root / "split" / path.name, file.typed, tensors, part_bytes=40_000)
        assert len(made) > 1
        return made


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(autouse=True)
def stores(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ollama's store with two versions of its manifests, and a hub with a pair, splits and the folder."""
    store = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    pull(store, [("model", shelf.text.read_bytes()), ("projector", shelf.eyes.read_bytes())])
    pull(store, [("model", shelf.one.read_bytes())], "registry.ollama.ai/library/tiny/one")
    with as_the_hub(tmp_path, monkeypatch) as hub:
        hub.repos["o/pair-GGUF"] = {
            "tiny-F16.gguf": shelf.text.read_bytes(),
            "mmproj-F16.gguf": shelf.eyes.read_bytes(),
        }
        hub.repos["o/split-GGUF"] = {part.name: part.read_bytes() for part in shelf.parts}
        hub.repos["o/tiny"] = {path.name: path.read_bytes() for path in shelf.folder.iterdir()}
        yield


def logits(place: object, **options: object) -> list[np.ndarray]:
    """Of a conversation with a picture and of one without."""
    what = {"type": "text", "text": "what?"}
    asked = [[{"type": "image", "image": PICTURE}, what], [what]]
    with opsin.load(place, **OPTIONS, **options) as model:
        return [model.logits(model.question([{"role": "user", "content": content}]).prompt) for content in asked]


@pytest.fixture(scope="module")
def wanted(shelf: Shelf) -> list[np.ndarray]:
    return logits(shelf.text, mmproj=shelf.eyes)


PACKAGINGS = {
    "a pair": lambda shelf: shelf.text,
    "the folder of a pair": lambda shelf: shelf.text.parent,
    "a pair in splits": lambda shelf: shelf.parts[0],
    "one file": lambda shelf: shelf.one,
    "Ollama's store, text and projector": lambda shelf: "ollama:tiny",
    "Ollama's store, one file": lambda shelf: "ollama:tiny:one",
    "the hub, a pair": lambda shelf: "hf:o/pair-GGUF",
    "the hub, splits": lambda shelf: "hf:o/split-GGUF",
    "the hub, safetensors": lambda shelf: "hf:o/tiny",
    "a folder of transformers": lambda shelf: shelf.folder,
}


@pytest.mark.parametrize("packaging", PACKAGINGS)
def test_every_packaging_gives_the_same_logits(shelf: Shelf, wanted: list[np.ndarray], packaging: str) -> None:
    made = logits(PACKAGINGS[packaging](shelf))
    assert all(np.array_equal(*both) for both in zip(made, wanted, strict=True))
    assert len(wanted[0]) > len(wanted[1]) + 60  # the picture was seen
    assert np.isfinite(wanted[0]).all() and np.ptp(wanted[0][-1]) > 0


def test_what_a_person_names_for_pictures_counts_beside_a_folder(shelf: Shelf, wanted: list[np.ndarray]) -> None:
    made = logits(shelf.folder, mmproj=shelf.eyes)
    assert all(np.array_equal(*both) for both in zip(made, wanted, strict=True))


def test_a_folder_that_is_gone_after_loading_still_sees(shelf: Shelf, wanted: list[np.ndarray], tmp_path: Path) -> None:
    """As with files: the weights of the part for pictures are read when the first picture comes."""
    folder = shutil.copytree(shelf.folder, tmp_path / "copy")
    with opsin.load(folder, **OPTIONS) as model:
        shutil.rmtree(folder)
        asked = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "what?"}]
        made = model.logits(model.question([{"role": "user", "content": asked}]).prompt)
    assert np.array_equal(made, wanted[0])
