"""Ollama's store on this machine: names, manifests and blobs. Nothing is fetched, nothing written.

`manifests/HOST/NAMESPACE/MODEL/TAG` is JSON that lists layers by media type and digest; `blobs/sha256-HEX` are the
layers. Manifests may come from strangers: nothing in one leads out of the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsin.config import ollama_folders
from opsin.errors import FileError, ModelError, RequestError
from opsin.hub.found import Found
from opsin.hub.modelfile import Parameters, read_parameters, read_template

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_MEDIA: Final = "application/vnd.ollama.image."
_MANIFEST_BYTES, _TEXT_BYTES, _LAYERS = 4 << 20, 1 << 20, 10_000
_LISTED = 8  # models in an error
_DAMAGED = "fetch it again: ollama pull"


@dataclass(frozen=True)
class _Layer:
    """One blob of a manifest: its kind without Ollama's prefix, its SHA-256 in hex, its bytes."""

    kind: str
    digest: str
    size: int


def find(name: str) -> Found:
    """The model of this name: `[host/][namespace/]model[:tag]`.

    Raises RequestError for what is no name, FileError where the store lacks it or is damaged, ModelError where it holds
    something that is not built.
    """
    parts = _parts(name)
    folders = ollama_folders()
    for folder in folders:
        manifest = _match(folder / "manifests", parts)
        if manifest is not None:
            return _Store(folder, name).read(manifest)
    raise FileError(f"there is no model {name!r:.100} in Ollama's store", hint=_others(folders))


def _parts(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag. A colon before the last slash is a port."""
    place, slash, last = name.rpartition("/")
    model, colon, tag = last.partition(":")
    before = place.split("/") if slash else []
    if len(before) == 1:
        before = [_HOST, *before]
    host, namespace = before if len(before) == 2 else (_HOST, _NAMESPACE) if not before else ("", "")
    tag = tag if colon else _TAG
    if _HOST_PART.fullmatch(host) is None or any(_PART.fullmatch(part) is None for part in (namespace, model, tag)):
        raise RequestError(f"{name!r:.100} is no name of Ollama's", hint="names are [host/][namespace/]model[:tag]")
    return host, namespace, model, tag


def _match(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file below a folder by its path's parts; Ollama compares names without case."""
    for part in parts:
        names = {path.name: path for path in _list(folder)}
        near = next((path for name, path in names.items() if name.lower() == part.lower()), None)
        found = names.get(part, near)
        if found is None:
            return None
        folder = found
    return folder


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _others(folders: Sequence[Path]) -> str:
    """What there is instead."""
    names = [
        f"{'' if host.name == _HOST else f'{host.name}/'}"
        f"{'' if space.name == _NAMESPACE and host.name == _HOST else f'{space.name}/'}{model.name}:{tag.name}"
        for folder in folders
        for host in _list(folder / "manifests")
        for space in _list(host)
        for model in _list(space)
        for tag in _list(model)
    ]
    if not names:
        looked = " and ".join(map(str, folders))
        return f"looked in {looked}; OLLAMA_MODELS names another folder"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"there are {', '.join(names[:_LISTED])}{more}"


class _Store:
    """One folder with `manifests` and `blobs`, and the name under which a model is read from it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def read(self, manifest: Path) -> Found:
        layers = list(self._layers(self._json(manifest, _MANIFEST_BYTES, f"the manifest of {self.name}")))
        self._check(layers)
        models = [layer for layer in layers if layer.kind == "model"]
        if len(models) != 1:
            raise FileError(f"{self.name} has {len(models)} model layers in {manifest}, not one", hint=_DAMAGED)
        model = self._blob(models[0])
        eyes = {self._blob(layer): layer.digest for layer in layers if layer.kind == "projector"}
        parameters, template, system, notes = self._beside(layers)
        return Found(
            name=self.name, text=model, vision=tuple(eyes), digests={model: models[0].digest, **eyes},
            keys=parameters.keys, defaults={} if template is None else {"tokenizer.chat_template": template},
            context=parameters.context, stop=parameters.stop, system=system, notes=(*notes, *parameters.notes),
        )  # fmt: skip

    def _layers(self, manifest: object) -> Iterator[_Layer]:
        """The layers of a manifest, each checked by itself."""
        listed = manifest.get("layers") if isinstance(manifest, dict) else None
        if not isinstance(listed, list) or len(listed) > _LAYERS:
            raise FileError(f"the manifest of {self.name} lists no layers", hint=_DAMAGED)
        config = manifest.get("config") if isinstance(manifest, dict) else None
        for item, fixed in [*((item, None) for item in listed), *([(config, "config")] if config is not None else [])]:
            media, digest, size = (item.get(key) if isinstance(item, dict) else None
                                   for key in ("mediaType", "digest", "size"))  # fmt: skip
            found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
            if found is None or not isinstance(media, str):
                raise FileError(
                    f"the manifest of {self.name} has a layer with the digest {digest!r:.80}", hint=_DAMAGED
                )
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise FileError(f"the manifest of {self.name} has a layer of the size {size!r:.80}", hint=_DAMAGED)
            yield _Layer(fixed or media.removeprefix(_MEDIA), found[1], size)

    def _check(self, layers: Sequence[_Layer]) -> None:
        """Raises ModelError for models that are no GGUF, or more than one."""
        kinds = {layer.kind for layer in layers}
        config = next((layer for layer in layers if layer.kind == "config"), None)
        said = self._object(config) if config is not None else {}
        if said.get("model_format", "gguf") not in ("gguf", "") or ("model" not in kinds and "tensor" in kinds):
            raise ModelError(
                f"{self.name} holds {said.get('model_format', 'safetensors')!r:.40}, no GGUF",
                hint="pull a tag that is GGUF, or convert the model's Hugging Face folder: opsin convert",
            )
        if "adapter" in kinds:
            raise ModelError(f"{self.name} is a model with an adapter (LoRA), which is not built",
                             hint="give the model that it is made from, or merge the adapter into it")  # fmt: skip

    def _beside(self, layers: Sequence[_Layer]) -> tuple[Parameters, str | None, str, list[str]]:
        """Parameters, template, system message and notes out of the small layers."""
        parameters, template, system, notes = Parameters(), None, "", []
        for layer in layers:
            if layer.kind == "params":
                parameters = read_parameters(self._object(layer), self.name)
            elif layer.kind in ("template", "prompt"):
                template = read_template(self._text(layer))
            elif layer.kind == "system":
                system = self._text(layer)
                notes.append(f"{self.name} has a system message in Ollama's store: it is sent where you give none")
            elif layer.kind == "messages":
                notes.append(f"{self.name} has messages to begin with in Ollama's store, which opsin does not send")
        return parameters, template, system, notes

    def _object(self, layer: _Layer) -> Mapping[str, object]:
        made = self._json(self._blob(layer), _TEXT_BYTES, f"the {layer.kind} layer of {self.name}")
        if not isinstance(made, dict):
            raise FileError(f"the {layer.kind} layer of {self.name} is no JSON object", hint=_DAMAGED)
        return made

    def _json(self, path: Path, most: int, what: str) -> object:
        try:
            return json.loads(self._read(path, most, what))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{what} is no JSON: {path}", hint=_DAMAGED) from error

    def _text(self, layer: _Layer) -> str:
        what = f"the {layer.kind} layer of {self.name}"
        try:
            return self._read(self._blob(layer), _TEXT_BYTES, what).decode()
        except UnicodeDecodeError as error:
            raise FileError(f"{what} is no text", hint=_DAMAGED) from error

    def _read(self, path: Path, most: int, what: str) -> bytes:
        self._check_inside(path)
        try:
            with path.open("rb") as stream:
                data = stream.read(most + 1)
        except OSError as error:
            raise FileError(f"{what} cannot be read: {path}: {error.strerror}", hint="check the store") from error
        if len(data) > most:
            raise FileError(f"{what} has more than {most >> 20} MB: {path}", hint=_DAMAGED)
        return data

    def _blob(self, layer: _Layer) -> Path:
        """The file of a layer, which is there, inside the store and as long as the manifest says."""
        path = self.folder / "blobs" / f"sha256-{layer.digest}"
        self._check_inside(path)
        size = path.stat().st_size
        if size != layer.size:
            raise FileError(f"{path} has {size} bytes, not {layer.size} as the manifest of {self.name} says",
                            hint=_DAMAGED)  # fmt: skip
        return path

    def _check_inside(self, path: Path) -> None:
        """Raises FileError for what is missing, is no regular file, or lies elsewhere."""
        try:
            real, root = path.resolve(strict=True), self.folder.resolve(strict=True)
        except FileNotFoundError:
            raise FileError(f"{self.name} lacks {path}", hint=_DAMAGED) from None
        except (OSError, RuntimeError) as error:  # a link to itself, or nothing that this user may see
            raise FileError(f"{path} cannot be opened: {error}", hint="check the store") from error
        if not real.is_relative_to(root):
            raise FileError(f"{path} is a link out of Ollama's store, to {real}",
                            hint="set OLLAMA_MODELS to the folder that holds the files themselves")  # fmt: skip
        if not real.is_file():
            raise FileError(f"{path} is no regular file", hint=_DAMAGED)
