"""Built-in Kubernetes objects from protobuf to JSON and back, as an API server converts them.

`json_of` gives the text that an API server answers a GET with, `protobuf_of` what it would store.
Both go by the table of codec/schema; an object of a kind that is not there is Unreadable. An object
is taken as it is: no defaults, no conversion between versions, no checks of what the API allows.

Nothing here drops an unknown field of an object that is served as protobuf; only its JSON is
without it, and the count says so.
"""

from __future__ import annotations

from functools import cache

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.codec.json_text import check_utf8, members_of
from btreecache.codec.kubernetes_protobuf import KINDS_MAX, MAGIC
from btreecache.codec.schema import Schema, schema
from btreecache.codec.transcode_json import Reading, Table, finished
from btreecache.codec.transcode_protobuf import WriteTables, Writing, message, sized, utf8
from btreecache.codec.transcode_tables import Tables
from btreecache.codec.wire import Entry, entries, only, varint

#: What ends an envelope: contentEncoding and contentType, both empty.
_TAIL = b"\x1a\0\x22\0"


class UnknownFields:
    """How many fields the table did not know and the result is without. Add up over objects."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Transcoder:
    """Both ways by one schema. Any thread; a kind is compiled when its first object comes."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._usual: dict[bytes, Table] = {}
        self._read = Tables(schema)
        self._write = WriteTables(schema)

    def knows(self, api_version: str, kind: str) -> bool:
        """Whether objects of a kind can be transcoded. O(fields of the kind)."""
        return self._schema.kind(api_version, kind) is not None

    def json_of(self, value: bytes, unknown: UnknownFields | None = None) -> bytes:
        """The JSON text of an object given as protobuf: kind and apiVersion first, no line end.

        O(len(value)). Raises Unreadable.
        """
        table, start, stop = self._opened(value)
        reading = Reading(value)
        try:
            text = reading.message(table, start, stop, 0)
        except (IndexError, RecursionError) as error:
            raise Unreadable("protobuf: cut short, or nested too deeply") from error
        if unknown is not None:
            unknown.count += reading.unknown
        return finished(text)

    def _opened(self, value: bytes) -> tuple[Table, int, int]:
        """The table of an object in its envelope, and where the object begins and ends."""
        # As servers write it: a short typeMeta known by its bytes, raw, two empty strings.
        if value[4:5] == b"\x0a" and value[5:6] < b"\x80" and value.endswith(_TAIL):
            at = 6 + value[5]
            table = self._usual.get(value[6:at])
            if table is not None and value[at : at + 1] == b"\x12":
                size, start = varint(value, at + 1, len(value))
                if start + size == len(value) - len(_TAIL):
                    return table, start, start + size
        type_meta, api_version, kind, start, stop = _opened(value)
        table = self._read.kind(api_version, kind)
        if table is None:
            raise _no_table(api_version, kind)
        if len(type_meta) < 128 and len(self._usual) < KINDS_MAX:
            self._usual[type_meta] = table
        return table, start, stop

    def protobuf_of(self, value: bytes, unknown: UnknownFields | None = None) -> bytes:
        """The protobuf of an object given as JSON, as an API server stores it: `k8s\\0`, envelope.

        O(len(value) * nesting of embedded JSON). Raises Unreadable.
        """
        writing = Writing()
        try:
            check_utf8(value)
            members = members_of(value)
            kind, api_version = (
                msgspec.json.decode(members.get(name, b'""'), type=str)
                for name in ("kind", "apiVersion")
            )
            table = self._write.kind(api_version, kind)
            if table is None:
                raise _no_table(api_version, kind)
            raw = message(table, members, writing, 0)
        except UnicodeDecodeError as error:
            raise Unreadable(f"JSON: not UTF-8 at byte {error.start}") from error
        except RecursionError as error:
            raise Unreadable("JSON: nested too deeply") from error
        except msgspec.MsgspecError as error:
            raise Unreadable(str(error)) from error
        if unknown is not None:
            unknown.count += writing.unknown
        type_meta = sized(b"\x0a", utf8(api_version)) + sized(b"\x12", utf8(kind))
        return MAGIC + sized(b"\x0a", type_meta) + sized(b"\x12", raw) + _TAIL


@cache
def transcoder() -> Transcoder:
    """The one of this package's table."""
    return Transcoder(schema())


def json_of(value: bytes, unknown: UnknownFields | None = None) -> bytes:
    """`Transcoder.json_of` by this package's table."""
    return transcoder().json_of(value, unknown)


def protobuf_of(value: bytes, unknown: UnknownFields | None = None) -> bytes:
    """`Transcoder.protobuf_of` by this package's table."""
    return transcoder().protobuf_of(value, unknown)


def _opened(value: bytes) -> tuple[bytes, str, str, int, int]:
    """typeMeta of an envelope, its apiVersion and kind, where the object begins and ends."""
    if not value.startswith(MAGIC):
        raise Unreadable("not Kubernetes protobuf")
    envelope = entries(value, len(MAGIC), len(value))
    for number, what in ((3, "contentEncoding"), (4, "contentType")):
        entry = only(envelope, number, what)
        if entry is not None and entry[4] != entry[5]:
            raise Unreadable(f"protobuf: {what} is set")
    type_meta, raw = only(envelope, 1, "typeMeta"), only(envelope, 2, "raw")
    if type_meta is None or raw is None:
        raise Unreadable(f"protobuf: {'raw' if type_meta else 'typeMeta'} is missing")
    start, stop = type_meta[4:]
    meta = entries(value, start, stop)
    api_version, kind = _named(value, meta, 1), _named(value, meta, 2)
    return value[start:stop], api_version, kind, raw[4], raw[5]


def _named(value: bytes, meta: list[Entry], number: int) -> str:
    entry = only(meta, number, "a name in typeMeta")
    try:
        return value[entry[4] : entry[5]].decode() if entry else ""
    except UnicodeDecodeError as error:
        raise Unreadable("protobuf: typeMeta is not UTF-8") from error


def _no_table(api_version: str, kind: str) -> Unreadable:
    return Unreadable(f"no table for kind {kind[:100]!r} of {api_version[:100]!r}")
