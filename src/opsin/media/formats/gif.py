"""GIF: the first frame alone, with the extension that says which colour is transparent."""

from __future__ import annotations

from opsin.media.beside import LARGE_BYTES, Beside, Stripped
from opsin.media.headers import table_bytes

_CONTROL = 0xF9


def strip(data: bytes) -> Stripped:
    """The first frame, and what stands before it. `read_header` has found it within so many steps."""
    beside, view = Beside(), memoryview(data)
    place = 13 + table_bytes(data[10])
    kept: list[bytes | memoryview] = [view[:place]]
    control = b""
    while data[place : place + 1] == b"!":
        first, end = place + 2, _end_of_blocks(data, place + 2)
        if data[place + 1] == _CONTROL:
            if data[first] >= 4:
                control = b"!\xf9\x04" + data[first + 1 : first + 5] + b"\0"
            else:
                beside.leave_out("graphic control", end - first)
        elif end - first > LARGE_BYTES:
            beside.leave_out({0xFE: "comment", 0xFF: "application"}.get(data[place + 1], "extension"), end - first)
        place = end
    end = _end_of_blocks(data, place + 11 + table_bytes(data[place + 9]))
    return Stripped(b"".join([*kept, control, view[place:end], b";"]), beside)


def _end_of_blocks(data: bytes, place: int) -> int:
    """Behind the empty block that ends a row of them."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1
