"""How large a picture may be, checked on what its header says before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from opsin.errors import RequestError

Size = tuple[int, int]  # width, height


class ByteLimit:
    """What a file may have of bytes, of whatever kind it is."""

    bytes: int

    def check_bytes(self, count: int) -> None:
        """Refuse a file that is too long."""
        if count > self.bytes:
            raise RequestError(f"{count} bytes, at most {self.bytes}", hint="send a smaller file")


@dataclass(frozen=True)
class PictureLimits(ByteLimit):
    """What a picture may cost.

    Attributes:
        bytes: of the file.
        pixels: width times height.
        side: pixels along the longer side.
        waiting_bytes: of the files of all pictures that come or wait, for a server; None for no limit.
    """

    bytes: int = 64 << 20
    pixels: int = 64_000_000
    side: int = 32_768
    waiting_bytes: int | None = None

    def check_size(self, size: Size) -> None:
        """Refuse a picture without pixels, or with too many."""
        width, height = size
        if width < 1 or height < 1:
            raise RequestError(f"{width} x {height} pixels: there is nothing to see", hint="send a picture with pixels")
        if max(size) > self.side:
            raise RequestError(f"{width} x {height} pixels, at most {self.side} a side", hint="make it smaller")
        if width * height > self.pixels:
            raise RequestError(
                f"{width} x {height} pixels are {width * height / 1e6:.0f} million, at most {self.pixels / 1e6:.0f}",
                hint="make it smaller",
            )
