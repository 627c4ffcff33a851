"""What is open for reading is a picture as a path is: within the same limits, and from its beginning."""

from __future__ import annotations

import io
import os
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn import draw, encode

from opsin.errors import RequestError
from opsin.media.decode import open_picture
from opsin.media.limits import PictureLimits

PICTURE = encode(draw((40, 30)), "PNG")
WHOLE = open_picture(PICTURE)


def refusal(source: object, limits: PictureLimits | None = None) -> RequestError:
    """What is said."""
    with pytest.raises(RequestError) as refused:
        open_picture(source, limits, name="picture 7")
    assert refused.value.message.startswith("picture 7: ") and refused.value.hint
    return refused.value


class Slow(io.RawIOBase):
    """Gives three bytes at a time, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        piece, self.data = self.data[:3], self.data[3:]
        buffer[: len(piece)] = piece
        return len(piece)


class Pocket:
    """Knows one method."""

    def __init__(self, gives: object) -> None:
        self.gives = gives

    def read(self, size: int = -1) -> object:
        gives, self.gives = self.gives, b""
        return gives


def test_open_files_and_buffers_are_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.png")
    with path.open("rb") as file, path.open("rb", buffering=0) as raw, tempfile.NamedTemporaryFile() as named, \
            zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as inside, \
            tempfile.SpooledTemporaryFile() as spooled:  # fmt: skip
        named.write(PICTURE)
        spooled.write(PICTURE)
        for source in (io.BytesIO(PICTURE), file, raw, named, spooled, inside, Slow(PICTURE), Pocket(PICTURE)):
            picture = open_picture(source)
            assert np.array_equal(picture.pixels, WHOLE.pixels) and picture.digest == WHOLE.digest
        assert not file.closed and not named.closed


def test_what_was_just_written_or_read_is_read_from_its_beginning() -> None:
    buffer = io.BytesIO()
    draw((40, 30)).save(buffer, "PNG")  # stands at its end, and a conversation shows it once a turn
    for _ in range(3):
        assert open_picture(buffer).digest == WHOLE.digest


def test_a_stream_that_cannot_go_back_gives_its_bytes_once() -> None:
    stream = Slow(PICTURE)
    assert open_picture(stream).digest == WHOLE.digest
    said = refusal(stream)
    assert said.message == "picture 7: nothing is left to read" and "read()" in said.hint


def test_files_that_give_no_bytes_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    closed = io.BytesIO(PICTURE)
    closed.close()
    assert refusal(closed).message == "picture 7: a closed file"
    with path.open("r", encoding="latin-1") as text:
        assert refusal(text).message == "picture 7: a file opened as text" and '"rb"' in refusal(text).hint
    assert refusal(io.StringIO("x")).message == "picture 7: a file opened as text"
    with path.open("ab") as writing:
        assert refusal(writing).message == "picture 7: cannot be read: read"
    for gives in (5, None, [b"x"]):
        assert refusal(Pocket(gives)).message == f"picture 7: its read() gives {type(gives).__name__}"


def test_no_more_is_read_than_a_picture_may_have() -> None:
    taken = 0

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            nonlocal taken
            taken += len(buffer)
            return len(buffer)

    assert refusal(Endless(), PictureLimits(bytes=100_000)).message == "picture 7: more than 100000 bytes"
    assert taken <= 200_000
    assert open_picture(io.BytesIO(PICTURE), PictureLimits(bytes=len(PICTURE))).digest == WHOLE.digest
    assert "more than" in refusal(io.BytesIO(PICTURE), PictureLimits(bytes=len(PICTURE) - 1)).message


def fill(pipe: int) -> None:
    """All of the picture, and then the end."""
    with os.fdopen(pipe, "wb") as file:
        file.write(PICTURE)


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        thread = threading.Thread(target=fill, args=(writing,))
        thread.start()
        assert open_picture(file).digest == WHOLE.digest
        thread.join()


def test_a_home_folder_is_found_and_any_kind_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "~b.png").write_bytes(PICTURE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with os.scandir(tmp_path) as entries:
        entry = next(entry for entry in entries if entry.name == "a.png")
    for path in ("~/a.png", Path("~/a.png"), Path("~") / "a.png", "~b.png", entry):
        assert open_picture(path).digest == WHOLE.digest
    assert "cannot be read: No such file" in refusal("~/none.png").message


def test_masks_and_floats_out_of_range_say_what_to_give() -> None:
    assert "an array of bool" in refusal(np.ones((4, 4), bool)).message
    assert "255" in refusal(np.ones((4, 4), bool)).hint
    assert "floats from 0 to 255" in refusal(np.linspace(0, 255, 16).reshape(4, 4)).message
    assert "floats from -1 to 1" in refusal(np.linspace(-1, 1, 16).reshape(4, 4)).message
    assert "an array of complex128" in refusal(np.zeros((4, 4), complex)).message
