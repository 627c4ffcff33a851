"""A folder as transformers saves it: settings and tensors, from JSON and safetensors alone. Pickles are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.convert.safetensors import Safetensors, Stored
from opsin.errors import FileError
from opsin.gguf.kinds import START_BYTES, recognise
from opsin.gguf.rules import Rules, Settings, canonical
from opsin.gguf.writer import Writable

MAX_JSON = 256 << 20  # bytes; a tokenizer of 262,000 tokens has 33 million
_INDEX = "model.safetensors.index.json"
_TEXT_CONFIGS = ("text_config", "llm_config", "lm_config", "language_config")
_READ_QUANTISED = ("mxfp4",)  # where the rules of a family name the tensors
_UNUSED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".embeddings.position_ids")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is meant as one, whole or not."""
    return any(any(folder.glob(name)) for name in ("config.json", "adapter_config.json", "*.safetensors"))


class Description:
    """What the settings of a folder say of its model. Its tensors need not be there."""

    def __init__(self, path: Path) -> None:
        """Raises FileError for a folder without settings, or of a kind that is not read."""
        self.path = path
        if not path.is_dir():
            raise FileError(f"{path} is no folder", hint="give the folder that holds config.json and *.safetensors")
        if (path / "adapter_config.json").is_file():
            raise FileError(f"{path} holds an adapter, not a model", hint="merge it into its model and save that")
        self.config = read_config(path)
        self.notes = _notes(self.config)
        quantised = self.config.get("quantization_config")
        kind = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
        if isinstance(quantised, Mapping) and kind not in _READ_QUANTISED:
            raise FileError(f"{path} is quantised ({kind!r:.40})", hint="give the checkpoint that it was made from")

    @property
    def classes(self) -> tuple[str, ...]:
        """`architectures` of config.json."""
        listed = self.config.get("architectures")
        return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()

    @property
    def text_config(self) -> Mapping[str, object]:
        """The settings of the text alone; empty where the whole is a model of text."""
        found = [self.config[key] for key in _TEXT_CONFIGS if isinstance(self.config.get(key), Mapping)]
        return found[0] if found else {}  # type: ignore[return-value]

    def settings(self, rules: Rules) -> Settings:
        """The settings as these rules see them."""
        processor = read_json(self.path / "processor_config.json", optional=True)
        pictures = processor.get("image_processor")
        tree = {
            **self.config,
            **(self.text_config if rules.part == "text" else {}),
            # transformers asks the second file only where the first says nothing of pictures.
            "preprocessor": pictures
            if isinstance(pictures, Mapping)
            else read_json(self.path / "preprocessor_config.json", optional=True),
            "tokenizer": read_json(self.path / "tokenizer_config.json", optional=True),
            "generation": read_json(self.path / "generation_config.json", optional=True),
            "added_tokens": self._added_tokens,
        }
        return Settings(str(self.path / "config.json"), tree, rules.defaults)

    @cached_property
    def _added_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that tokenizer.json adds, by their texts."""
        added = read_json(self.path / "tokenizer.json", optional=True).get("added_tokens")
        tokens = [token for token in added if isinstance(token, Mapping)] if isinstance(added, list) else []
        return {str(token.get("content")): id for token in tokens if isinstance(id := token.get("id"), int)}


class Checkpoint(Description):
    """An open folder. `names` maps tensors' canonical names (see `rules.canonical`) to what is stored."""

    def __init__(self, path: Path) -> None:
        """Raises FileError for a folder that is incomplete, damaged or of a kind that is not read."""
        super().__init__(path)
        self._shards: list[Safetensors] = []
        self._homes: dict[str, tuple[Safetensors, str]] = {}
        try:
            for shard in _shards(path):
                self._add(Safetensors(shard))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files; closing twice is harmless."""
        for shard in self._shards:
            shard.close()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that hold its tensors."""
        return tuple(shard.path for shard in self._shards)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._homes)

    def settings(self, rules: Rules) -> Settings:
        found = super().settings(rules)
        if rules.next_token is None:
            return found
        kept = re.compile(re.escape(rules.next_token).replace(r"\{n\}", r"\d{1,5}") + r"\.weight")
        layers = sum(kept.fullmatch(name) is not None for name in self.names)
        return Settings(found.where, {**found.tree, "next_token_layers": layers or None}, found.defaults)

    def stored(self, name: str) -> Stored:
        shard, own = self._homes[name]
        return shard.tensors[own]

    def read(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of a tensor in float32."""
        shard, own = self._homes[name]
        return shard.read(own, first, last)

    def raw(self, name: str, first: int, last: int) -> npt.NDArray[np.uint8]:
        """The bytes of rows of a tensor, in the format that it is stored in."""
        shard, own = self._homes[name]
        return shard.raw(own, first, last)

    def vocabulary(self, rows: int) -> tuple[dict[str, Writable], list[str]] | None:
        """Keys of its tokenizer, for embeddings of so many tokens, and notes; None where it lies in files beside it."""
        return None

    def _add(self, shard: Safetensors) -> None:
        self._shards.append(shard)
        for own in shard.tensors:
            name = canonical(own)
            if name.endswith(_UNUSED):
                continue
            if name in self._homes:
                other, first = self._homes[name]
                raise FileError(f"{own} of {shard.path} and {first} of {other.path} are the same", hint="delete one")
            self._homes[name] = shard, own


def _notes(config: Mapping[str, object]) -> tuple[str, ...]:
    """What no rule reads."""
    own = config.get("auto_map")
    if isinstance(own, Mapping) and own:
        return (f"config.json: auto_map names code of its own ({next(iter(own.values()))!r:.60}), which is not run",)
    return ()


def _shards(path: Path) -> list[Path]:
    """The safetensors files of a folder. Raises FileError where one is missing, or there are only pickles."""
    if (path / _INDEX).is_file():
        listed = read_json(path / _INDEX).get("weight_map")
        names = set(listed.values()) if isinstance(listed, Mapping) else set()
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise FileError(f"{path / _INDEX} names no files", hint="download it again")
        missing = sorted(name for name in names if not (path / name).is_file())
        if missing:
            raise FileError(f"{path} lacks {missing[0]} ({len(missing)} of {len(names)} files)", hint="download it")
        return [path / name for name in sorted(names)]
    found = sorted(path.glob("model*.safetensors")) or sorted(path.glob("*.safetensors"))
    parts = [file for file in found if "-of-" in file.name]
    if parts:
        raise FileError(f"{path} has {parts[0].name}, but no {_INDEX}", hint="download it as well")
    if len(found) == 1:
        return found
    if found:
        raise FileError(f"{path} has {len(found)} safetensors files, and no {_INDEX}", hint="keep one model's")
    pickles = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth") for file in path.glob(kind))
    if pickles:
        raise FileError(
            f"{path} holds its weights as a pickle ({pickles[0]}), which could run any code",
            hint="opsin reads safetensors alone: save it again with save_pretrained",
        )
    raise FileError(f"{path} has no safetensors files", hint="give the folder that holds config.json and *.safetensors")


def read_config(folder: Path) -> dict[str, object]:
    """config.json, and first of all its thinker_config, that of what writes, where it tells of several parts."""
    config = read_json(folder / "config.json")
    thinker = config.get("thinker_config")
    return {**config, **thinker} if isinstance(thinker, Mapping) else config


def read_json(path: Path, *, optional: bool = False) -> dict[str, object]:
    """A JSON object of a file; an optional one that is not there is empty. Raises FileError."""
    if optional and not path.is_file():
        return {}
    found = _read(path)
    if not isinstance(found, dict):
        raise FileError(f"{path} is no JSON object", hint="download it again")
    return found


def read_list(path: Path) -> list[object]:
    """A JSON list of a file; one that is not there is empty. Raises FileError."""
    found = _read(path) if path.is_file() else []
    if not isinstance(found, list):
        raise FileError(f"{path} is no JSON list", hint="download it again")
    return found


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > MAX_JSON:
            raise FileError(f"{path} has {path.stat().st_size} bytes", hint="it is no settings file")
        data = path.read_bytes()
        return json.loads(data)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", hint="is the download complete?") from error
    except (ValueError, RecursionError) as error:
        what, hint = recognise(data[:START_BYTES], len(data))
        damaged = what.startswith("JSON")
        told = "a damaged one" if damaged else f"it is {what}"
        raise FileError(f"{path} is no JSON: {told}", hint="download it again" if damaged else hint) from error
