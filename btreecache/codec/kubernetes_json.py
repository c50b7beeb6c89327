"""Kubernetes objects stored as JSON: read their metadata, write the resourceVersion in.

An API server keeps no resourceVersion in etcd and writes it on reading. Where it stands depends on
who encoded the object: types with a struct behind them (built-in ones, CustomResourceDefinitions)
write `kind` before `apiVersion` and metadata's members in the order of the struct; custom resources
have all names sorted. The resourceVersion goes where that server would have put it, so that the
bytes served are those of its answer, without anything else being encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from btreecache.codec.base import Path, Shared, Unreadable
from btreecache.codec.json_text import SPACE, Members, Span, check_utf8, members_of, spans
from btreecache.element import Edit

VERSION = "resourceVersion"

#: Members of ObjectMeta that its struct has before resourceVersion.
BEFORE_VERSION = frozenset(("name", "generateName", "namespace", "selfLink", "uid"))

_text_of = msgspec.json.Decoder(str).decode
_text_or_null = msgspec.json.Decoder(str | None).decode
_labels_of = msgspec.json.Decoder(dict[str, str] | None).decode

#: What a field's value may be. Numbers with a fraction have no form that a selector could name.
Scalar = str | bool | int | None


class Read(NamedTuple):
    """What was read: edits that make the value to be served, labels, values of the paths."""

    edits: list[Edit]
    labels: tuple[str, ...]
    fields: tuple[str, ...]


class _Pick(NamedTuple):
    """One path below a root: attributes and indexes that lead to its end, where its value goes."""

    place: int
    steps: tuple[str | int, ...]
    is_shared: bool


class _Root(NamedTuple):
    """A member of the object, or of its metadata, with the declared fields in it."""

    in_metadata: bool
    name: str
    decode: Callable[[msgspec.Raw], Any]
    picks: tuple[_Pick, ...]


Tree = dict[str | int, "Tree | int"]


def _grow(paths: Sequence[Path]) -> Tree:
    """All paths as one tree; its leaves are places in `paths`."""
    top: Tree = {}
    for place, path in enumerate(paths):
        if not path:
            raise ValueError("a field has an empty path")
        at = top
        for step in path[:-1]:
            below = at.setdefault(step, {})
            if isinstance(below, int):
                raise ValueError(f"path {path}: it leads through another field")
            at = below
        if path[-1] in at:
            raise ValueError(f"path {path}: another path leads through it")
        at[path[-1]] = place
    return top


def _typed(tree: Tree | int) -> Any:
    """A type that decodes just what the tree names; all else is skipped."""
    if isinstance(tree, int):
        return Scalar
    if any(isinstance(step, int) for step in tree):
        if len(tree) > 1:
            raise ValueError("paths may lead to one index of an array only")
        return list[_typed(*tree.values())] | None  # type: ignore[misc]
    names = {f"m{index}": str(name) for index, name in enumerate(tree)}
    members = [(member, _typed(tree[name]), None) for member, name in names.items()]
    return msgspec.defstruct("Below", members, rename=names, gc=False) | None


def _picks(
    tree: Tree | int, paths: Sequence[Path], steps: tuple[str | int, ...] = ()
) -> list[_Pick]:
    if isinstance(tree, int):
        # A name is as good as unique: to share it would fill the table for nothing.
        return [_Pick(tree, steps, paths[tree] != ("metadata", "name"))]
    found = []
    for index, (name, below) in enumerate(tree.items()):
        step = name if isinstance(name, int) else f"m{index}"
        found += _picks(below, paths, (*steps, step))
    return found


def scalar_text(value: Any) -> str:
    """A field's value as selectors compare it: Go's text of a bool or an integer; null is empty."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class JsonReader:
    """Reads objects stored as JSON. One for each list of paths; any thread."""

    def __init__(self, paths: Sequence[Path], shared: Shared) -> None:
        self._shared = shared
        self._empty = [""] * len(paths)
        self._roots: list[_Root] = []
        for name, below in _grow(paths).items():
            if name != "metadata":
                self._add(False, name, below, paths)
            elif isinstance(below, int):
                raise ValueError("metadata is no field")
            else:
                for inner, deeper in below.items():
                    self._add(True, inner, deeper, paths)

    def _add(
        self, in_metadata: bool, name: str | int, tree: Tree | int, paths: Sequence[Path]
    ) -> None:
        if isinstance(name, int):
            raise ValueError("an object has no index")
        decode = msgspec.json.Decoder(_typed(tree)).decode
        self._roots.append(_Root(in_metadata, name, decode, tuple(_picks(tree, paths))))

    def read(self, value: bytes, mod_revision: int) -> Read:
        """Labels, values of the paths, and the edits that write `mod_revision` in. O(len(value)).

        Raises Unreadable, msgspec.MsgspecError, UnicodeDecodeError or RecursionError.
        """
        place = locate(value)
        labels = place.metadata.get("labels")
        edits = [_version_edit(place, b'"%d"' % mod_revision)]
        # What is served is the object alone: lists and watches put separators of their own.
        if place.start:
            edits.insert(0, (0, place.start, b""))
        if place.stop < len(value):
            edits.append((place.stop, len(value), b""))
        flat = self._shared.labels(_labels_of(labels) or {}) if labels is not None else ()
        return Read(edits, flat, self._fields(place.top, place.metadata))

    def _fields(self, top: Members, metadata: Members) -> tuple[str, ...]:
        found = self._empty.copy()
        for in_metadata, name, decode, picks in self._roots:
            raw = (metadata if in_metadata else top).get(name)
            if raw is None:
                continue
            decoded = decode(raw)
            for place, steps, is_shared in picks:
                value = decoded
                for step in steps:
                    if value is None:
                        break
                    if isinstance(step, str):
                        value = getattr(value, step)
                    else:
                        value = value[step] if step < len(value) else None
                text = scalar_text(value)
                found[place] = self._shared.one(text) if is_shared else text
        return tuple(found)


class Place(NamedTuple):
    """An object in its text: where it begins and ends, its members, and metadata's with spans."""

    start: int
    stop: int
    top: Members
    metadata: Members
    metadata_start: int
    spans: list[Span]


def locate(value: bytes) -> Place:
    """The object and its metadata, positions proved. Raises as `JsonReader.read` does."""
    check_utf8(value)
    top = members_of(value)
    for name in ("apiVersion", "kind"):
        raw = top.get(name)
        if raw is None or not _text_of(raw):
            raise Unreadable(f"{name} is missing")
    raw = top.get("metadata")
    if raw is None:
        raise Unreadable("metadata is missing")
    # Valid JSON whose value is an object: but for white space it begins with its brace.
    start = 0 if value[0] == 0x7B else value.index(b"{")
    stop = len(value) if value[-1] == 0x7D else len(value.rstrip(SPACE))
    metadata = members_of(raw)
    _, begin, end = spans(value, top, start, stop)[_index(top, "metadata")]
    return Place(start, stop, top, metadata, begin, spans(value, metadata, begin, end))


def _index(members: Members, name: str) -> int:
    """The place of a member among the others."""
    for index, other in enumerate(members):
        if other == name:
            return index
    raise KeyError(name)


def _version_edit(place: Place, number: bytes) -> Edit:
    """Replace the resourceVersion, or put it where the API server has it."""
    metadata, found = place.metadata, place.spans
    old = metadata.get(VERSION)
    if old is not None:
        _text_or_null(old)
        _, begin, end = found[_index(metadata, VERSION)]
        return begin, end, number
    if not found:
        at = place.metadata_start + 1
        return at, at, b'"resourceVersion":' + number
    index = 0
    if _is_sorted(place.top):
        index = next((at for at, name in enumerate(metadata) if name > VERSION), len(found))
    else:
        for after, name in enumerate(metadata, 1):
            if name in BEFORE_VERSION:
                index = after
    if index == len(found):
        at = found[-1][2]
        return at, at, b',"resourceVersion":' + number
    at = found[index][0]
    return at, at, b'"resourceVersion":' + number + b","


def _is_sorted(top: Members) -> bool:
    """Whether names are sorted, as those of custom resources are."""
    for name in top:
        if name == "apiVersion":
            return True
        if name == "kind":
            return False
    return False


def managed_fields_edit(value: bytes) -> list[Edit]:
    """The edit that takes managedFields out of an object; none if it has none. O(len(value))."""
    place = locate(value)
    if "managedFields" not in place.metadata:
        return []
    index, found = _index(place.metadata, "managedFields"), place.spans
    name, _, stop = found[index]
    if index + 1 < len(found):
        return [(name, found[index + 1][0], b"")]
    return [(found[index - 1][2] if index else name, stop, b"")]
