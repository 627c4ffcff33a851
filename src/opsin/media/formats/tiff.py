"""TIFF: of the first page's tags only those of the pixels stay; the pixels stay where they are."""

from __future__ import annotations

from struct import error as StructError  # noqa: N812 - the module calls it just "error"
from struct import pack_into, unpack_from

from opsin.errors import RequestError
from opsin.media.beside import MOST_PROFILE_BYTES, MOST_REMARK_BYTES, Beside, Stripped
from opsin.media.headers import MOST_PARTS, SAVE_AGAIN

_PIXELS = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338,
    339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
))  # fmt: skip
_DEPTH, _PHOTOMETRIC = 258, 262
_ORIENTATION, _XMP, _PROFILE = 274, 700, 34675


def strip(data: bytes) -> Stripped:
    """The pixels, and what stands beside them."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = unpack_from(order + "H", data, 2)[0] == 43
    count_code, number_code, entry_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    (page,) = unpack_from(order + number_code, data, 8 if is_big else 4)
    (count,) = unpack_from(order + count_code, data, page)
    if count > MOST_PARTS:
        raise RequestError(f"a TIFF of more than {MOST_PARTS} tags", hint=SAVE_AGAIN)
    first = page + (8 if is_big else 2)
    beside, kept = Beside(), list[bytes]()
    for at in range(first, first + count * entry_bytes, entry_bytes):
        entry = data[at : at + entry_bytes]
        if len(entry) < entry_bytes:
            return Stripped(data, beside)  # Pillow says that it is cut
        (tag,) = unpack_from(order + "H", entry, 0)
        if tag in _PIXELS:
            kept.append(entry)
        else:
            _take(tag, entry, data, order + number_code, beside)
    beside.is_negative = _is_negative(kept, order, number_code)
    if beside.is_negative:
        kept = [_black_is_zero(entry, order) for entry in kept]
    table = bytearray(entry_bytes * len(kept) + (16 if is_big else 6))  # the next page is none
    pack_into(order + count_code, table, 0, len(kept))
    table[first - page : first - page + entry_bytes * len(kept)] = b"".join(kept)
    if len(kept) == count and not beside.is_negative:
        return Stripped(data, beside)
    return Stripped(b"".join((memoryview(data)[:page], table, memoryview(data)[page + len(table) :])), beside)


def _is_negative(entries: list[bytes], order: str, number_code: str) -> bool:
    """Whether it is grey of one sample of 16 bits, of which zero is white: Pillow shows that as if it were black."""
    said: dict[int, tuple[int, int]] = {}
    for entry in entries:
        tag, _, count, value = unpack_from(f"{order}HH{number_code}H", entry)
        said.setdefault(tag, (count, value))
    return said.get(_DEPTH) == (1, 16) and said.get(_PHOTOMETRIC) == (1, 0)


def _black_is_zero(entry: bytes, order: str) -> bytes:
    if unpack_from(order + "H", entry)[0] != _PHOTOMETRIC:
        return entry
    changed = bytearray(entry)
    pack_into(order + "H", changed, 12 if len(entry) == 20 else 8, 1)
    return bytes(changed)


def _take(tag: int, entry: bytes, data: bytes, number: str, beside: Beside) -> None:
    """What an entry says: two bytes of its tag, two of its kind, how many there are, and they or where they lie."""
    try:
        (count,) = unpack_from(number, entry, 4)
        value = len(entry) - (8 if len(entry) == 20 else 4)
        if tag == _ORIENTATION:
            # As EXIF has it: a directory of this one entry.
            (found,) = unpack_from(number[0] + "H", entry, value)
            beside.exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + found.to_bytes(2, "big") + bytes(6)
        elif tag in (_XMP, _PROFILE):
            (place,) = unpack_from(number, entry, value)
            most = MOST_PROFILE_BYTES if tag == _PROFILE else MOST_REMARK_BYTES
            body = data[place : place + min(count, most + 1)]
            if tag == _XMP:
                beside.xmp = body
            elif len(body) > most or len(body) < count:
                beside.leave_out_profile(f"{count} bytes are too many" if len(body) > most else "damaged")
            else:
                beside.profile = body
    except (StructError, OverflowError):
        beside.leave_out(f"tag {tag}", len(entry))
