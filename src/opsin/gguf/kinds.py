"""What a file is that was taken for GGUF and is none: said by its first bytes, with what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

START_BYTES = 512
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_PACKED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
                  b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}  # fmt: skip
GGML = b"lmgg"  # as a number, so that it stands reversed
_OLD = (GGML, b"fmgg", b"tjgg", b"algg")  # and ggmf, ggjt, ggla
_AGAIN = "fetch it again, with what that needs: a login, an accepted licence, the address of the file itself"
_UNPACK = "unpack it and give the .gguf file"
_CONVERT = "give its folder, with config.json and the tokenizer in it"


def begins(path: Path, start: bytes) -> bool:
    """Whether a file is there whose first bytes are these."""
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def is_speech_file(path: Path) -> bool:
    """Whether it is a file of whisper.cpp: those of speech are what is still written in the format before GGUF."""
    return path.is_file() and begins(path, GGML)


def recognise(start: bytes, size: int) -> tuple[str, str]:
    """What begins with these bytes and has `size` of them, as in "it is ...", and a hint."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    known = [
        (text.startswith(b"version https://git-lfs"), _pointer(start), "git lfs pull fetches it"),
        (text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")), "a web page, perhaps an error",
         _AGAIN),
        (start.startswith((b"\x80\2", b"\x80\4", b"\x80\5")),
         "a pickle (an old pytorch_model.bin)", "save the model as safetensors; then opsin convert makes a GGUF of it"),
        (_is_safetensors(start, size), "a safetensors file", _CONVERT),
        (start[8:12] in (b"blk.", b"outp", b"toke"), "statistics for quantising (an old imatrix)",
         "give the model itself"),
        (start.startswith(b"PK\3\4"), "a zip archive (a pytorch_model.bin is one, too)",
         "unpack it, or save the model as safetensors and convert that"),
        (start.startswith(b"%PDF"), "a PDF", "give a .gguf file"),
        (start.startswith(b"\x89HDF"), "a model of Keras (HDF5)", "give a .gguf file"),
        (start.startswith((b"\x7fELF", b"MZ")), "a program", "give a .gguf file"),
        (start.startswith(_OLD), "a model of the format before GGUF", "fetch a newer file of the model"),
        (start.startswith(_PICTURES) or start[8:12] == b"WEBP", "a picture", "give it with --image"),
        (start[257:262] == b"ustar", "a tar archive", _UNPACK),
        (text.startswith((b"{", b"[")), "JSON text: settings, or an error",
         "give the .gguf file; if a download gave this, read what it says"),
        (not any(start), "nothing but zeros where it begins", "the download was not finished: fetch it again"),
    ]  # fmt: skip
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if packed:
        return f"packed with {packed}", _UNPACK
    for fits, what, hint in known:
        if fits:
            return what, hint
    if start and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return f"text that begins with {start[:40].decode('ascii')!r}", _AGAIN
    return f"of an unknown kind: it begins with {start[:8]!r}", "give a .gguf file"


def _pointer(start: bytes) -> str:
    size = re.search(rb"^size (\d{1,20})\s*$", start, re.MULTILINE)
    told = f" of {int(size[1]):,} bytes" if size else ""
    return f"a pointer of Git LFS to a file{told}, not that file"


def _is_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes of length, then JSON."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size
