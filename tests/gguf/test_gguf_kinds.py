"""Files that are not what their name says: the error says what they are, in a line."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from raw_gguf import RawFile, f32

from opsin.errors import FileError
from opsin.gguf import File


def _zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return made.getvalue()


def _tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.gguf"))
    return made.getvalue()


def _png() -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (8, 8)).save(made, "PNG")
    return made.getvalue()


_HEADER = json.dumps({"__metadata__": {}}).encode()
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4920734272\n"
KINDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "a pointer": (lambda: _POINTER, r"pointer of Git LFS to a file of 4,920,734,272 bytes.*git lfs pull"),
    "a web page": (lambda: b"\xef\xbb\xbf\n<!DOCTYPE html><title>404", "a web page.*login"),
    "a web page in capitals": (lambda: b"<HTML><BODY>Access denied", "a web page"),
    "XML": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "a web page"),
    "safetensors": (lambda: struct.pack("<Q", len(_HEADER)) + _HEADER, "a safetensors file.*give its folder"),
    "an old imatrix": (lambda: struct.pack("<ii", 1, 19) + b"blk.0.attn_q.weight" + bytes(99), "an old imatrix"),
    "a pickle": (lambda: pickle.dumps({"a": 1}, 4), "a pickle"),
    "zip": (_zip, "a zip archive.*pytorch_model.bin"),
    "tar": (_tar, "a tar archive.*unpack"),
    "gzip": (lambda: gzip.compress(b"GGUF"), "packed with gzip.*unpack"),
    "PDF": (lambda: b"%PDF-1.7\n", "a PDF"),
    "a picture": (_png, "a picture.*--image"),
    "ggjt": (lambda: struct.pack("<II", 0x67676A74, 3) + bytes(40), "the format before GGUF"),
    "JSON": (lambda: b'{"error": "Invalid username or password."}', "JSON text.*read what it says"),
    "zeros": (lambda: bytes(4096), "nothing but zeros.*not finished"),
    "text": (lambda: b"Entry not found", "text that begins with 'Entry not found'"),
    "a program": (lambda: b"\x7fELF" + bytes(60), "a program"),
    "anything": (lambda: b"\x93\xfe\x01\x88" * 20, r"unknown kind: it begins with b'\\x93"),
    "text of a terminal": (lambda: b"\x1b[2J\x1b]0;x\7" * 4, "unknown kind"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_is_and_what_to_do_is_said_in_a_line(tmp_path: Path, kind: str) -> None:
    make, said = KINDS[kind]
    path = tmp_path / "model.gguf"
    path.write_bytes(make())
    with pytest.raises(FileError, match=said) as caught:
        File.open(path)
    line = str(caught.value)
    assert str(path) in line
    assert caught.value.hint
    assert line.isprintable()


def test_a_folder_of_a_checkpoint_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is a folder.*\.gguf file"):
        File.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileError, match="is a folder.*opsin convert"):
        File.open(tmp_path)


def test_a_cut_download_says_how_many_bytes_are_there(tmp_path: Path) -> None:
    whole = RawFile([], [f32(b"a"), f32(b"b", 32)]).save(tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(whole[:-8])
    with pytest.raises(FileError, match=f"incomplete: {len(whole) - 8} of {len(whole)} bytes are there"):
        File.open(tmp_path / "model.gguf")
