"""JPEG: before the first scan only tables, sizes and what says how colours are stored (JFIF, Adobe) reach Pillow."""

from __future__ import annotations

from opsin.media.beside import LARGE_BYTES, MOST_PROFILE_BYTES, MOST_REMARK_BYTES, Beside, Stripped
from opsin.media.headers import read_segments

_SCAN, _COMMENT = 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_PROFILE, _XMP, _EXIF = b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
_HEAD_BYTES = 14  # before each piece of a profile: its name, its number, how many there are


def strip(data: bytes) -> Stripped:
    """The pixels, and what stands beside them."""
    beside, view = Beside(), memoryview(data)
    kept: list[bytes | memoryview] = [data[:2]]
    exif: list[bytes] = []
    pieces: list[bytes] = []
    for code, place in read_segments(data):
        if code == _SCAN:
            kept += [b"\xff\xda", view[place:]]
            break
        end = (
            place + max(2, int.from_bytes(data[place : place + 2], "big")) if code not in (0x01, 0xD8, 0xD9) else place
        )
        if not (_APP0 <= code <= _APP15 or code == _COMMENT):
            kept += [bytes([0xFF, code]), view[place:end]]
            continue
        body = data[place + 2 : end]
        if (code == _APP0 and body[:5] == b"JFIF\0" and len(body) >= 14) or (code == _APP14 and _is_adobe(body)):
            kept += [bytes([0xFF, code]), view[place:end]]
        elif code == _APP1 and body.startswith(_EXIF) and sum(map(len, exif)) < MOST_REMARK_BYTES:
            exif.append(body.removeprefix(_EXIF))
        elif code == _APP1 and body.startswith(_XMP) and not beside.xmp:
            beside.xmp = body
        elif code == _APP2 and body.startswith(_PROFILE):
            pieces.append(body)
        elif len(body) + 2 > LARGE_BYTES - 2 or (code == _APP0 and body[:4] == b"JFIF"):
            beside.leave_out("COM" if code == _COMMENT else f"APP{code - _APP0}", len(body))
    beside.exif = b"".join(exif)
    if pieces:
        _take_profile(pieces, beside)
    return Stripped(b"".join(kept), beside)


def _is_adobe(body: bytes) -> bool:
    return body[:5] == b"Adobe" and len(body) >= 12


def _take_profile(pieces: list[bytes], beside: Beside) -> None:
    """A profile in pieces, each with its number from 1 and how many there are."""
    count = len(pieces)
    if any(len(piece) <= _HEAD_BYTES for piece in pieces):
        beside.leave_out_profile("one of its pieces is empty")
        return
    numbers = sorted(piece[12] for piece in pieces)
    stated = {piece[13] for piece in pieces}
    if stated != {count} or numbers != list(range(1, count + 1)):
        of = ", ".join(map(str, sorted(stated)[:4]))
        beside.leave_out_profile(f"{count} pieces came, of {of}, each once")
        return
    profile = b"".join(piece[_HEAD_BYTES:] for piece in sorted(pieces, key=lambda piece: piece[12]))
    if len(profile) > MOST_PROFILE_BYTES:
        beside.leave_out_profile(f"{len(profile)} bytes are too many")
        return
    beside.profile = profile
