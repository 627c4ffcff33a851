"""Hugging Face's hub: `owner/repo[:quant]` becomes files of its cache, fetched where they are not there.

`huggingface_hub` does the fetching and keeps the cache, and reads HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE. It
is imported when it is needed.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opsin.errors import DeviceError, FileError, OpsinError, RequestError
from opsin.hub.blobs import cache_folder, fetch_blob
from opsin.hub.checkpoint_files import SETTINGS, checkpoint_files, is_of_checkpoint
from opsin.hub.file_names import BEST_FOR_VISION, is_beside, is_later_split, is_vision, kinship, number_format, splits
from opsin.hub.found import Found, Notice

_NAME: Final = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
                          r"(?::(?P<quant>[\w.-]{1,40})|/(?P<file>[^:]{1,300}\.gguf))?", re.ASCII)  # fmt: skip
_USUAL: Final = ("Q4_K_M", "Q8_0")  # where nobody names a quant, as llama-server
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_LISTED, _SECONDS = 12, 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class _Repo:
    """What a repository has at one commit: bytes and SHA-256 of GGUF files and of those of a checkpoint.

    They are 0 and "" where they are not known.
    """

    name: str
    commit: str
    sizes: Mapping[str, int]
    digests: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def ggufs(self) -> list[str]:
        return [name for name in self.sizes if name.endswith(".gguf")]


def find(
    name: str, *, vision: bool, notice: Notice | None = None, checkpoint: bool = False,
    check: Callable[[Path], None] = lambda folder: None,
) -> Found:  # fmt: skip
    """The model of this name, fetched where it is not in the cache, with the best of its files for pictures.

    Where the repository has no GGUF file of a model, or with `checkpoint`, it is the folder of a checkpoint of
    transformers; `check` gets that as soon as the settings are there, and what it raises ends the work.

    Raises RequestError for what is no name, FileError where the hub has no such model, does not give it or cannot be
    reached, DeviceError where the disk has no place for it.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise RequestError(
            f"{name!r:.100} is no name on Hugging Face's hub",
            hint="names are owner/repo[:quant] or owner/repo/FILE.gguf",
        )
    with _plain_errors(parts["repo"]):
        repo, tell = _list(parts["repo"]), notice or (lambda line: None)
        if parts["file"] is None and (checkpoint or not _models(repo)) and checkpoint_files(repo.sizes)[1]:
            return _folder(repo, parts["quant"], tell, check)
        text, notes = _choose(repo, parts["quant"], parts["file"])
        if checkpoint:
            raise FileError(f"{repo.name} has GGUF files and no safetensors", hint="there is nothing to convert")
        eyes = _choose_vision(repo, text) if vision else ()
        wanted = [part for name in (text, *eyes) for part in splits(name, repo.ggufs)]
        paths = _fetch_all(repo, wanted, tell)
    kind = number_format(text)
    return Found(
        name=f"{repo.name}:{kind}" if kind else repo.name, text=paths[text], vision=tuple(paths[n] for n in eyes),
        digests={path: _digest(repo, name, path) for name, path in paths.items()}, notes=(*repo.notes, *notes),
    )  # fmt: skip


def _folder(repo: _Repo, quant: str | None, notice: Notice, check: Callable[[Path], None]) -> Found:
    """The checkpoint of a repository."""
    if quant is not None:
        raise FileError(f"{repo.name} has no {quant}: it holds safetensors",
                        hint=f"hf:{repo.name} takes them as they are, opsin quantize makes others")  # fmt: skip
    settings, weights = checkpoint_files(repo.sizes)
    folder = _fetch_all(repo, settings, notice)[SETTINGS].parent
    check(folder)
    paths = _fetch_all(repo, weights, notice)
    return Found(
        name=repo.name, text=folder, digests={path: _digest(repo, name, path) for name, path in paths.items()},
        keys={"general.name": repo.name}, notes=repo.notes,
    )  # fmt: skip


def _models(repo: _Repo) -> list[str]:
    """GGUF files that may be one, each by its first split."""
    return [n for n in repo.ggufs if not (is_later_split(n) or is_vision(n) or is_beside(n))]


def _choose(repo: _Repo, quant: str | None, file: str | None) -> tuple[str, list[str]]:
    """The file of the text, and what a person should know of the choice."""
    if file is not None:
        if file not in repo.ggufs:
            raise FileError(f"{repo.name} has no file {file!r:.100}", hint=f"there are {_listed(repo.ggufs)}")
        return file, []
    models = _models(repo)
    kinds = {n: number_format(n) for n in models}
    if not models and "adapter_config.json" in repo.sizes:
        raise FileError(f"{repo.name} is an adapter (LoRA), not a model", hint="merge it into its model")
    if not models:
        raise FileError(f"{repo.name} has no GGUF file of a model, and no safetensors with their {SETTINGS}",
                        hint="look for a repository with GGUF in its name")  # fmt: skip
    if quant is None:
        usual = next((kind for kind in _USUAL if kind in kinds.values()), kinds[sorted(models)[0]])
        found = [n for n in models if kinds[n] == usual]
    else:
        found = [n for n in models if kinds[n] == quant.upper()] or [
            n for n in models if kinds[n].endswith(f"-{quant.upper()}")
        ]
    quants = _listed(sorted(set(kinds.values()) - {""}) or sorted(models))
    if not found:
        raise FileError(f"{repo.name} has no {quant}", hint=f"there are {quants}")
    if len(found) > 1:
        raise FileError(f"{repo.name} has several models: {_listed(found)}",
                        hint=f"name one: hf:{repo.name}/{found[0]}")  # fmt: skip
    told = quant is None and len(models) > 1
    return found[0], [f"{found[0]} is taken of {repo.name}, which has {quants}"] if told else []


def _choose_vision(repo: _Repo, text: str) -> tuple[str, ...]:
    """The file for pictures: the one that is named like the model, then by number format, as beside a model."""

    def order(name: str) -> tuple[int, bool, int, str]:
        kind = number_format(name)
        rank = BEST_FOR_VISION.index(kind) if kind in BEST_FOR_VISION else len(BEST_FOR_VISION)
        return -kinship(Path(text).name, Path(name).name), Path(name).parent != Path(text).parent, rank, name

    return tuple(sorted((n for n in repo.ggufs if is_vision(n) and not is_later_split(n)), key=order)[:1])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"{name:.80}" for name in names[:_LISTED]) + more


def _list(name: str) -> _Repo:
    """What the hub has now, or what the cache has where the hub is out of reach."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        told = HfApi().model_info(name, files_metadata=True, timeout=_SECONDS)
    except (httpx2.TransportError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        away = not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500
        cached = _list_cached(name, offline=isinstance(error, OfflineModeIsEnabled)) if away else None
        if cached is None:
            raise
        return cached
    files = [file for file in told.siblings or [] if _is_taken(file.rfilename)]
    return _Repo(
        name, told.sha or "main", {file.rfilename: file.size or 0 for file in files},
        {file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None},
    )  # fmt: skip


def _is_taken(name: str) -> bool:
    """Whether a file may be of use here."""
    return name.endswith(".gguf") or is_of_checkpoint(name)


def _list_cached(name: str, *, offline: bool) -> _Repo | None:
    """The files of the newest commit in the cache, or None."""
    folder = cache_folder(name)
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    snapshot = folder / "snapshots" / commit
    files = [path.relative_to(snapshot).as_posix() for path in sorted(snapshot.rglob("*")) if path.is_file()]
    sizes = {file: 0 for file in files if _is_taken(file)}
    note = () if offline else (f"the hub cannot be reached: {name} is taken as it is in the cache",)
    return _Repo(name, commit, sizes, {}, note) if sizes else None


def _fetch_all(repo: _Repo, names: Sequence[str], notice: Notice) -> dict[str, Path]:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    missing = [n for n in names if not isinstance(try_to_load_from_cache(repo.name, n, revision=repo.commit), str)]
    _check_space(sum(repo.sizes[n] for n in missing), repo.name)
    paths = {}
    for name in names:
        bar: Any = _bar(name, notice)
        if name in missing:
            fetch_blob(repo.name, repo.commit, name, digest=repo.digests.get(name, ""), size=repo.sizes[name], bar=bar)
        path = hf_hub_download(repo.name, name, revision=repo.commit, tqdm_class=bar, library_name="opsin")
        paths[name] = Path(path)
    if missing:  # a later start without the hub finds the commit under its branch
        ref = cache_folder(repo.name) / "refs" / "main"
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(repo.commit, encoding="utf-8")
    return paths


def _check_space(wanted: int, name: str) -> None:
    """Raises DeviceError where the cache's disk has no place for so many bytes."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    free = shutil.disk_usage(there).free if there is not None else wanted
    if free < wanted:
        raise DeviceError(
            f"{name} takes {wanted / 1e6:.0f} MB, and {folder} has {free / 1e6:.0f} MB free",
            hint="HF_HOME names another folder",
        )


def _digest(repo: _Repo, name: str, path: Path) -> str:
    """As the hub says, or as the cache names its files; "" for small ones, which have none."""
    found = repo.digests.get(name) or path.resolve().name
    return found if _DIGEST.fullmatch(found) else ""


def _bar(name: str, notice: Notice) -> type:
    """In place of the library's bars: a line for each percent."""

    class Bar:
        format_dict: Mapping[str, object] = {}

        def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
            self.total, self.n, self._told = total or 0, initial, -1
            self.update(0)

        def update(self, count: float | None = 1) -> None:
            self.n += count or 0
            percent = int(100 * self.n / self.total) if self.total else 0
            if percent != self._told:
                self._told = percent
                notice(f"fetching {name}: {percent} % of {self.total / 1e6:.0f} MB")

        def update_transfer(self, _: float) -> None:
            """Bytes on the wire are told by nobody: those of the file are."""

        def close(self) -> None:
            """Nothing is open."""

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def __getattr__(self, _: str) -> Any:
            """Descriptions, postfixes and redrawing are the library's own bars' affair."""
            return lambda *_, **__: None

    return Bar


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """What the library raises, in our words."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except OpsinError:
        raise
    except errors.HfHubHTTPError as error:
        raise _refusal(name, error) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx2.TransportError) as error:
        raise _unreachable(name, error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise DeviceError(f"the disk is full: {name} was not fetched",
                              hint="make room, or name another folder with HF_HOME") from error  # fmt: skip
        if error.errno is not None:
            raise
        raise FileError(f"{name} did not come whole from the hub", hint="try again") from error
    except (ValueError, TypeError, KeyError, errors.FileMetadataError) as error:
        raise FileError(f"what the hub says of {name} cannot be read ({type(error).__name__})",
                        hint="does HF_ENDPOINT name a hub?") from error  # fmt: skip


def _unreachable(name: str, error: Exception) -> OpsinError:
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return FileError(f"{name} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set",
                         hint="unset it to fetch the model")  # fmt: skip
    return FileError(f"{constants.ENDPOINT} cannot be reached for {name} ({type(error).__name__})",
                     hint="check the network; what is in the cache is taken without it")  # fmt: skip


def _refusal(name: str, error: Any) -> OpsinError:
    """What the hub refuses."""
    from huggingface_hub import constants, errors, get_token

    status, token = error.response.status_code, "the token" if get_token() else "no token"
    if isinstance(error, errors.GatedRepoError):
        return FileError(f"{name} is gated: its owner wants terms to be accepted first, and {token} was sent",
                         hint=f"accept them at {constants.ENDPOINT}/{name} and set HF_TOKEN")  # fmt: skip
    if isinstance(error, errors.RepositoryNotFoundError) or (
        status == 404 and "/api/models/" in str(error.request.url)
    ):
        hint = "check the name" if get_token() else "check the name; a private one needs HF_TOKEN"
        return FileError(f"there is no {name} on {constants.ENDPOINT}, or it is private", hint=hint)
    if status in (401, 403):
        return FileError(f"the hub does not give {name} ({status}) to whoever sends {token}",
                         hint="set HF_TOKEN to a token that may read it, or unset a wrong one")  # fmt: skip
    if status == 404:
        return FileError(f"a file of {name} is not on the hub any more", hint="try again")
    return FileError(f"the hub answers {status} for {name}", hint="try again later")
