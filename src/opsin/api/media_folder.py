"""A folder that keeps what pictures became."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opsin.api.identity import code_digest
from opsin.engine.media_cache import MediaCache


@dataclass(frozen=True)
class MediaFolder:
    """Where embeddings of pictures stay after a restart: at most so many bytes, the longest unused go first."""

    path: Path
    bytes: int = 1 << 30

    def open(self, encoder: str, width: int) -> MediaCache:
        """The cache of an encoder. Raises FileError where nothing can be written there."""
        return MediaCache(self.path, (encoder + code_digest()).encode(), width, self.bytes)
