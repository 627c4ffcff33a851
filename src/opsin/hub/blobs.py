"""Bytes of Hugging Face's hub into its cache, taken up where a process before this one ended.

`huggingface_hub` takes up what breaks within a process, and forgets it when the process ends: its partial files have
names of their own and are removed. So a file is fetched here under the name of its digest, by the library's `http_get`,
and laid where the library looks for whole ones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from opsin.errors import FileError
from opsin.hub.found import digest_of

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def fetch_blob(repo: str, commit: str, name: str, *, digest: str, size: int, bar: Any) -> None:
    """The file of this name, unless the cache has it.

    Where its SHA-256 or its size is not known, or it is too large for the library to fetch it in one piece, nothing is
    done: then the library does it, in its own way. Raises FileError where what was taken up is damaged.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    if _DIGEST.fullmatch(digest) is None or not 0 < size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
        return
    home = cache_folder(repo)
    blob, part = home / "blobs" / digest, home / "blobs" / f"{digest}.opsin.incomplete"
    lock = home.parent / ".locks" / home.name / f"{digest}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # the library's own: whoever fetches the same waits
        if blob.exists():
            return
        part.touch()
        try:
            with part.open("r+b") as stream:  # no appending: two that lay the same at the same places do no harm
                begun = stream.seek(0, os.SEEK_END)
                if begun > size:
                    begun = stream.seek(0)
                    stream.truncate()
                http_get(
                    hf_hub_url(repo, name, revision=commit), stream, resume_size=begun, expected_size=size,
                    headers=build_hf_headers(library_name="opsin"), tqdm_class=bar,
                )  # fmt: skip
            if begun and digest_of(part) != digest:
                part.write_bytes(b"")
                raise FileError(f"{name} of {repo} was taken up, and is damaged", hint="try again: it begins anew")
            part.replace(blob)
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def cache_folder(repo: str) -> Path:
    """The folder of a repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
