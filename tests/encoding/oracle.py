"""What lists and frames must be, from decoded objects: no code of btreecache.encoding is used.

JSON: the standard library's encoder over whole documents. Protobuf: the protobuf runtime over
descriptors that are made here. Objects are dicts with kind and apiVersion first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Object = dict[str, Any]

TEXT, NUMBER, BYTES, MESSAGE = 9, 3, 12, 11

#: Message: number, name, type, repeated; the type of a message is its name.
MESSAGES: dict[str, list[tuple[int, str, int | str, bool]]] = {
    "TypeMeta": [(1, "apiVersion", TEXT, False), (2, "kind", TEXT, False)],
    "Unknown": [
        (1, "typeMeta", "TypeMeta", False), (2, "raw", BYTES, False),
        (3, "contentEncoding", TEXT, False), (4, "contentType", TEXT, False),
    ],
    "ListMeta": [
        (1, "selfLink", TEXT, False), (2, "resourceVersion", TEXT, False),
        (3, "continue", TEXT, False), (4, "remainingItemCount", NUMBER, False),
    ],
    "List": [(1, "metadata", "ListMeta", False), (2, "items", BYTES, True)],
    "RawExtension": [(1, "raw", BYTES, False)],
    "WatchEvent": [(1, "type", TEXT, False), (2, "object", "RawExtension", False)],
    "Object": [(1, "metadata", BYTES, False)],
}  # fmt: skip


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="o", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            one = message.field.add(name=field, number=number, label=3 if repeated else 1)
            one.type = kind if isinstance(kind, int) else MESSAGE  # type: ignore[assignment]
            if isinstance(kind, str):
                one.type_name = f".o.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"o.{name}"))
        for name in MESSAGES
    }


CLASSES = _classes()


def json_text(document: Any) -> bytes:
    """Compact, with what Go escapes in strings."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def json_list(kind: str, api_version: str, meta: Object, objects: Sequence[Object]) -> bytes:
    """A list of a built-in type."""
    bare = [
        {name: value for name, value in one.items() if name not in ("kind", "apiVersion")}
        for one in objects
    ]
    whole = {"kind": kind, "apiVersion": api_version, "metadata": meta, "items": bare}
    return json_text(whole) + b"\n"


def unstructured_list(
    kind: str, api_version: str, meta: Object, objects: Sequence[Object]
) -> bytes:
    """A list of a custom resource: names sorted, `continue` always there, items as they are."""
    whole = {
        "kind": kind, "apiVersion": api_version, "items": [*objects],
        "metadata": dict(sorted(({"continue": ""} | meta).items())),
    }  # fmt: skip
    return json_text(dict(sorted(whole.items()))) + b"\n"


def envelope(kind: str, api_version: str, message: bytes) -> bytes:
    unknown = CLASSES["Unknown"](raw=message, contentEncoding="", contentType="")
    unknown.typeMeta.SetInParent()
    if api_version:
        unknown.typeMeta.apiVersion = api_version
    if kind:
        unknown.typeMeta.kind = kind
    return b"k8s\0" + bytes(unknown.SerializeToString())


def raw_of(value: bytes) -> bytes:
    """The message in an envelope."""
    assert value.startswith(b"k8s\0")
    return bytes(CLASSES["Unknown"].FromString(value[4:]).raw)


def metadata_of(value: bytes) -> bytes:
    """ObjectMeta of an object in its envelope."""
    return bytes(CLASSES["Object"].FromString(raw_of(value)).metadata)


def protobuf_list(kind: str, api_version: str, meta: Object, messages: Sequence[bytes]) -> bytes:
    """A list of messages."""
    listed = CLASSES["List"](items=messages)
    listed.metadata.selfLink = ""
    listed.metadata.resourceVersion = meta.get("resourceVersion", "")
    setattr(listed.metadata, "continue", meta.get("continue", ""))
    if "remainingItemCount" in meta:
        listed.metadata.remainingItemCount = meta["remainingItemCount"]
    return envelope(kind, api_version, listed.SerializeToString())


def json_frame(event_type: str, document: Object) -> bytes:
    return json_text({"type": event_type, "object": document}) + b"\n"


def protobuf_frame(event_type: str, value: bytes) -> bytes:
    event = CLASSES["WatchEvent"](type=event_type)
    event.object.raw = value
    data = bytes(event.SerializeToString())
    return len(data).to_bytes(4, "big") + data


def partial(document: Object, version: str = "v1") -> Object:
    """An object as PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": document["metadata"],
    }
