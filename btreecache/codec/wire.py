"""Protobuf messages taken apart by hand: which field stands where. No schema, nothing decoded.

A message is tags and values one after the other, so one pass over one level says where each field
lies; values of submessages are skipped until asked for. Upstream's Go code writes fields in
ascending order of their numbers and lengths as short as they go; nothing here relies on either.
"""

from __future__ import annotations

from btreecache.codec.base import Unreadable
from btreecache.element import Edit

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


#: One field of a message: its number and wire type, and where its tag, its length (of bytes; else
#: the same as the start) and its value stand: number, wire, tag, length, start, stop. A plain
#: tuple: an object has dozens, and a named one takes twice the time to make.
Entry = tuple[int, int, int, int, int, int]


def varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """The number at `at` and the offset after it. Ten bytes at most, 64 bits, as Go reads them."""
    number = shift = 0
    while at < stop:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > 0xFFFF_FFFF_FFFF_FFFF:
                break
            return number, at
        shift += 7
        if shift == 70:
            break
    raise Unreadable("protobuf: a number is cut short or too long")


def entries(data: bytes, at: int, stop: int) -> list[Entry]:
    """The fields of the message data[at:stop] in their order. O(fields).

    Raises Unreadable for anything but a sequence of whole fields; groups, which proto2 gave up and
    Kubernetes never used, among it.
    """
    found: list[Entry] = []
    while at < stop:
        tag_at = at
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        start = at
        if wire == BYTES:
            if at < stop and data[at] < 0x80:
                start = at + 1
                end = start + data[at]
            else:
                length, start = varint(data, at, stop)
                end = start + length
        elif wire == VARINT:
            _, end = varint(data, at, stop)
        elif wire == FIXED64:
            end = at + 8
        elif wire == FIXED32:
            end = at + 4
        else:
            raise Unreadable(f"protobuf: wire type {wire}")
        if end > stop or not 0 < number < 1 << 29:
            raise Unreadable("protobuf: a field is cut short or has no number")
        found.append((number, wire, tag_at, at, start, end))
        at = end
    return found


def only(found: list[Entry], number: int, what: str) -> Entry | None:
    """The one entry with this number, which must be bytes; None if there is none.

    Twice is Unreadable: a decoder would merge the two, so neither is what is served.
    """
    result: Entry | None = None
    for entry in found:
        if entry[0] == number:
            if result is not None or entry[1] != BYTES:
                raise Unreadable(f"protobuf: {what} is there twice, or no message")
            result = entry
    return result


def encoded(number: int) -> bytes:
    """A number as a varint, as short as it goes."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def resized(enclosing: list[Entry], edits: list[Edit]) -> list[Edit]:
    """Edits inside the innermost of `enclosing` (outermost first), and those of every length."""
    growth = sum(len(new) - (stop - start) for start, stop, new in edits)
    lengths: list[Edit] = []
    for _, _, _, length, start, stop in reversed(enclosing):
        new = encoded(stop - start + growth)
        lengths.append((length, start, new))
        growth += len(new) - (start - length)
    return [*reversed(lengths), *edits]
