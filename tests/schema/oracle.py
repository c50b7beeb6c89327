"""The oracle of the transcoder: the protobuf runtime, with descriptors made from the table.

It shares the table of facts with btreecache, which `check` and `golden` prove, and no code with the
transcoder: messages are the runtime's, their JSON is put together here by Go's rules as a document
and written by the stdlib. `RandomObjects` fills messages as Go's writer would have: what is no
pointer is always there, and nothing is there that Go can't tell from nothing.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from btreecache.codec.schema import Field, Message, Schema

F = FieldDescriptorProto
SCALARS = {"string": F.TYPE_STRING, "bool": F.TYPE_BOOL, "int32": F.TYPE_INT32,
           "int64": F.TYPE_INT64, "double": F.TYPE_DOUBLE, "bytes": F.TYPE_BYTES}  # fmt: skip

#: The messages behind the words of the table: name, number, type of each field.
SPECIAL: dict[str, list[tuple[str, int, str]]] = {
    "Time": [("seconds", 1, "int64"), ("nanos", 2, "int32")],
    "MicroTime": [("seconds", 1, "int64"), ("nanos", 2, "int32")],
    "Duration": [("duration", 1, "int64")],
    "Quantity": [("string", 1, "string")],
    "IntOrString": [("type", 1, "int64"), ("intVal", 2, "int32"), ("strVal", 3, "string")],
    "RawExtension": [("raw", 1, "bytes")],
    "FieldsV1": [("raw", 1, "bytes")],
    "JSON": [("raw", 1, "bytes")],
    "Strings": [("items", 1, "[]string")],
}

#: Doubles and what Go writes for them.
DOUBLES = {0.0: "0", 1.0: "1", -1.5: "-1.5", 100000.0: "100000", 1e20: "100000000000000000000",
           1e21: "1e+21", 1e-6: "0.000001", 1.5e-7: "1.5e-7", 2.5e-10: "2.5e-10",
           -3e300: "-3e+300", 0.1: "0.1"}  # fmt: skip

#: Durations and what Go prints.
DURATIONS = {0: "0s", 1: "1ns", 1_500: "1.5µs", 2_000_000: "2ms", 1_000_000_000: "1s",
             90_000_000_000: "1m30s", 3_600_000_000_000: "1h0m0s", -1_500_000_000: "-1.5s",
             3_661_000_000_001: "1h1m1.000000001s", 60_000_000_000: "1m0s"}  # fmt: skip

TEXTS = ["", "a", "shop", "x" * 130, 'quote " and \\ and /', "tab\tline\nreturn\rbell\x07\b\f\x7f",
         "<a href='x'>&</a>", "l\u00edne\u2028 sep\u2029",
         "\u65e5\u672c\u8a9e \U0001f600", "\ufffd", "k8s.io/name"]  # fmt: skip

EMBEDDED = [{}, {"f:metadata": {"f:labels": {".": {}, "f:a<b": {}}}}, [1, 2.5, None, True, "é\n"],
            "text", 0, {"a": {"b": "x & y"}}]  # fmt: skip

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def identifier(full_name: str) -> str:
    """A name that a protobuf message may have."""
    return "M_" + "".join(one if one.isalnum() else "_" for one in full_name)


class Oracle:
    """Messages of the protobuf runtime for a schema."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.facts: dict[str, Message] = {name: schema.message(name) for name in schema.names()}
        file = FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto2")
        for word, fields in SPECIAL.items():
            message = file.message_type.add(name=word)
            for name, number, kind in fields:
                repeated = kind.startswith("[]")
                message.field.add(
                    name=name, number=number, type=SCALARS[kind.removeprefix("[]")],
                    label=F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL,
                )  # fmt: skip
        for full_name, facts in self.facts.items():
            self._add(file.message_type.add(name=identifier(full_name)), facts)
        self._pool = DescriptorPool()
        self._pool.Add(file)

    def _add(self, message: DescriptorProto, facts: Message) -> None:
        for fact in facts.fields:
            field = message.field.add(name=f"f{fact.number}", number=fact.number)
            field.label = F.LABEL_REPEATED if fact.shape in ("[]", "{}") else F.LABEL_OPTIONAL
            if fact.shape == "{}":
                entry = message.nested_type.add(name=f"F{fact.number}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
                value = entry.field.add(name="value", number=2, label=F.LABEL_OPTIONAL)
                self._type(value, fact.type)
                field.type = F.TYPE_MESSAGE
                field.type_name = f".oracle.{message.name}.{entry.name}"
            else:
                self._type(field, fact.type)

    @staticmethod
    def _type(field: FieldDescriptorProto, kind: str) -> None:
        if kind in SCALARS:
            field.type = SCALARS[kind]
        else:
            field.type = F.TYPE_MESSAGE
            field.type_name = f".oracle.{kind if kind in SPECIAL else identifier(kind)}"

    def new(self, name: str) -> Any:
        """An empty message: a full name of the table, or a word."""
        descriptor = self._pool.FindMessageTypeByName(
            f"oracle.{name if name in SPECIAL else identifier(name)}"
        )
        return GetMessageClass(descriptor)()

    def document(self, full_name: str, message: Any) -> Any:
        """The JSON document of a message, by Go's rules. Doubles are `Spelled`."""
        facts = self.facts[full_name]
        if facts.is_union:
            return self._union(facts, message)
        found: dict[str, Any] = {}
        for fact in facts.fields:
            value = getattr(message, f"f{fact.number}")
            is_there = fact.shape != "" and (
                len(value) > 0
                if fact.shape in ("[]", "{}")
                else message.HasField(f"f{fact.number}")
            )
            if fact.inline:
                if fact.shape == "" or is_there:
                    found |= self.document(fact.type, value)
                continue
            if fact.shape == "[]":
                shown: Any = [self._value(fact.type, item) for item in value] or None
            elif fact.shape == "{}":
                shown = {name: self._value(fact.type, value[name]) for name in _sorted(value)}
                shown = shown or None
            elif fact.shape == "*":
                shown = self._value(fact.type, value) if is_there else None
                if is_there:
                    found[fact.name] = shown
                    continue
            else:
                shown = self._value(fact.type, value)
                if fact.type == "bytes" and not message.HasField(f"f{fact.number}"):
                    shown = None
            if self._is_omitted(fact, shown):
                continue
            found[fact.name] = shown
        return found

    def _is_omitted(self, fact: Field, shown: Any) -> bool:
        if fact.shape:
            return fact.omit_empty and shown is None
        if fact.omit_zero:
            return shown is None
        plain = fact.type in SCALARS or fact.type == "Strings"
        return fact.omit_empty and plain and (not shown or shown == Spelled("0"))

    def _union(self, facts: Message, message: Any) -> Any:
        shown: Any = None
        for fact in facts.fields:
            value = getattr(message, f"f{fact.number}")
            if fact.type == "bool":
                shown = value
            elif fact.shape == "*" and message.HasField(f"f{fact.number}"):
                shown = self.document(fact.type, value)
            elif fact.shape == "[]" and len(value):
                shown = [self._value(fact.type, item) for item in value]
        return shown

    def _value(self, kind: str, value: Any) -> Any:
        if kind in ("string", "bool", "int32", "int64"):
            return value
        if kind == "double":
            return Spelled(DOUBLES[value])
        if kind == "bytes":
            return base64.b64encode(value).decode()
        if kind in ("Time", "MicroTime"):
            if not value.ByteSize():
                return None
            then = EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
            text = f"{then.year:04d}" + then.strftime("-%m-%dT%H:%M:%S")
            return text + (f".{then.microsecond:06d}Z" if kind == "MicroTime" else "Z")
        if kind == "Duration":
            return DURATIONS[value.duration]
        if kind == "Quantity":
            return value.string
        if kind == "IntOrString":
            return value.strVal if value.type else value.intVal
        if kind == "Strings":
            return list(value.items) or None
        if kind in SPECIAL:
            return json.loads(value.raw) if value.raw else None
        return self.document(kind, value)


def _sorted(names: Any) -> list[str]:
    return sorted(names, key=lambda name: name.encode())


class Spelled(str):
    """A number as it is to be written."""


_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028",
                          "\u2029": "\\u2029"})  # fmt: skip


def text_of(document: Any) -> bytes:
    """A document as Go's encoder writes it."""
    numbers: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Spelled):
            numbers.append(str(value))
            return f"\x00{len(numbers) - 1}\x00"
        if isinstance(value, dict):
            return {name: marked(item) for name, item in value.items()}
        return [marked(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(marked(document), ensure_ascii=False, separators=(",", ":"))
    for index, number in enumerate(numbers):
        text = text.replace(f'"\\u0000{index}\\u0000"', number)
    return text.translate(_ESCAPES).encode()


def sized(tag: int, body: bytes) -> bytes:
    """A field of bytes with a tag of one byte."""
    size, length = len(body), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([tag]) + bytes(length) + bytes([size]) + body


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """An object as it is stored: `k8s\\0` and runtime.Unknown."""
    type_meta = sized(0x0A, api_version.encode()) + sized(0x12, kind.encode())
    return b"k8s\0" + sized(0x0A, type_meta) + sized(0x12, raw) + b"\x1a\0\x22\0"


def raw_of(value: bytes) -> bytes:
    """What is in an envelope that a server wrote."""
    size, shift = 0, 0
    at = 6 + value[5] + 1
    while value[at] > 127:
        size |= (value[at] & 127) << shift
        at, shift = at + 1, shift + 7
    size |= value[at] << shift
    return value[at + 1 : at + 1 + size]


class RandomObjects:
    """Messages with random content, the same for the same generator."""

    def __init__(self, oracle: Oracle, rng: Random) -> None:
        self._oracle, self._rng = oracle, rng

    def fill(self, full_name: str, message: Any, depth: int = 0) -> None:
        """Set fields at random; the deeper, the fewer."""
        facts = self._oracle.facts[full_name]
        if facts.is_union:
            self._fill_union(facts, message, depth)
            return
        rng = self._rng
        chance = (0.7, 0.6, 0.45, 0.3, 0.2)[depth] if depth < 5 else 0.06
        for fact in facts.fields:
            name = f"f{fact.number}"
            value = getattr(message, name)
            if fact.retired and fact.shape == "":
                if rng.random() < chance:
                    setattr(message, name, True if fact.type == "bool" else "set")
            elif fact.shape == "[]" and rng.random() < chance:
                for _ in range(rng.randint(1, 3 if depth < 3 else 1)):
                    if fact.type in SCALARS:
                        value.append(self._scalar(fact.type))
                    else:
                        self._fill(fact.type, value.add(), depth + 1)
            elif fact.shape == "{}" and rng.random() < chance:
                for _ in range(rng.randint(1, 3)):
                    key = rng.choice(TEXTS) + str(rng.randint(0, 3))
                    if fact.type in SCALARS:
                        value[key] = self._scalar(fact.type)
                    else:
                        self._fill(fact.type, value[key], depth + 1)
            elif fact.shape == "*" and rng.random() < chance:
                self._set(fact, message, value, depth)
            elif fact.shape == "":
                # Slices, of bytes or of strings, may not be there.
                if fact.type in ("bytes", "Strings") and rng.random() > chance:
                    continue
                self._set(fact, message, value, depth)

    def _set(self, fact: Field, message: Any, value: Any, depth: int) -> None:
        if fact.type not in SCALARS:
            value.SetInParent()
            self._fill(fact.type, value, depth + 1)
            if fact.shape == "*" and not value.ByteSize() and fact.type.endswith("Time"):
                # A pointer to no time is null in JSON, as no pointer is.
                value.seconds, value.nanos = 1, 0
        elif fact.type == "bytes":
            setattr(message, f"f{fact.number}", self._rng.randbytes(self._rng.randint(1, 9)))
        else:
            setattr(message, f"f{fact.number}", self._scalar(fact.type))

    def _fill_union(self, facts: Message, message: Any, depth: int) -> None:
        choice = self._rng.choice([fact for fact in facts.fields if depth < 6 or fact.shape != "*"])
        for fact in facts.fields:
            if fact.type == "bool":
                message.f1 = choice.type != "bool" or self._rng.random() < 0.5
        value = getattr(message, f"f{choice.number}")
        if choice.shape == "[]":
            if choice.type == "string":
                value.append(self._scalar("string"))
            else:
                self._fill(choice.type, value.add(), depth + 1)
        elif choice.shape == "*":
            value.SetInParent()
            self._fill(choice.type, value, depth + 1)

    def _scalar(self, kind: str) -> Any:
        rng = self._rng
        if kind == "string":
            return rng.choice(TEXTS)
        if kind == "bool":
            return rng.random() < 0.5
        if kind == "double":
            return rng.choice(list(DOUBLES))
        if kind == "bytes":
            return rng.randbytes(rng.randint(0, 40))
        top = 31 if kind == "int32" else 63
        return rng.choice([0, 1, -1, 127, 128, 300, 2**top - 1, -(2**top), rng.randint(0, 99999)])

    def _fill(self, kind: str, value: Any, depth: int) -> None:
        rng = self._rng
        if kind in ("Time", "MicroTime"):
            if rng.random() < 0.8:
                value.seconds = rng.choice([0, -1, 1_700_000_000, rng.randint(-(10**9), 10**10)])
                value.nanos = rng.randint(0, 999_999) * 1000 if kind == "MicroTime" else 0
        elif kind == "Duration":
            value.duration = rng.choice(list(DURATIONS))
        elif kind == "Quantity":
            value.string = rng.choice(["0", "100m", "1Gi", "2500", "1e3"])
        elif kind == "IntOrString":
            value.type = rng.randint(0, 1)
            value.intVal = 0 if value.type else self._scalar("int32")
            value.strVal = rng.choice(TEXTS) if value.type else ""
        elif kind == "Strings":
            value.items.extend(rng.choice(TEXTS) for _ in range(rng.randint(1, 3)))
        elif kind in SPECIAL:
            value.raw = text_of(rng.choice(EMBEDDED))
        else:
            self.fill(kind, value, depth)
