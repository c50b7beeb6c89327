"""From JSON to protobuf: the bytes that an API server would store for the object.

Fields ascend; whatever is no pointer, list or map is written even where it is empty; maps are
sorted. JSON is parsed level by level only where a message holds embedded JSON somewhere below,
which must keep its text; all else is parsed at once.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from struct import pack
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.codec.json_text import members_of
from btreecache.codec.scalars import ZERO_TIME, double_text, duration_of, time_of
from btreecache.codec.schema import Field, Message, Schema
from btreecache.codec.transcode_json import DEPTH_MAX
from btreecache.codec.wire import BYTES, FIXED64, VARINT, encoded

#: Types whose JSON is kept as text.
_EMBEDDED = frozenset({"RawExtension", "FieldsV1", "JSON"})

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_BITS = {"int32": 32, "int64": 64}

_items_of = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value_of = msgspec.json.Decoder().decode


class Writing:
    """One object being written. unknown: members that the table has not, left out."""

    __slots__ = ("unknown",)

    def __init__(self) -> None:
        self.unknown = 0


#: Writes a value without its tag and length: value, writing, depth -> bytes.
Body = Callable[[Any, Writing, int], bytes]


class Written(NamedTuple):
    """One field: its JSON name, what is written where it is missing, what parses, what writes."""

    name: str
    empty: bytes
    parse: Callable[[Any], Any] | None
    write: Body


class WriteTable:
    """One message, compiled. names: all that its JSON may have. raw: its members come as text."""

    __slots__ = ("fields", "names", "raw")

    def __init__(self, raw: bool) -> None:
        self.raw = raw
        self.fields: list[Written] = []
        self.names: set[str] = set()


def sized(tag: bytes, body: bytes) -> bytes:
    """A field of bytes."""
    size = len(body)
    return tag + (bytes((size,)) if size < 128 else encoded(size)) + body


def utf8(value: object) -> bytes:
    """A string's bytes."""
    if not isinstance(value, str):
        raise Unreadable("JSON: no string where a string belongs")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("JSON: half of a surrogate pair") from error


def integer(value: object, bits: int) -> bytes:
    """An integer as a varint."""
    if not isinstance(value, int) or isinstance(value, bool) or value >> (bits - 1) not in (0, -1):
        raise Unreadable(f"JSON: no integer of {bits} bits where one belongs")
    return encoded(value & _U64)


def _text(value: Any, writing: Writing, depth: int) -> bytes:
    return utf8(value)


def _truth(value: Any) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\0"
    raise Unreadable("JSON: neither true nor false where one belongs")


def _double(value: Any) -> bytes:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Unreadable("JSON: no number where one belongs")
    try:
        return pack("<d", float(value))
    except OverflowError as error:
        raise Unreadable("JSON: a number is too large") from error


def _time(value: Any, writing: Writing, depth: int) -> bytes:
    if value is None:
        return b""
    seconds, _ = time_of(_string(value))
    return b"" if seconds == ZERO_TIME else b"\x08" + encoded(seconds & _U64) + b"\x10\0"


def _micro_time(value: Any, writing: Writing, depth: int) -> bytes:
    if value is None:
        return b""
    seconds, nanoseconds = time_of(_string(value))
    nanoseconds -= nanoseconds % 1_000
    if seconds == ZERO_TIME and not nanoseconds:
        return b""
    return b"\x08" + encoded(seconds & _U64) + b"\x10" + encoded(nanoseconds)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable("JSON: no string where a string belongs")
    return value


def _duration(value: Any, writing: Writing, depth: int) -> bytes:
    return b"\x08" + encoded((duration_of(_string(value)) if value is not None else 0) & _U64)


def _quantity(value: Any, writing: Writing, depth: int) -> bytes:
    # Kept as it is written, not made canonical: what servers write is canonical.
    if value is None:
        return b"\x0a\x010"
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value) if isinstance(value, int) else double_text(value)
    return sized(b"\x0a", utf8(value))


def _int_or_string(value: Any, writing: Writing, depth: int) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\0" + sized(b"\x1a", utf8(value))
    return b"\x08\0\x10" + integer(value or 0 if value is not False else value, 32) + b"\x1a\0"


def _embedded(value: Any, writing: Writing, depth: int) -> bytes:
    text = bytes(memoryview(value)) if value is not None else b"null"
    return b"" if text == b"null" else sized(b"\x0a", text)


def _blob(value: Any, writing: Writing, depth: int) -> bytes:
    text = utf8(value)
    try:
        # Go passes over line ends; all else must be base64 to the letter.
        return a2b_base64(text.translate(None, b"\r\n"), strict_mode=True) if text else b""
    except Base64Error as error:
        raise Unreadable("JSON: not base64") from error


def _strings(value: Any, writing: Writing, depth: int) -> bytes:
    items = _list(value) if value is not None else []
    return b"".join(sized(b"\x0a", utf8(item or "")) for item in items)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unreadable("JSON: no array where one belongs")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable("JSON: no object where one belongs")
    return value


_BODIES: dict[str, Body] = {
    "string": _text, "bytes": _blob, "Time": _time, "MicroTime": _micro_time,
    "Duration": _duration, "Quantity": _quantity, "IntOrString": _int_or_string,
    "RawExtension": _embedded, "FieldsV1": _embedded, "JSON": _embedded, "Strings": _strings,
}  # fmt: skip

#: What they write for null inside lists and maps.
_NULLS: dict[str, Any] = {"string": "", "bytes": ""}


def message(table: WriteTable, value: Any, writing: Writing, depth: int) -> bytes:
    """The message of a JSON object: its text, or its members."""
    if depth > DEPTH_MAX:
        raise Unreadable("JSON: nested too deeply")
    if table.raw and isinstance(value, msgspec.Raw):
        value = members_of(value)
    found = _mapping(value)
    if not found.keys() <= table.names:
        writing.unknown += len(found.keys() - table.names)
    return _fields(table, found, writing, depth)


def _fields(table: WriteTable, found: Mapping[str, Any], writing: Writing, depth: int) -> bytes:
    parts: list[bytes] = []
    for name, empty, parse, write in table.fields:
        value = found.get(name) if name else found
        if value is not None and parse is not None:
            value = None if value == _NULL else parse(value)
        if value is None:
            if empty:
                parts.append(empty)
        else:
            parts.append(write(value, writing, depth))
    return b"".join(parts)


_NULL = msgspec.Raw(b"null")


def _same(value: Any) -> Any:
    return value


def _listed(tag: bytes, body: Body, null: Any) -> Body:
    def write(value: Any, writing: Writing, depth: int) -> bytes:
        return b"".join(
            sized(tag, body(null if item is None else item, writing, depth))
            for item in _list(value)
        )

    return write


def _mapped(tag: bytes, body: Body, null: Any) -> Body:
    """Entries by key; null is the zero value, but of bytes nothing at all."""

    def write(value: Any, writing: Writing, depth: int) -> bytes:
        parts = []
        found = {utf8(name): item for name, item in _mapping(value).items()}
        for name in sorted(found):
            item = found[name]
            if item is None and body is _blob:
                entry = b""
            else:
                entry = sized(b"\x12", body(null if item is None else item, writing, depth))
            parts.append(sized(tag, sized(b"\x0a", name) + entry))
        return b"".join(parts)

    return write


def _single(tag: bytes, body: Body) -> Body:
    return lambda value, writing, depth: sized(tag, body(value, writing, depth))


def _plain(tag: bytes, kind: str) -> Body:
    """A number or a truth value with its tag."""
    if kind == "bool":
        return lambda value, writing, depth: tag + _truth(value)
    if kind == "double":
        return lambda value, writing, depth: tag + _double(value)
    bits = _BITS[kind]
    return lambda value, writing, depth: tag + integer(value, bits)


def _union(found: Message, schema: WriteTable) -> Body:
    """JSONSchemaPropsOrBool, OrArray, OrStringArray: by what the JSON is."""
    allows = b""
    schema_tag = list_tag = b""
    body: Body = _text
    for field in found.fields:
        if field.type == "bool":
            allows = encoded(field.number << 3 | VARINT)
        elif field.shape == "[]":
            list_tag = encoded(field.number << 3 | BYTES)
            if field.is_message:
                body = _body_of(schema)
        else:
            schema_tag = encoded(field.number << 3 | BYTES)

    def write(value: Any, writing: Writing, depth: int) -> bytes:
        text = bytes(memoryview(value)) if value is not None else b"null"
        if text.startswith(b"{"):
            inner = sized(schema_tag, message(schema, value, writing, depth + 1))
            return (allows and allows + b"\x01" + inner) or inner
        if text.startswith(b"[") and list_tag:
            items = _items_of(value) if body is not _text else _value_of(value)
            return b"".join(sized(list_tag, body(item, writing, depth)) for item in items)
        if allows:
            return allows + _truth(_value_of(text))
        if text == b"null":
            return b""
        raise Unreadable("JSON: neither a schema nor an array where one belongs")

    return write


def _body_of(table: WriteTable) -> Body:
    return lambda value, writing, depth: message(table, value, writing, depth + 1)


class WriteTables:
    """The schema compiled for writing. Any thread."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._messages: dict[tuple[str, bool], WriteTable] = {}
        self._kinds: dict[tuple[str, str], WriteTable] = {}
        self._holds: dict[str, bool] = {}
        self._lock = Lock()

    def kind(self, api_version: str, kind: str) -> WriteTable | None:
        """The table of an object, whose members come as text; None if it is not known."""
        table = self._kinds.get((api_version, kind))
        if table is not None:
            return table
        found = self._schema.kind(api_version, kind)
        if found is None:
            return None
        with self._lock:
            table = self._table(f"{found.section}.{found.name}", True)
            self._kinds[api_version, kind] = table
        return table

    def _embeds(self, full_name: str) -> bool:
        """Whether embedded JSON stands in a message or below it."""
        if full_name not in self._holds:
            seen, left = {full_name}, [full_name]
            holds = False
            while left and not holds:
                for field in self._schema.message(left.pop()).fields:
                    holds = holds or field.type in _EMBEDDED or self._holds.get(field.type, False)
                    if field.is_message and field.type not in seen:
                        seen.add(field.type)
                        left.append(field.type)
            self._holds[full_name] = holds
        return self._holds[full_name]

    def _table(self, full_name: str, raw: bool) -> WriteTable:
        table = self._messages.get((full_name, raw))
        if table is not None:
            return table
        table = self._messages[full_name, raw] = WriteTable(raw)
        found = self._schema.message(full_name)
        if found.is_kind:
            table.names |= {"kind", "apiVersion"}
        for field in sorted(found.fields, key=lambda field: field.number):
            if field.inline:
                self._inline(table, field)
            else:
                table.names.add(field.name)
                table.fields.append(self._field(table, field))
        return table

    def _inline(self, table: WriteTable, field: Field) -> None:
        """A struct whose members stand among its owner's. Never a pointer, says the table."""
        sub = self._table(field.type, table.raw)
        table.names |= sub.names
        tag = encoded(field.number << 3 | BYTES)

        def write(value: Any, writing: Writing, depth: int) -> bytes:
            return sized(tag, _fields(sub, value, writing, depth + 1))

        table.fields.append(Written("", b"", None, write))

    def _field(self, table: WriteTable, field: Field) -> Written:
        kind = field.type
        embeds = kind in _EMBEDDED or (field.is_message and self._embeds(kind))
        parse = _parser(field, embeds) if table.raw else None
        if kind in ("int32", "int64", "bool", "double"):
            return self._number(field, parse)
        tag = encoded(field.number << 3 | BYTES)
        body = self._body(kind, embeds)
        null = _NULLS.get(kind, {} if field.is_message else None)
        if field.shape == "[]":
            return Written(field.name, b"", parse, _listed(tag, body, null))
        if field.shape == "{}":
            return Written(field.name, b"", parse, _mapped(tag, body, null))
        write = _single(tag, body)
        # A slice, of bytes or in a message of its own, is not written where it is not there.
        if field.shape == "*" or kind in ("bytes", "Strings"):
            return Written(field.name, b"", parse, write)
        if field.retired:
            return Written(
                field.name, b"", parse, lambda *given: write(*given) if given[0] else b""
            )
        return Written(field.name, write(null, Writing(), 0), parse, write)

    def _body(self, kind: str, embeds: bool) -> Body:
        if kind in _BODIES:
            return _BODIES[kind]
        found = self._schema.message(kind)
        if found.is_union:
            schema = next(field.type for field in found.fields if field.shape == "*")
            return _union(found, self._table(schema, True))
        return _body_of(self._table(kind, embeds))

    def _number(self, field: Field, parse: Callable[[Any], Any] | None) -> Written:
        kind = field.type
        wire = FIXED64 if kind == "double" else VARINT
        write = _plain(encoded(field.number << 3 | wire), kind)
        if field.shape == "[]":
            zero = False if kind == "bool" else 0

            def each(value: Any, writing: Writing, depth: int) -> bytes:
                return b"".join(
                    write(zero if item is None else item, writing, depth) for item in _list(value)
                )

            return Written(field.name, b"", parse, each)
        if field.shape == "*":
            return Written(field.name, b"", parse, write)
        if field.retired:
            return Written(
                field.name, b"", parse, lambda *given: write(*given) if given[0] else b""
            )
        return Written(
            field.name, write(False if kind == "bool" else 0, Writing(), 0), parse, write
        )


def _parser(field: Field, embeds: bool) -> Callable[[Any], Any]:
    """What parses the text of a member."""
    if not embeds:
        return _value_of
    return {"[]": _items_of, "{}": members_of}.get(field.shape, _same)
