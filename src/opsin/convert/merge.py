"""Joins a model and its projector to one file that sees.

The text part keeps its keys; of the projector come its tensors and its `clip.*` keys. Nothing is rounded or renamed.
"""

from __future__ import annotations

from pathlib import Path

from opsin.errors import FileError
from opsin.gguf import File, Typed, check_target, write
from opsin.gguf.roles import PROJECTOR, is_projector
from opsin.models import open_model, opened

_PARTS = ("vision", "audio")


def merge(model: str | Path | File, projector: str | Path, target: str | Path) -> None:
    """Write `model` and `projector` to `target` as one file, which appears when it is whole.

    Raises FileError naming both files where they do not belong together, and RequestError where the target is one of
    them.
    """
    with opened(model) as text, open_model(projector) as eyes:
        check_target(Path(target), (*text.paths, *eyes.paths))
        check_pair(text, eyes)
        joined = File.join(text, eyes)
        write(target, _metadata(text, eyes), [joined.copy_tensor(name) for name in joined.tensors])


def check_pair(text: File, eyes: File) -> None:
    """Raises FileError, naming both files, unless `eyes` is a projector that makes rows for the model in `text`."""
    family = text.get_str("general.architecture")
    if family == PROJECTOR:
        swapped = eyes.get_str("general.architecture", "") != PROJECTOR
        hint = "give the model first and its mmproj second" if swapped else "give a model of text first"
        raise FileError(f"{text.path} is a projector, to be joined with {eyes.path}", hint=hint)
    if eyes.get_str("general.architecture", "") != PROJECTOR:
        raise FileError(
            f"{eyes.path} is no projector for {text.path}",
            hint="give the mmproj file that was published with the model",
        )
    if any(key.startswith(f"{PROJECTOR}.") for key in text.metadata) or any(map(is_projector, text.tensors)):
        raise FileError(f"{text.path} has a part for pictures or sound already; {eyes.path} would be a second")
    wanted = text.get_int(f"{family}.embedding_length")
    for part in _PARTS:
        key = f"{PROJECTOR}.{part}.projection_dim"
        if key in eyes.metadata and not _makes(eyes, eyes.get_int(key), wanted):
            raise FileError(
                f"{text.path} takes embeddings of {wanted} values ({family}.embedding_length), but {eyes.path} makes "
                f"{eyes.get_int(key)} ({key})",
                hint="they belong to different models",
            )


def _makes(eyes: File, said: int, wanted: int) -> bool:
    """Whether the projector makes rows of `wanted` values; `said` is what it says of itself.

    Old files say what CLIP's own projection was, which none of their matrices has. Then the matrices tell.
    """
    shapes = [info.shape for name, info in eyes.tensors.items() if name.startswith("mm.") and len(info.shape) == 2]
    if said == wanted or not shapes or any(said in shape for shape in shapes):
        return said == wanted
    return any(shape[0] == wanted for shape in shapes)


def _metadata(text: File, eyes: File) -> dict[str, Typed]:
    """All of the model's, and what the projector says of itself. Its name, licence and the like stay behind."""
    own = {key: value for key, value in eyes.typed.items() if key.startswith(f"{PROJECTOR}.")}
    merged, version = text.typed | own, "general.quantization_version"
    if version in eyes.metadata:
        merged.setdefault(version, eyes.typed[version])
    return merged
