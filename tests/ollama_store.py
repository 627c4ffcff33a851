"""Ollama's store, as it lays it out on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

MEDIA = "application/vnd.ollama.image."
LLAMA3_GO = (
    "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
CHATML_GO = "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


def add_blob(root: Path, data: bytes) -> dict[str, object]:
    """Digest and size of a blob, as a manifest names it."""
    digest = hashlib.sha256(data).hexdigest()
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "blobs" / f"sha256-{digest}").write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def blob(root: Path, layer: Mapping[str, object]) -> Path:
    return root / "blobs" / str(layer["digest"]).replace(":", "-")


def write_manifest(root: Path, place: str, manifest: object) -> Path:
    """`place` is HOST/NAMESPACE/MODEL/TAG."""
    path = root / "manifests" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode())
    return path


def pull(root: Path, layers: Sequence[tuple[str, bytes]], place: str = "registry.ollama.ai/library/tiny/latest",
         **config: object) -> dict[str, object]:  # fmt: skip
    """Put a model there; the manifest. Layers are (kind, content)."""
    said = {"model_format": "gguf", "model_family": "llama", "architecture": "amd64", "os": "linux", **config}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            **add_blob(root, json.dumps(said).encode()),
        },
        "layers": [{"mediaType": MEDIA + kind, **add_blob(root, data)} for kind, data in layers],
    }
    write_manifest(root, place, manifest)
    return manifest
