"""How a checkpoint's states become an embedding, which sentence-transformers writes beside it: modules.json."""

from __future__ import annotations

from pathlib import Path

from opsin.convert.checkpoint import read_json, read_list
from opsin.gguf import Typed, ValueType
from opsin.gguf.writer import Writable

_MODES = {
    "pooling_mode_mean_tokens": 1,
    "pooling_mode_cls_token": 2,
    "pooling_mode_lasttoken": 3,
}  # llama.cpp's numbers


def pooling_keys(folder: Path, architecture: str) -> tuple[dict[str, Writable], list[str]]:
    """The key of a pooling, where modules.json names one that GGUF can say; and notes on what it cannot."""
    keys: dict[str, Writable] = {}
    notes: list[str] = []
    for module in read_list(folder / "modules.json"):
        if not isinstance(module, dict):
            continue
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            config = read_json(folder / Path(str(module.get("path", ""))).name / "config.json", optional=True)
            modes = [number for name, number in _MODES.items() if config.get(name) is True]
            if len(modes) == 1:
                keys[f"{architecture}.pooling_type"] = Typed(ValueType.UINT32, modes[0])
            else:
                notes.append("modules.json pools in a way that GGUF has no key for: give the pooling by hand")
        elif kind not in ("", "Transformer", "Normalize"):
            notes.append(f"modules.json has a part {kind!r:.40} behind the model, which the file does not have")
    return keys, notes
