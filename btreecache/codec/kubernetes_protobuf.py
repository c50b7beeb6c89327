"""Kubernetes objects stored as protobuf: read their metadata, write the resourceVersion in.

The value is `k8s\\0` and a runtime.Unknown: typeMeta (1: apiVersion 1, kind 2), raw (2),
contentEncoding (3), contentType (4). raw is the object, its field 1 ObjectMeta. Upstream always
writes ObjectMeta's resourceVersion (6), empty in etcd; the number is put there, and the lengths
around it follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from btreecache.codec.base import Path, Shared, Unreadable
from btreecache.codec.numbers import META, NUMBERS, OBJECT_META
from btreecache.codec.wire import BYTES, VARINT, Entry, encoded, entries, only, resized, varint
from btreecache.element import Edit

MAGIC = b"k8s\0"

#: Kinds whose declared fields are remembered as numbers; a hostile source may name any number.
KINDS_MAX = 1_000

_NAME, _NAMESPACE, _VERSION, _LABELS = (
    META["name"], META["namespace"], META["resourceVersion"], META["labels"],
)  # fmt: skip

#: A path in one kind: the numbers of its steps, and what its value is.
Numbers = tuple[tuple[int, ...], type]


class Place(NamedTuple):
    """An object in its envelope: what encloses ObjectMeta, and the entries of each level."""

    type_meta: bytes
    enclosing: list[Entry]
    members: list[Entry]
    metadata: list[Entry]


def locate(value: bytes) -> Place:
    """The object and its ObjectMeta. O(their fields). Raises Unreadable."""
    envelope = entries(value, len(MAGIC), len(value))
    type_meta, raw = only(envelope, 1, "typeMeta"), only(envelope, 2, "raw")
    encoding = only(envelope, 3, "contentEncoding")
    if encoding is not None and encoding[4] != encoding[5]:
        raise Unreadable("protobuf: the object is encoded once more (contentEncoding)")
    if type_meta is None:
        raise Unreadable("kind is missing")
    if raw is None:
        raise Unreadable("protobuf: there is no object")
    members = entries(value, raw[4], raw[5])
    metadata = only(members, OBJECT_META, "metadata")
    if metadata is None:
        raise Unreadable("metadata is missing")
    return Place(
        value[type_meta[4] : type_meta[5]],
        [raw, metadata],
        members,
        entries(value, metadata[4], metadata[5]),
    )


def kind_of(type_meta: bytes) -> tuple[str, str]:
    """Group and kind of a typeMeta. Raises Unreadable or UnicodeDecodeError."""
    found = entries(type_meta, 0, len(type_meta))
    texts = []
    for number, what in ((1, "apiVersion"), (2, "kind")):
        entry = only(found, number, what)
        if entry is None or entry[4] == entry[5]:
            raise Unreadable(f"{what} is missing")
        texts.append(type_meta[entry[4] : entry[5]].decode())
    return texts[0].rpartition("/")[0], texts[1]


def _text(data: bytes, entry: Entry) -> str:
    number, wire, _, _, start, stop = entry
    if wire != BYTES:
        raise Unreadable(f"protobuf: field {number} is no text")
    return data[start:stop].decode()


def _label(data: bytes, entry: Entry) -> tuple[str, str]:
    """One entry of a map: key 1, value 2, either may be left out and is empty then."""
    _, wire, _, _, start, stop = entry
    if wire != BYTES:
        raise Unreadable("protobuf: labels are no map")
    pair = ["", ""]
    for part in entries(data, start, stop):
        if part[0] in (1, 2):
            pair[part[0] - 1] = _text(data, part)
    return pair[0], pair[1]


def _scalar(data: bytes, entry: Entry, kind: type) -> str:
    """A field's value as selectors compare it."""
    if kind is str:
        return _text(data, entry)
    number, wire, _, _, start, stop = entry
    if wire != VARINT:
        raise Unreadable(f"protobuf: field {number} is no number")
    value, _ = varint(data, start, stop)
    if kind is bool:
        return "true" if value else "false"
    # int32 in the API: negative numbers are written with their sign extended to 64 bits.
    value &= 0xFFFF_FFFF
    return str(value - (1 << 32) if value >> 31 else value)


class ProtobufReader:
    """Reads objects stored as protobuf. One for each list of paths; any thread."""

    def __init__(self, paths: Sequence[Path], shared: Shared) -> None:
        self._wanted = tuple(paths)
        self._empty = [""] * len(paths)
        self._shared = shared
        self._known: dict[bytes, list[Numbers]] = {}

    def read(
        self, value: bytes, mod_revision: int
    ) -> tuple[list[Edit], tuple[str, ...], tuple[str, ...]]:
        """Edits that write `mod_revision` in, labels, values. O(fields of the levels looked at).

        Raises Unreadable or UnicodeDecodeError.
        """
        place = locate(value)
        paths = self._known.get(place.type_meta)
        if paths is None:
            paths = self._paths(place.type_meta)
        labels: dict[str, str] = {}
        version: Entry | None = None
        behind = place.enclosing[-1][5]
        for entry in reversed(place.metadata):
            field = entry[0]
            if field == _LABELS:
                name, text = _label(value, entry)
                labels.setdefault(name, text)
            elif field == _VERSION:
                if version is not None or entry[1] != BYTES:
                    raise Unreadable("protobuf: resourceVersion is there twice, or no text")
                version = entry
            elif field > _VERSION:
                behind = entry[2]
        number = b"%d" % mod_revision
        sized = encoded(len(number)) + number
        if version is not None:
            edit: Edit = version[3], version[5], sized
        else:
            edit = behind, behind, encoded(_VERSION << 3 | BYTES) + sized
        return (
            resized(place.enclosing, [edit]),
            self._shared.labels(labels),
            self._values(value, place, paths),
        )

    def _values(self, value: bytes, place: Place, paths: list[Numbers]) -> tuple[str, ...]:
        found = self._empty.copy()
        # spec and status are taken apart once, however many paths lead into them.
        below = {OBJECT_META: place.metadata}
        for index, (numbers, kind) in enumerate(paths):
            level, steps = place.members, numbers
            if len(numbers) > 1:
                first, steps = numbers[0], numbers[1:]
                if first not in below:
                    below[first] = _into(value, level, first)
                level = below[first]
            text = _follow(value, level, steps, kind)
            if text:
                is_name = numbers == (OBJECT_META, _NAME)
                found[index] = text if is_name else self._shared.one(text)
        return tuple(found)

    def _paths(self, type_meta: bytes) -> list[Numbers]:
        group, kind = kind_of(type_meta)
        known = NUMBERS.get((group, kind), {})
        paths: list[Numbers] = []
        for path in self._wanted:
            if len(path) == 2 and path[0] == "metadata" and path[1] in META:
                paths.append(((OBJECT_META, META[str(path[1])]), str))
            elif path in known:
                paths.append(known[path])
            else:
                name = ".".join(map(str, path))
                raise Unreadable(f"field {name} can't be read from protobuf of kind {kind}")
        if len(self._known) >= KINDS_MAX:
            self._known.clear()
        self._known[type_meta] = paths
        return paths


def _into(data: bytes, level: list[Entry], step: int) -> list[Entry]:
    """The entries of a submessage, none if it isn't there; of a list's first if step is negative.

    Raises Unreadable for two of what is no list: a decoder would merge them.
    """
    number = abs(step)
    found = [entry for entry in level if entry[0] == number]
    if not found:
        return []
    if len(found) > 1 and step > 0:
        raise Unreadable(f"protobuf: message {number} is there twice")
    _, wire, _, _, start, stop = found[0]
    if wire != BYTES:
        raise Unreadable(f"protobuf: field {number} is no message")
    return entries(data, start, stop)


def _follow(data: bytes, level: list[Entry], steps: tuple[int, ...], kind: type) -> str:
    """The value at the end of a path; empty if it ends before. The last of several counts."""
    for step in steps[:-1]:
        level = _into(data, level, step)
    for entry in reversed(level):
        if entry[0] == steps[-1]:
            return _scalar(data, entry, kind)
    return ""


def managed_fields_edits(value: bytes) -> list[Edit]:
    """The edits that take managedFields out of an object; none if it has none."""
    place = locate(value)
    number = META["managedFields"]
    cuts: list[Edit] = [
        (tag, stop, b"") for field, _, tag, _, _, stop in place.metadata if field == number
    ]
    return resized(place.enclosing, cuts) if cuts else []
