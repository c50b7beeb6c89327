"""The envelope of Kubernetes protobuf: what stands around a message. Pure.

`k8s\\0`, then runtime.Unknown: typeMeta (1: apiVersion 1, kind 2), raw (2), contentEncoding (3),
contentType (4), the last two empty but written. An empty string is written as a tag and a zero:
these messages are proto2 (upstream's generated code).
"""

from __future__ import annotations

from functools import lru_cache

from btreecache.codec.base import Unreadable
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.codec.wire import encoded, entries, only

#: contentEncoding and contentType, empty.
TAIL = b"\x1a\0\x22\0"

#: Tags: fields 1 to 3 where they are bytes, field 4 where it is a number.
FIRST, SECOND, THIRD, COUNT = b"\x0a", b"\x12", b"\x1a", b"\x20"


def field(tag: bytes, content: bytes) -> bytes:
    """One field of bytes: tag, length, content."""
    return b"%b%b%b" % (tag, encoded(len(content)), content)


def first(content: bytes) -> bytes:
    """Field 1."""
    return field(FIRST, content)


def second(content: bytes) -> bytes:
    """Field 2."""
    return field(SECOND, content)


def head(api_version: str, kind: str) -> bytes:
    """What stands before the message: the magic and typeMeta."""
    return MAGIC + first(first(api_version.encode()) + second(kind.encode()))


def enclosed(begin: bytes, message: bytes) -> bytes:
    """A message in its envelope, which begins with `begin`."""
    return begin + second(message) + TAIL


def list_meta(resource_version: str, continue_token: str, remaining: int | None) -> bytes:
    """The message ListMeta; selfLink is empty."""
    parts = first(b"") + second(resource_version.encode()) + field(THIRD, continue_token.encode())
    return parts if remaining is None else parts + COUNT + encoded(remaining)


def type_of(value: bytes) -> tuple[str, str]:
    """apiVersion and kind of an object in its envelope, as they are. Raises Unreadable."""
    envelope = entries(value, len(MAGIC), len(value))
    type_meta = only(envelope, 1, "typeMeta")
    if type_meta is None:
        return "", ""
    found = entries(value, type_meta[4], type_meta[5])
    texts = []
    for number, what in ((1, "apiVersion"), (2, "kind")):
        entry = only(found, number, what)
        texts.append(value[entry[4] : entry[5]] if entry else b"")
    try:
        return texts[0].decode(), texts[1].decode()
    except UnicodeDecodeError:
        raise Unreadable("protobuf: typeMeta is not UTF-8") from None


def is_plain(value: bytes, begin: bytes) -> bool:
    """Whether an envelope is as upstream writes it: `begin`, the message, TAIL. O(1).

    `raw` has the number of a list's `items`, so what is between the two is an item of a list.
    """
    return entry_length(value, begin) > 0 and value.endswith(TAIL)


def entry_length(value: bytes, begin: bytes) -> int:
    """The bytes of `entry_of` if what follows the message is as long as TAIL, else 0. O(1).

    The end is not looked at: of large objects it is seldom in a processor's cache, which would be
    half of the time that a list takes before its first byte.
    """
    inner = len(value) - len(begin) - len(TAIL)
    if inner > 1 and value.startswith(begin) and value.startswith(_lead(inner), len(begin)):
        return inner
    return 0


@lru_cache(1 << 14)
def _lead(size: int) -> bytes:
    """Tag and length of a field 2 that is `size` bytes altogether; impossible ones: no tag."""
    for digits in range(1, 6):
        length = encoded(max(0, size - 1 - digits))
        if len(length) == digits:
            return SECOND + length
    return b"\xff"


def entry_of(value: bytes, begin: bytes) -> bytes:
    """The object of an envelope as an item of a list: tag 2, length, message. A copy, and O(fields)
    if the envelope isn't plain. Raises Unreadable."""
    if is_plain(value, begin):
        return value[len(begin) : -len(TAIL)]
    return second(raw_of(value))


def raw_of(value: bytes) -> bytes:
    """The message in an envelope of any form. Raises Unreadable."""
    envelope = entries(value, len(MAGIC), len(value))
    for number, what in ((3, "contentEncoding"), (4, "contentType")):
        entry = only(envelope, number, what)
        if entry is not None and entry[4] != entry[5]:
            raise Unreadable(f"protobuf: {what} is set")
    raw = only(envelope, 2, "raw")
    return value[raw[4] : raw[5]] if raw else b""
