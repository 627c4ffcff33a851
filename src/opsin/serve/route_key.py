"""The key of a request: what sends questions about one picture to one replica, where the picture is known already.

No model, no NumPy, nothing decoded and nothing fetched: a picture counts by the text that a body names it with. What is
no sound request gets a key, too, or none: the replica that reads it says what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

HEADER: Final = "X-Opsin-Key"
PREFIX_BYTES: Final = 1024
_DIGEST_BYTES: Final = 16

# Fields that lead to media, in the order in which they are looked into, and those that hold one.
_ROOTS: Final = ("messages", "input", "prompt", "images", "image", "multimodal_data", "content", "documents")
_HOLDERS: Final = (
    *("image_url", "audio_url", "video_url", "input_audio", "input_video", "image", "images", "audio", "video"),
    *("multimodal_data", "source", "file"),
)
_SURE: Final = ("uuid", "file_id", "file_data")  # what tells a medium wherever it stands, and
_NAMES: Final = (*_SURE, "url", "data")  # in a holder
_PASSAGES: Final = ("content", "output", "prompt", *_HOLDERS)
_INSTRUCTIONS: Final = ("system", "developer")  # many conversations have them in common


def route_key(body: Mapping[str, object], prefix_bytes: int = PREFIX_BYTES) -> str:
    """32 hexadecimal digits: of the first picture, sound or video; without one, of what the first person says.

    A later turn of a conversation has the key of its first. A picture has one key in every protocol: the text of its
    base64 counts, whether it stands in a data URL or alone; of others the address, `file_id` or `uuid`.

    Args:
        prefix_bytes: of a text, what counts; where two texts are one so far, they share their pages as well.

    Returns:
        "" for a body with neither: any replica will do.
    """
    for name in _ROOTS:
        for medium in _media(body.get(name), name in _HOLDERS):
            return _digest(_bare(medium).encode("utf-8", "surrogatepass"))
    text = next((text for text in _texts(body) if text), "")
    return _digest(text[:prefix_bytes].encode("utf-8", "surrogatepass")[:prefix_bytes]) if text else ""


def _media(value: object, held: bool) -> Iterator[str]:
    """What tells the media in a value, from the first on. `held`: whether a text that stands here tells one.

    Without recursion: bodies come from strangers.
    """
    waiting = [(value, held)]
    while waiting:
        value, held = waiting.pop()
        if isinstance(value, str):
            if held and value:
                yield value
        elif isinstance(value, Sequence):
            waiting.extend((one, held) for one in reversed(value))
        elif isinstance(value, Mapping):
            named = (value.get(name) for name in (_NAMES if held else _SURE))
            own = next((one for one in named if isinstance(one, str) and one), None)
            if own is not None:
                yield own
            inner = [(value[name], name in _HOLDERS) for name in _PASSAGES if name in value]
            waiting.extend(reversed(inner))


def _bare(medium: str) -> str:
    """A data URL without what stands before its base64."""
    return medium[medium.find(",", 0, 256) + 1 :] if medium[:5].lower() == "data:" else medium


def _texts(body: Mapping[str, object]) -> Iterator[str]:
    """Texts by which a request without media can be told, the best first."""
    for name in ("messages", "input"):
        said = body.get(name)
        if isinstance(said, Sequence) and not isinstance(said, str):
            others = [one for one in said if not _is_instruction(one)]
            yield from (_said(one) for one in (*others, *said))
        elif isinstance(said, str):
            yield said
    for name in ("prompt", "input_prefix", "query", "content", "system"):
        yield _said(body.get(name))


def _is_instruction(message: object) -> bool:
    return isinstance(message, Mapping) and message.get("role") in _INSTRUCTIONS


def _said(value: object) -> str:
    """The first text in a message, a content, a prompt or a list of these; ids as their numbers."""
    for _ in range(8):  # levels
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping):
            value = next((value[name] for name in ("content", "text", "prompt_string", "query") if name in value), None)
        elif isinstance(value, Sequence) and value:
            if isinstance(value[0], int):
                return " ".join(str(id) for id in value[:PREFIX_BYTES])
            value = next((one for one in value if one), None)
        else:
            break
    return ""


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
