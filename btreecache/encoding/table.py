"""Table: a list, a watch or one object as rows of cells, streamed. Pure.

Clients that only show objects (kubectl get) ask for this form: cells computed by the server, and
beside them of each object its metadata, all of it or nothing. An API server builds the whole table
before the first byte leaves; here a row is made when its turn comes, so the memory is that of one
chunk and one row, however long the list is.

Rows are made from JSON text. Only the members that the cells need are decoded; the metadata goes
out as it stands in the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.element import Element
from btreecache.encoding.body import joined
from btreecache.encoding.columns import Columns, Object, columns_of
from btreecache.encoding.columns.definition import METADATA
from btreecache.encoding.columns.shape import text as text_under
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.media import MetaVersion
from btreecache.errors import BadRequest, quoted
from btreecache.resources import Resource

#: What a row holds of its object beside the cells.
IncludeObject = Literal["None", "Metadata", "Object"]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    """What cells need of an object's metadata. Any value goes; the cells judge it."""

    name: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    labels: Any = None
    annotations: Any = None
    resource_version: Any = None


_metadata = msgspec.json.Decoder(_Metadata).decode


def parse_include_object(text: str) -> IncludeObject:
    """The query parameter includeObject; "" is Metadata. Raises BadRequest."""
    match text:
        case "None" | "Metadata" | "Object":
            return text
        case "":
            return "Metadata"
    raise BadRequest(
        f"Unable to convert to Table as requested: includeObject: Invalid value: {quoted(text)}:"
        " must be 'Metadata', 'Object', 'None', or empty"
    )


def table_chunks(
    resource: Resource,
    elements: Iterable[tuple[Element, bytes]],
    meta: Mapping[str, object],
    *,
    now_s: float,
    include_object: IncludeObject = "Metadata",
    version: MetaVersion = "v1",
    api: str = "",
) -> Iterator[bytes]:
    """A list as a Table, in chunks as body.joined makes them.

    `elements`: in order, each with its value as JSON text; taken one at a time. `meta`: the
    members of the list's metadata (PageMeta.members). `now_s`: what ages are counted to, in seconds
    since 1970. `api`: the version of the resource's group. Memory: one chunk and one row. Raises
    Unreadable, naming the key, at an element whose text is no JSON object: then what was sent
    before is worth nothing.
    """
    writer = _Writer(columns_of(resource, api), include_object, version, now_s)
    return joined(_parts(writer, resource, elements, meta))


def _parts(
    writer: _Writer,
    resource: Resource,
    elements: Iterable[tuple[Element, bytes]],
    meta: Mapping[str, object],
) -> Iterator[bytes]:
    before = writer.head(meta, with_columns=True)
    for element, text in elements:
        try:
            row = writer.row(text)
        except Unreadable as error:
            key = quoted(element.key.decode(errors="surrogateescape"))
            raise Unreadable(f"{resource.plural} at key {key}: {error}") from None
        yield before + row
        before = b","
    # An empty list has not been begun yet.
    yield b"]}\n" if before == b"," else before + b"]}\n"


def table_frame_object(
    resource: Resource,
    text: bytes,
    *,
    now_s: float,
    include_object: IncludeObject = "Metadata",
    version: MetaVersion = "v1",
    is_first: bool = True,
    api: str = "",
) -> bytes:
    """One object as a Table of one row, on one line: the object of a watch frame, bookmarks
    included (ERROR frames hold their Status as ever), and with a newline the answer to a GET.

    Its metadata has the object's resourceVersion. Only the first frame of a watch says what the
    columns are (`is_first`), in later ones columnDefinitions is null. O(len(text)). Raises
    Unreadable if the text is no JSON object.
    """
    writer = _Writer(columns_of(resource, api), include_object, version, now_s)
    row = writer.row(text)
    head = writer.head({"resourceVersion": writer.resource_version}, with_columns=is_first)
    line = b"%b%b]}" % (head, row)
    # In valid JSON these stand between tokens only: strings have them escaped.
    return line.translate(None, b"\r\n") if b"\n" in line or b"\r" in line else line


class _Writer:
    """Writes the rows of one table. `resource_version`: of the row written last."""

    def __init__(
        self, columns: Columns, include: IncludeObject, version: MetaVersion, now_s: float
    ) -> None:
        self._columns, self._include, self._now_s = columns, include, now_s
        self._api_version = f"meta.k8s.io/{version}"
        kind = {"kind": "PartialObjectMetadata", "apiVersion": self._api_version}
        self._partial = json_bytes(kind)[:-1]
        self.resource_version = ""

    def head(self, meta: Mapping[str, object], *, with_columns: bool) -> bytes:
        """What comes before the rows."""
        table = {"kind": "Table", "apiVersion": self._api_version, "metadata": meta}
        columns = [one.members() for one in self._columns.columns] if with_columns else None
        return json_bytes(table | {"columnDefinitions": columns})[:-1] + b',"rows":['

    def row(self, text: bytes) -> bytes:
        """One object as a row. Raises Unreadable."""
        try:
            members = _members(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Unreadable("its value is no JSON object") from None
        one = {name: _decoded(members[name]) for name in self._columns.reads if name in members}
        metadata, shown = _metadata_of(members)
        self.resource_version = text_under(shown, "resourceVersion")
        if METADATA not in self._columns.reads or not isinstance(one.get(METADATA), dict):
            one[METADATA] = shown
        row: dict[str, object] = {"cells": self._columns.cells(one, self._now_s)}
        completed = self._columns.completed
        if completed is not None and (reason := completed(one)):
            row["conditions"] = [_completed(reason)]
        return b'%b,"object":%b}' % (json_bytes(row)[:-1], self._object(text, metadata))

    def _object(self, text: bytes, metadata: bytes | msgspec.Raw) -> bytes:
        """What a row holds of its object."""
        match self._include:
            case "Object":
                return text
            case "None":
                return b"null"
            case "Metadata":
                return b'%b,"metadata":%b}' % (self._partial, metadata)


def _completed(reason: str) -> dict[str, str]:
    """The condition of a row whose object has reached its end."""
    message = f"It will not run any more: {reason}."
    return {"type": "Completed", "status": "True", "reason": reason, "message": message}


def _decoded(text: bytes | msgspec.Raw) -> object:
    """A member's value; None if it can't be read, as if it were absent."""
    try:
        return _value(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        # msgspec refuses a number that is too big for a double, wherever it stands.
        return json.loads(bytes(memoryview(text)))
    except (ValueError, RecursionError):
        return None


def _metadata_of(members: Mapping[str, msgspec.Raw]) -> tuple[bytes | msgspec.Raw, Object]:
    """An object's metadata as it stands in the text, and what cells need of it."""
    text: bytes | msgspec.Raw = members.get(METADATA, b"{}")
    try:
        found = _metadata(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = _decoded(text)
        return (text, value) if isinstance(value, dict) else (b"{}", {})
    return text, {
        "name": found.name,
        "creationTimestamp": found.creation_timestamp,
        "deletionTimestamp": found.deletion_timestamp,
        "labels": found.labels,
        "annotations": found.annotations,
        "resourceVersion": found.resource_version,
    }
