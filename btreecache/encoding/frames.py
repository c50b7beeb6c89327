"""Watch frames: one event as the bytes that go out, in JSON and in Protobuf.

JSON: a line, `{"type":..,"object":..}`. Protobuf: four bytes of length, big-endian, then the
message WatchEvent (1: type, 2: RawExtension, whose field 1 is the object in its envelope); the
frame itself has no envelope, which is how client-go reads it (its raw serializer).

A frame is a join of bytes that are there: the object as it is stored, or converted once
(values.py). So frames are not kept, however many watchers get the same one.
"""

from __future__ import annotations

from btreecache.codec.base import Unreadable
from btreecache.encoding import envelope
from btreecache.encoding.form import Form
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.media import Format
from btreecache.encoding.refusals import NotAcceptable
from btreecache.encoding.values import Codec
from btreecache.errors import status
from btreecache.watch_stream import WatchEvent

#: On the bookmark after the initial events of a watch (KEP-3157).
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


def frame(form: Form, event: WatchEvent, form_of: Format = "json") -> bytes:
    """One event of a watch. O(its bytes). Raises NotAcceptable for an object that can't be served.

    `form_of`: "json" or "protobuf".
    """
    if event.error is not None:
        return error_frame(event.error, form_of, form.values.codec)
    if event.element is None:
        text = bookmark_text(form, event)
        if form_of == "json":
            return json_frame(event.type, text)
        return protobuf_frame(event.type, _converted(text, form.values.codec))
    if form_of == "json":
        return json_frame(event.type, form.text(event.element))
    return protobuf_frame(event.type, form.protobuf(event.element))


def bookmark_text(form: Form, event: WatchEvent) -> bytes:
    """The object of a bookmark as JSON: nothing but how far the watch has come."""
    metadata: dict[str, object] = {"resourceVersion": str(event.revision)}
    if event.ends_initial_events:
        metadata["annotations"] = INITIAL_EVENTS_END
    return json_bytes({"kind": form.kind, "apiVersion": form.api_version, "metadata": metadata})


def json_frame(event_type: str, text: bytes) -> bytes:
    """A frame around an object's JSON text."""
    # In valid JSON these stand between tokens only: strings have them escaped.
    if b"\n" in text or b"\r" in text:
        text = text.translate(None, b"\r\n")
    return b'{"type":"%b","object":%b}\n' % (event_type.encode(), text)


def protobuf_frame(event_type: str, value: bytes) -> bytes:
    """A frame around an object in its envelope."""
    message = envelope.first(event_type.encode()) + envelope.second(envelope.first(value))
    return len(message).to_bytes(4, "big") + message


def error_frame(error: BaseException, form_of: Format, codec: Codec) -> bytes:
    """The last frame of a watch that failed."""
    text = json_bytes(status(error))
    if form_of == "protobuf":
        return protobuf_frame("ERROR", _converted(text, codec))
    return json_frame("ERROR", text)


def _converted(text: bytes, codec: Codec) -> bytes:
    """A bookmark or a Status in protobuf. Raises NotAcceptable if the codec has no such kind."""
    try:
        return codec.protobuf_of(text)
    except Unreadable as error:
        raise NotAcceptable(f"no protobuf of this: {error}") from error
