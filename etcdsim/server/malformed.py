"""Bytes that are no message, as etcd's parser sees them and in its words.

Python's protobuf takes a known field with a wrong wire type for an unknown one and skips it; the
code that gogoproto generates for etcd refuses it. So a server that judged by Python's parser would
do what etcd refuses to do.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from etcdsim.server.empty_ends import read_empty_ends

_VARINT, _BYTES, _END_GROUP = 0, 2, 4  # wire types
_CUT_OFF = "unexpected EOF"
_OVERFLOW = "proto: integer overflow"
_NEGATIVE = "proto: negative length found during unmarshaling"
_ENUM, _BYTES_TYPE, _MESSAGE, _STRING = 14, 12, 11, 9  # of a field's descriptor
_DEPTH_MAX = 100  # as far down as Python's parser goes


class Malformed(Exception):
    """Bytes that etcd doesn't take for a message; the argument is its text."""


def parse(message_class: Any, data: bytes) -> Any:
    """The message, without unknown fields, and with what an empty range end means to etcd. Raises
    Malformed.

    O(bytes). What a usual client sends costs two microseconds beyond parsing: only where something
    unknown, or not written the usual way, is in it are its bytes looked at one by one.
    """
    try:
        message = message_class.FromString(data)
    except DecodeError:
        _check(message_class.DESCRIPTOR, data)
        # What etcd takes and Python doesn't: text that isn't UTF-8, more than 100 levels.
        raise Malformed("proto: cannot parse invalid wire-format data") from None
    message.DiscardUnknownFields()
    if message.ByteSize() != len(data):
        _check(message_class.DESCRIPTOR, data)
        read_empty_ends(message, data)
    return message


def _check(descriptor: Any, data: bytes) -> None:
    """Raises Malformed for the first thing that etcd's parser refuses."""
    if descriptor.full_name.startswith("grpc."):
        return  # the parser of that service is as lenient as Python's
    _check_part(descriptor, data, 0, len(data), 0)


def _check_part(descriptor: Any, data: bytes, at: int, end: int, depth: int) -> None:
    while at < end:
        start = at
        tag, at = varint(data, at, end)
        number, wire_type = (tag >> 3) & 0xFFFFFFFF, tag & 7
        if wire_type == _END_GROUP:
            raise Malformed(f"proto: {descriptor.name}: wiretype end group for non-group")
        if not 0 < number < 1 << 31:
            signed = number - (number >> 31 << 32)
            raise Malformed(f"proto: {descriptor.name}: illegal tag {signed} (wire type {tag})")
        field = descriptor.fields_by_number.get(number)
        if field is None:
            at = skip(data, start, end)
            continue
        if wire_type not in _wire_types(field):
            raise Malformed(f"proto: wrong wireType = {wire_type} for field {_go_name(field.name)}")
        if wire_type == _VARINT:
            _, at = varint(data, at, end)
            continue
        inner, at = _length(data, at, end)
        if at + inner > end:
            raise Malformed(_CUT_OFF)
        if field.type == _MESSAGE and depth < _DEPTH_MAX:
            _check_part(field.message_type, data, at, at + inner, depth + 1)
        elif field.type == _ENUM:
            _check_packed(data, at, at + inner, end)
        at += inner


def _check_packed(data: bytes, at: int, stop: int, end: int) -> None:
    while at < stop:
        _, at = varint(data, at, end)


def _wire_types(field: Any) -> tuple[int, ...]:
    if field.type in (_MESSAGE, _BYTES_TYPE, _STRING):
        return (_BYTES,)
    # A repeated number, of which etcd has enums only, may be packed.
    return (_VARINT, _BYTES) if field.default_value == [] else (_VARINT,)


def _go_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """-> (the number at `at`, where it ends). Raises Malformed."""
    number = 0
    for shift in range(0, 64, 7):
        if at >= end:
            raise Malformed(_CUT_OFF)
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at
    raise Malformed(_OVERFLOW)


def _length(data: bytes, at: int, end: int) -> tuple[int, int]:
    size, at = varint(data, at, end)
    if size >= 1 << 63 or at + size >= 1 << 63:
        raise Malformed(_NEGATIVE)
    return size, at


def skip(data: bytes, at: int, end: int) -> int:
    """Where the field that starts at `at` ends, with the groups in it. Raises Malformed."""
    depth = 0
    while at < end:
        tag, at = varint(data, at, end)
        match tag & 7:
            case 0:
                _, at = varint(data, at, end)
            case 1:
                at += 8
            case 2:
                size, at = _length(data, at, end)
                at += size
            case 3:
                depth += 1
            case 4:
                if not depth:
                    raise Malformed("proto: unexpected end of group")
                depth -= 1
            case 5:
                at += 4
            case other:
                raise Malformed(f"proto: illegal wireType {other}")
        if not depth:
            if at > end:
                raise Malformed(_CUT_OFF)
            return at
    raise Malformed(_CUT_OFF)
