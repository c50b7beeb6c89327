"""From protobuf to JSON: one pass over the message, pieces of text put together from the inside.

The object's bytes are looked at twice: as bytes, for tags, lengths and numbers, and as text of one
character a byte (Latin-1), from which strings are cut and quoted without being decoded; the result
goes back to bytes the same way, so UTF-8 passes through. What Go does to every string of an output
is done once, to the whole (`finished`): it can't occur outside strings.

Each message is compiled to a table: key -> what to do, where its JSON goes, the text before it.
Text goes into slots in the order in which Go declares the fields; a slot begins as what Go writes
for the zero value, None where it writes nothing. Keys of two bytes are looked up as they stand
(low byte first), so a key written longer than need be is refused.

Not here: merging. A message that is there twice is merged by Go; no writer of Kubernetes does it,
and it is Unreadable here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json.encoder import encode_basestring
from struct import unpack_from
from typing import Any

from btreecache.codec.base import Unreadable
from btreecache.codec.scalars import double_text
from btreecache.codec.wire import BYTES, FIXED32, FIXED64, VARINT, varint

#: Levels of messages in one object. The deepest are schemas of custom resources; each level of a
#: schema is one message.
DEPTH_MAX = 128

#: How much longer than the value its JSON may be. Objects grow to one and a half of their size, or
#: twice; a list of nothing but empty Nodes would to 142 times.
GROWTH_MAX = 32

CUT = "protobuf: a field is cut short"

# What becomes of a value. Those below INT begin with a length.
TEXT, MESSAGE, LIST, OTHER, INT, BOOL, NUMBERS = range(7)

#: What to do, slot, text before the value, what the doing needs.
Action = tuple[int, int, str, Any]

#: Reads the value data[start:stop] of a field: reading, start, stop, depth -> JSON, None: left out.
Reader = Callable[["Reading", int, int, int], "str | None"]


class Table:
    """One message, compiled.

    actions   by key as it stands on the wire, low byte first
    doubles   the same for numbers of eight bytes: slot, text before, whether zero is written
    many      slot and text before of every list and map
    numbers   every field's number, whatever its wire type
    slots     what the zero value has, in the order of JSON
    zero      the JSON of the zero value
    is_union  the last field that is there is the whole JSON
    """

    __slots__ = ("actions", "doubles", "is_union", "many", "numbers", "slots", "zero")

    def __init__(self, is_union: bool) -> None:
        self.actions: dict[int, Action] = {}
        self.doubles: dict[int, tuple[int, str, bool]] = {}
        self.many: list[tuple[int, str]] = []
        self.numbers: set[int] = set()
        self.slots: list[Any] = []
        self.is_union = is_union
        self.zero = "{}"

    def whole(self, slots: list[Any], limit: int) -> str:
        """The JSON of filled slots. limit: characters that a list may have, 0: there is none."""
        if limit:
            _close(self, slots, limit)
        if self.is_union:
            return next((slot for slot in reversed(slots) if slot is not None), "null")
        return "{" + ",".join(filter(None, slots)) + "}"


class Reading:
    """One value being read.

    limit    characters that its JSON may have
    unknown  fields that the table has not, left out of the JSON
    """

    __slots__ = ("data", "limit", "text", "unknown")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.text = data.decode("latin-1")
        self.limit = GROWTH_MAX * len(data) + 65_536
        self.unknown = 0

    def message(self, table: Table, at: int, stop: int, depth: int) -> str:
        """The JSON of the message data[at:stop]. Raises Unreadable or IndexError."""
        if at == stop:
            return table.zero
        if depth > DEPTH_MAX:
            raise Unreadable("protobuf: nested too deeply")
        data, text, quote = self.data, self.text, encode_basestring
        actions, empty = table.actions, table.slots
        slots, many = empty.copy(), False
        while at < stop:
            key = data[at]
            at += 1
            if key > 127:
                key |= data[at] << 8
                at += 1
            action = actions.get(key)
            if action is None:
                at = self._other(table, slots, key, at - (2 if key > 127 else 1), stop)
                continue
            kind, slot, before, what = action
            size = data[at]
            at += 1
            if size > 127:
                size, at = varint(data, at - 1, stop)
            if kind < INT:
                start = at
                at += size
                if at > stop:
                    raise Unreadable(CUT)
                if kind == TEXT:
                    slots[slot] = before + quote(text[start:at]) if size else what
                elif kind == LIST:
                    many = True
                    if slots[slot].__class__ is not list:
                        slots[slot] = []
                    slots[slot].append(self.message(what, start, at, depth + 1))
                elif kind == OTHER:
                    many = True
                    what(self, slots, slot, start, at, depth)
                else:
                    if slots[slot] is not empty[slot]:
                        raise twice(before)
                    slots[slot] = before + self.message(what, start, at, depth + 1)
            elif kind == BOOL:
                slots[slot] = what[size != 0]
            elif kind == INT:
                slots[slot] = f"{before}{size}" if 0 < size < 1 << 31 else what(size)
            else:
                many = True
                what(slots, slot, size)
        if at != stop:
            raise Unreadable(CUT)
        return table.whole(slots, self.limit if many else 0)

    def _other(self, table: Table, slots: list[Any], key: int, at: int, stop: int) -> int:
        """A field that has no action: a double, or unknown and counted. The offset after it."""
        double = table.doubles.get(key)
        number, after = varint(self.data, at, stop)
        if double is not None:
            slot, before, zero = double
            if after + 8 > stop:
                raise Unreadable(CUT)
            (value,) = unpack_from("<d", self.data, after)
            slots[slot] = before + double_text(value) if value or zero else None
            return after + 8
        wire = number & 7
        if number >> 3 in table.numbers:
            raise Unreadable(f"protobuf: field {number >> 3} has wire type {wire}")
        return self.skip(number, after, stop)

    def skip(self, key: int, at: int, stop: int) -> int:
        """The offset after the value of a field that the table has not."""
        wire = key & 7
        if not 0 < key >> 3 < 1 << 29:
            raise Unreadable("protobuf: a field has no number")
        if wire == VARINT:
            _, at = varint(self.data, at, stop)
        elif wire == BYTES:
            size, at = varint(self.data, at, stop)
            at += size
        elif wire in (FIXED32, FIXED64):
            at += 8 if wire == FIXED64 else 4
        else:
            raise Unreadable(f"protobuf: wire type {wire}")
        if at > stop:
            raise Unreadable(CUT)
        self.unknown += 1
        return at


def twice(before: str) -> Unreadable:
    """What is there a second time, by the text before it."""
    return Unreadable(f"protobuf: a message is there twice ({before[:40]})")


def _close(table: Table, slots: list[Any], limit: int) -> None:
    """Lists and maps as text. Maps by key: Go sorts them, and Latin-1 sorts as its bytes do.

    Empty items are one string, however many there are, so what is too long is seen in time.
    """
    quote = encode_basestring
    for slot, before in table.many:
        found = slots[slot]
        if found.__class__ is list:
            if len(found) > 32 and sum(map(len, found)) > limit:
                raise Unreadable("protobuf: its JSON would be far longer than it is")
            slots[slot] = f"{before}[{','.join(found)}]"
        elif found.__class__ is dict:
            members = [f"{quote(name)}:{found[name]}" for name in sorted(found)]
            slots[slot] = f"{before}{{{','.join(members)}}}"


_INVALID = re.compile("[\udc80-\udcff]")


def finished(text: str) -> bytes:
    """What Go does to every string: `<`, `>`, `&`, U+2028 and U+2029 and invalid UTF-8 escaped.

    In valid JSON these stand in strings only. Invalid bytes one by one, as Go takes them.
    """
    whole = text.encode("latin-1")
    for found, escape in ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026")):
        if found in whole:
            whole = whole.replace(found, escape)
    if whole.isascii():
        return whole
    try:
        whole.decode()
    except UnicodeDecodeError:
        whole = _INVALID.sub(r"\\ufffd", whole.decode(errors="surrogateescape")).encode()
    return whole.replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
