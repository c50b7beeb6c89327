"""Templates of Kubernetes objects as an API server stores them.

Built-in types are protobuf in an envelope, everything else is JSON. A body is compiled once and
then a write splices a few fields into ready bytes. Of protobuf the pieces are ready bytes, marks,
and messages that hold marks and whose lengths depend on them: only these are put together again.
Encoded as upstream's generated code does it: fields by number, empty ones too if they are no
pointers, maps by key.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias

from etcdsim.api_types import MESSAGES, WORDS, Field

MAGIC = b"k8s\0"

_VARINT, _BYTES = 0, 2

#: A field to be filled in, as `objects` writes them down.
_MARK = re.compile(r"[$@#](\w+)[$@#]")


class _Mark(NamedTuple):
    """Where a field goes, and as what: a type of the table."""

    name: bytes
    type: str


class _Nested(NamedTuple):
    """A message or text that holds marks; what it holds follows its tag and length."""

    tag: bytes
    pieces: tuple[_Piece, ...]


_Piece: TypeAlias = "bytes | _Mark | _Nested"


class Template(Protocol):
    """An object with marks in it. Immutable."""

    def fill(self, fields: dict[bytes, bytes]) -> Template:
        """The object with these marks filled in, others left."""

    def __mod__(self, fields: dict[bytes, bytes]) -> bytes:
        """The object as it is stored, with the marks that are left filled in."""


class Json:
    """A template in JSON: its text, for bytes' own `%`; later marks are doubled percent signs."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def fill(self, fields: dict[bytes, bytes]) -> Json:
        return Json(self._text % fields)

    def __mod__(self, fields: dict[bytes, bytes]) -> bytes:
        return self._text % fields


class Protobuf:
    """A template in protobuf."""

    def __init__(self, pieces: tuple[_Piece, ...]) -> None:
        self._pieces = pieces

    def fill(self, fields: dict[bytes, bytes]) -> Protobuf:
        return Protobuf(_filled(self._pieces, fields))

    def __mod__(self, fields: dict[bytes, bytes]) -> bytes:
        return _value(self._pieces, fields)


def compile_stored(body: dict[str, Any]) -> Protobuf:
    """The template of an object of a built-in type, written down as `objects` says."""
    meta = _sized(b"\x0a", body["apiVersion"].encode()) + _sized(b"\x12", body["kind"].encode())
    raw = tuple(_message(body, body["kind"]))
    # runtime.Unknown: type, object, and an empty encoding and content type.
    ends = MAGIC + _sized(b"\x0a", meta), b"\x1a\x00\x22\x00"
    return Protobuf(_filled((ends[0], _Nested(b"\x12", raw), ends[1]), {}))


def _value(pieces: tuple[_Piece, ...], fields: dict[bytes, bytes]) -> bytes:
    """The bytes of pieces whose marks are all in `fields`. The inner loop of every write."""
    parts = []
    for piece in pieces:
        if type(piece) is bytes:
            parts.append(piece)
        elif type(piece) is _Nested:
            parts.append(_sized(piece.tag, _value(piece.pieces, fields)))
        elif type(piece) is _Mark:
            parts.append(_scalar(piece.type, fields[piece.name]))
    return b"".join(parts)


def _filled(pieces: tuple[_Piece, ...], fields: dict[bytes, bytes]) -> tuple[_Piece, ...]:
    """The pieces with these fields filled in, neighbouring bytes as one."""
    found: list[_Piece] = []
    ready: list[bytes] = []
    for piece in pieces:
        new = piece
        if type(piece) is _Nested:
            inner = _filled(piece.pieces, fields)
            new = _Nested(piece.tag, inner)
            if all(type(one) is bytes for one in inner):
                new = _sized(piece.tag, _value(inner, {}))
        elif type(piece) is _Mark and piece.name in fields:
            new = _scalar(piece.type, fields[piece.name])
        if type(new) is bytes:
            ready.append(new)
            continue
        if ready:
            found.append(b"".join(ready))
            ready = []
        found.append(new)
    return (*found, b"".join(ready)) if ready else tuple(found)


def _message(body: dict[str, Any], name: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    for field in MESSAGES[name]:
        value: Any = body if field.name == "-" else body.get(field.name)
        if value is None and field.shape:
            continue
        match field.shape:
            case "{}":
                tag, of_value = _tag(field.number, _BYTES), field._replace(number=2)
                for key in sorted(value):
                    entry = [_sized(b"\x0a", key.encode()), *_one(value[key], of_value)]
                    pieces.append(_Nested(tag, tuple(entry)))
            case "*":
                for one in value:
                    pieces += _one(one, field)
            case _:
                pieces += _one(value, field)
    return pieces


def _one(value: Any, field: Field) -> list[_Piece]:
    """One value of a field, with its tag."""
    kind, text = field.type, value if isinstance(value, str) else ""
    if kind in ("bool", "int"):
        found = _MARK.fullmatch(text)
        mark = _Mark(found[1].encode(), kind) if found else _varint(int(value or 0))
        return [_tag(field.number, _VARINT), mark]
    tag = _tag(field.number, _BYTES)
    if kind not in WORDS:
        return [_Nested(tag, tuple(_message(value or {}, kind)))]
    if kind == "Quantity":
        return [_Nested(tag, (_Nested(b"\x0a", _text(text, "string")),))]
    if kind == "IntOrString":
        return [_sized(tag, b"\x08\x00\x10" + _varint(value) + b"\x1a\x00")]
    return [_Nested(tag, _text(text, kind))]


def _text(text: str, kind: str) -> tuple[_Piece, ...]:
    """A text in pieces: what stands between its marks, and the marks."""
    pieces: list[_Piece] = []
    at = 0
    for found in _MARK.finditer(text):
        pieces += [text[at : found.start()].encode(), _Mark(found[1].encode(), kind)]
        at = found.end()
    return (*pieces, _scalar(kind, text[at:].encode()))


def _scalar(kind: str, text: bytes) -> bytes:
    """A value as it stands behind its tag, without a length: lengths are _Nested's."""
    if kind in ("string", "bytes"):
        return text
    if kind == "bool":
        return b"\1" if text == b"true" else b"\0"
    if kind == "int":
        return _varint(int(text))
    return _time(text) if text else b""


@lru_cache(maxsize=64)
def _time(text: bytes) -> bytes:
    """metav1.Time and MicroTime: seconds, and nanoseconds (which Time writes as 0)."""
    whole, _, part = text.decode().rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    nanos = int(part.ljust(9, "0")) if part else 0
    return b"\x08" + _varint(seconds) + b"\x10" + _varint(nanos)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    parts = bytearray()
    number &= 0xFFFF_FFFF_FFFF_FFFF
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
