"""The schema compiled for reading: what `transcode_json` does with each field of each message.

A kind is compiled with all that it leads to when its first object comes, which takes milliseconds;
messages are shared by kinds.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring
from threading import Lock
from typing import Any

from btreecache.codec.base import Unreadable
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.codec.scalars import (
    duration_text,
    micro_time_text,
    raw_json,
    signed,
    time_text,
)
from btreecache.codec.schema import Field, Message, Schema
from btreecache.codec.transcode_json import (
    BOOL,
    CUT,
    INT,
    LIST,
    MESSAGE,
    NUMBERS,
    OTHER,
    TEXT,
    Reader,
    Reading,
    Table,
    twice,
)
from btreecache.codec.wire import BYTES, FIXED64, VARINT, encoded, varint

#: Objects inside objects that the API shows with their kind: upstream's conversion of StatefulSets
#: sets it (kubernetes issue 87583).
SHOWN_WITH_KIND = {
    "volumeClaimTemplates": '"kind":"PersistentVolumeClaim","apiVersion":"v1"',
}

#: Items of lists that many objects have in common to the byte: containers and volumes of the Pods
#: of one template, tolerations, owners, the images of nodes. Their JSON is kept: two thirds of the
#: time of a Pod whose template was seen before (docs/transcoding.md). At most ITEMS_MAX of each,
#: ITEM_BYTES_MAX long: a megabyte or two as clusters are, 20 MB at the very worst.
SHARED = frozenset({
    "v1.Container", "v1.Volume", "v1.Toleration", "v1.ContainerImage",
    "meta.k8s.io/v1.OwnerReference",
})  # fmt: skip
ITEMS_MAX, ITEM_BYTES_MAX = 512, 2_048

_NUMBERS = {"int32": 32, "int64": 64}


def simple_fields(reading: Reading, at: int, stop: int) -> dict[int, int | bytes]:
    """The fields of a small message that has numbers and bytes only; the last of each counts."""
    data, found = reading.data, dict[int, int | bytes]()
    while at < stop:
        key, at = varint(data, at, stop)
        number, wire = key >> 3, key & 7
        if wire == VARINT and 0 < number < 4:
            found[number], at = varint(data, at, stop)
        elif wire == BYTES and 0 < number < 4:
            size, at = varint(data, at, stop)
            found[number], at = data[at : at + size], at + size
        else:
            at = reading.skip(key, at, stop)
    if at > stop:
        raise Unreadable(CUT)
    return found


def _number(found: dict[int, int | bytes], number: int, bits: int) -> int:
    value = found.get(number, 0)
    if isinstance(value, bytes):
        raise Unreadable("protobuf: bytes where a number belongs")
    return signed(value, bits)


def _bytes(found: dict[int, int | bytes], number: int) -> bytes:
    value = found.get(number, b"")
    if isinstance(value, int):
        raise Unreadable("protobuf: a number where bytes belong")
    return value


@lru_cache(4096)
def _usual_time(stamp: bytes) -> str | None:
    """A Time as Go writes it, five bytes of seconds and no nanoseconds; None for any other of 8."""
    if stamp[0] != 8 or stamp[6:] != b"\x10\0":
        return None
    seconds, stop = varint(stamp, 1, 6)
    return time_text(seconds) if stop == 6 else None


def _time(reading: Reading, start: int, stop: int, depth: int) -> str:
    if start == stop:
        return "null"
    if stop - start == 8 and (usual := _usual_time(reading.data[start:stop])):
        return usual
    # Go keeps whole seconds only, whatever the nanoseconds say.
    return time_text(_number(simple_fields(reading, start, stop), 1, 64))


def _set_time(reading: Reading, start: int, stop: int, depth: int) -> str | None:
    text = _time(reading, start, stop, depth)
    return None if text == "null" else text


def _micro_time(reading: Reading, start: int, stop: int, depth: int) -> str:
    if start == stop:
        return "null"
    found = simple_fields(reading, start, stop)
    return micro_time_text(_number(found, 1, 64), _number(found, 2, 32))


def _duration(reading: Reading, start: int, stop: int, depth: int) -> str:
    return duration_text(_number(simple_fields(reading, start, stop), 1, 64))


def _quantity(reading: Reading, start: int, stop: int, depth: int) -> str:
    data = reading.data
    if stop - start > 2 and data[start] == 10 and data[start + 1] == stop - start - 2 < 128:
        return encode_basestring(reading.text[start + 2 : stop])
    text = _bytes(simple_fields(reading, start, stop), 1)
    return encode_basestring(text.decode("latin-1")) if text else '"0"'


def _int_or_string(reading: Reading, start: int, stop: int, depth: int) -> str:
    found = simple_fields(reading, start, stop)
    kind = _number(found, 1, 64)
    if kind == 0:
        return str(_number(found, 2, 32))
    if kind == 1:
        return encode_basestring(_bytes(found, 3).decode("latin-1"))
    raise Unreadable("protobuf: an IntOrString is neither")


def _raw(reading: Reading, start: int, stop: int, depth: int) -> str:
    data = reading.data
    size, at = varint(data, start + 1, stop) if stop - start > 1 else (0, 0)
    if at + size == stop and data[start] == 10:
        raw = data[at:stop]
    else:
        raw = _bytes(simple_fields(reading, start, stop), 1)
    if raw.startswith(MAGIC):
        raise Unreadable("an object inside is protobuf")
    return raw_json(raw) if raw else "null"


def _blob(reading: Reading, start: int, stop: int, depth: int) -> str:
    return f'"{b2a_base64(reading.data[start:stop], newline=False).decode("ascii")}"'


def _set_blob(reading: Reading, start: int, stop: int, depth: int) -> str | None:
    return _blob(reading, start, stop, depth) if stop > start else None


def _text(reading: Reading, start: int, stop: int, depth: int) -> str:
    return encode_basestring(reading.text[start:stop])


def _set_strings(reading: Reading, start: int, stop: int, depth: int) -> str | None:
    found: list[str] = []
    while start < stop:
        key, start = varint(reading.data, start, stop)
        if key == 1 << 3 | BYTES:
            size, start = varint(reading.data, start, stop)
            found.append(encode_basestring(reading.text[start : start + size]))
            start += size
        else:
            start = reading.skip(key, start, stop)
    if start > stop:
        raise Unreadable(CUT)
    return f"[{','.join(found)}]" if found else None


def _strings(reading: Reading, start: int, stop: int, depth: int) -> str:
    return _set_strings(reading, start, stop, depth) or "null"


#: What reads a special type and scalars inside maps and lists, and its zero value.
_READERS: dict[str, tuple[Reader, str]] = {
    "Time": (_time, "null"),
    "MicroTime": (_micro_time, "null"),
    "Duration": (_duration, '"0s"'),
    "Quantity": (_quantity, '"0"'),
    "IntOrString": (_int_or_string, "0"),
    "RawExtension": (_raw, "null"),
    "FieldsV1": (_raw, "null"),
    "JSON": (_raw, "null"),
    "Strings": (_strings, "null"),
    "bytes": (_blob, '""'),
    "string": (_text, '""'),
}

#: The same where a value that is empty is left out.
_SET_READERS: dict[str, Reader] = {"bytes": _set_blob, "Strings": _set_strings, "Time": _set_time}


def _once(read: Reader, before: str, empty: str | None) -> Callable[..., None]:
    """A value that may be there once; `empty` is what its slot begins with."""

    def into(reading: Reading, slots: list[Any], slot: int, at: int, stop: int, depth: int) -> None:
        if slots[slot] is not empty:
            raise twice(before)
        value = read(reading, at, stop, depth)
        slots[slot] = None if value is None else before + value

    return into


def _into_list(read: Reader) -> Callable[..., None]:
    def into(reading: Reading, slots: list[Any], slot: int, at: int, stop: int, depth: int) -> None:
        if slots[slot].__class__ is not list:
            slots[slot] = []
        slots[slot].append(read(reading, at, stop, depth + 1))

    return into


def _into_shared(sub: Table) -> Callable[..., None]:
    """Items of a list whose JSON is kept by their bytes; those with unknown fields are not, for
    these must be counted each time."""
    known: dict[bytes, str] = {}

    def into(reading: Reading, slots: list[Any], slot: int, at: int, stop: int, depth: int) -> None:
        if slots[slot].__class__ is not list:
            slots[slot] = []
        body = reading.data[at:stop]
        found = known.get(body)
        if found is None:
            unknown = reading.unknown
            found = reading.message(sub, at, stop, depth + 1)
            if unknown == reading.unknown and stop - at <= ITEM_BYTES_MAX:
                if len(known) >= ITEMS_MAX:
                    known.clear()
                known[body] = found
        slots[slot].append(found)

    return into


def _into_map(read: Reader, zero: str) -> Callable[..., None]:
    """An entry of a map: key 1, value 2; either may be left out. The last of a key counts."""

    def into(reading: Reading, slots: list[Any], slot: int, at: int, stop: int, depth: int) -> None:
        found = slots[slot]
        if found.__class__ is not dict:
            found = slots[slot] = {}
        data, text = reading.data, reading.text
        name, value = "", zero
        while at < stop:
            key = data[at]
            if key in (10, 18):
                size = data[at + 1]
                at += 2
                if size > 127:
                    size, at = varint(data, at - 1, stop)
                start = at
                at += size
                if at > stop:
                    break
                if key == 10:
                    name = text[start:at]
                elif read is _text:
                    value = encode_basestring(text[start:at])
                else:
                    value = read(reading, start, at, depth + 1) or zero
            else:
                key, at = varint(data, at, stop)
                if 0 < key >> 3 < 3:
                    raise Unreadable("protobuf: an entry of a map has another type")
                at = reading.skip(key, at, stop)
        if at > stop:
            raise Unreadable(CUT)
        found[name] = value

    return into


def _number_text(before: str, bits: int, zero: str | None) -> Callable[[int], str | None]:
    def text(number: int) -> str | None:
        number = signed(number, bits)
        return f"{before}{number}" if number else zero

    return text


def _number_item(kind: str) -> Callable[[int], str]:
    if kind == "bool":
        return lambda number: "true" if number else "false"
    bits = _NUMBERS[kind]
    return lambda number: str(signed(number, bits))


def _into_numbers(kind: str) -> Callable[[list[Any], int, int], None]:
    item = _number_item(kind)

    def into(slots: list[Any], slot: int, number: int) -> None:
        if slots[slot].__class__ is not list:
            slots[slot] = []
        slots[slot].append(item(number))

    return into


def _into_packed(kind: str) -> Callable[..., None]:
    """Numbers packed into one field, which Go reads though it doesn't write it."""
    item = _number_item(kind)

    def into(reading: Reading, slots: list[Any], slot: int, at: int, stop: int, depth: int) -> None:
        if slots[slot].__class__ is not list:
            slots[slot] = []
        while at < stop:
            number, at = varint(reading.data, at, stop)
            slots[slot].append(item(number))

    return into


def _key(number: int, wire: int) -> int:
    return int.from_bytes(encoded(number << 3 | wire), "little")


class Tables:
    """Compiled tables of a schema. Any thread."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._messages: dict[str, Table] = {}
        self._kinds: dict[tuple[str, str], Table] = {}
        self._lock = Lock()

    def kind(self, api_version: str, kind: str) -> Table | None:
        """The table of an object, whose JSON begins with these two; None if it is not known."""
        table = self._kinds.get((api_version, kind))
        if table is not None:
            return table
        message = self._schema.kind(api_version, kind)
        if message is None:
            # Not remembered: a hostile source may name any number of kinds.
            return None
        head = f'"kind":{encode_basestring(kind)},"apiVersion":{encode_basestring(api_version)}'
        with self._lock:
            table = self._compiled(message, head)
            self._kinds[api_version, kind] = table
        return table

    def _table(self, full_name: str) -> Table:
        table = self._messages.get(full_name)
        return table or self._compiled(self._schema.message(full_name), "", full_name)

    def _compiled(self, message: Message, head: str, full_name: str = "") -> Table:
        table = Table(message.is_union)
        if full_name:
            self._messages[full_name] = table
        if head:
            table.slots.append(head)
        for field in message.fields:
            table.numbers.add(field.number)
            slot = len(table.slots)
            table.slots.append(self._field(table, field, slot))
        table.zero = table.whole(table.slots, 0)
        return table

    def _field(self, table: Table, field: Field, slot: int) -> str | None:
        """Compile one field. Its slot's text in the zero value."""
        before = "" if field.inline or table.is_union else f"{encode_basestring(field.name)}:"
        if field.shape in ("[]", "{}"):
            table.many.append((slot, before))
            self._many(table, field, slot, before)
            return None if field.omit_empty or table.is_union else before + "null"
        is_pointer = field.shape == "*"
        # What stands in JSON for a pointer to nothing.
        nil = None if field.omit_empty or table.is_union else before + "null"
        if field.type in ("int32", "int64", "bool", "double"):
            zero = self._plain(table, field, slot, before)
            return nil if is_pointer else zero
        key = _key(field.number, BYTES)
        if field.type == "string":
            empty = None if field.omit_empty and not is_pointer else before + '""'
            table.actions[key] = TEXT, slot, before, empty
            return nil if is_pointer else empty
        if field.is_message:
            sub = self._table(field.type)
            if field.inline:
                empty = sub.zero[1:-1] or None
                table.actions[key] = OTHER, slot, before, _once(_spread(sub), before, empty)
                return empty
            table.actions[key] = MESSAGE, slot, before, sub
            return nil if is_pointer else before + sub.zero
        read, zero = _READERS[field.type]
        omitted = not is_pointer and (
            field.omit_zero or (field.omit_empty and field.type in ("bytes", "Strings"))
        )
        if omitted:
            read = _SET_READERS[field.type]
        # A slice that is not there is null, one that is there and empty is not.
        empty = before + ("null" if field.type == "bytes" else zero)
        empty = nil if is_pointer else None if omitted else empty
        table.actions[key] = OTHER, slot, before, _once(read, before, empty)
        return empty

    def _plain(self, table: Table, field: Field, slot: int, before: str) -> str | None:
        """A number or a truth value."""
        is_pointer = field.shape == "*"
        is_omitted = field.omit_empty and not is_pointer
        zero = None if is_omitted else before + ("false" if field.type == "bool" else "0")
        if field.type == "double":
            table.doubles[_key(field.number, FIXED64)] = slot, before, not is_omitted
        elif field.type == "bool":
            what = zero, before + "true"
            table.actions[_key(field.number, VARINT)] = BOOL, slot, before, what
        else:
            text = _number_text(before, _NUMBERS[field.type], zero)
            table.actions[_key(field.number, VARINT)] = INT, slot, before, text
        return zero

    def _many(self, table: Table, field: Field, slot: int, before: str) -> None:
        """A list or a map."""
        key = _key(field.number, BYTES)
        if field.shape == "{}":
            read, zero = self._reader(field.type)
            table.actions[key] = OTHER, slot, before, _into_map(read, zero)
        elif field.is_message:
            sub = self._table(field.type)
            head = SHOWN_WITH_KIND.get(field.name)
            if head:
                sub = self._compiled(self._schema.message(field.type), head)
            if field.type in SHARED:
                table.actions[key] = OTHER, slot, before, _into_shared(sub)
            else:
                table.actions[key] = LIST, slot, before, sub
        elif field.type in ("int32", "int64", "bool"):
            table.actions[_key(field.number, VARINT)] = (
                NUMBERS, slot, before, _into_numbers(field.type)
            )  # fmt: skip
            table.actions[key] = OTHER, slot, before, _into_packed(field.type)
        else:
            table.actions[key] = OTHER, slot, before, _into_list(_READERS[field.type][0])

    def _reader(self, kind: str) -> tuple[Reader, str]:
        if kind in _READERS:
            return _READERS[kind]
        sub = self._table(kind)
        return lambda reading, at, stop, depth: reading.message(sub, at, stop, depth), sub.zero


def _spread(sub: Table) -> Reader:
    """A struct whose members stand among its owner's."""

    def read(reading: Reading, start: int, stop: int, depth: int) -> str | None:
        return reading.message(sub, start, stop, depth + 1)[1:-1] or None

    return read
