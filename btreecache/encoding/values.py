"""Values: the objects of elements in the form that isn't stored, made once an element.

A real cluster keeps built-in types as protobuf, and nearly every client asks for JSON. Converting
an object costs a hundred times what sending it does, so what was made is kept (memo.py), however
many lists and watches the element is in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from btreecache.codec.transcode import json_of, protobuf_of
from btreecache.element import Element
from btreecache.encoding.memo import Memo

#: Budget of what is kept, by default: 40,000 objects of 3 kB with their JSON. Lists larger than it
#: would find nothing of the one before. And of rows of tables, out of date in a second.
BUDGET_BYTES: Final = 256 << 20
FRAMES_BYTES: Final = 4 << 20

Convert = Callable[[bytes], bytes]


class Codec(NamedTuple):
    """Both ways between an object in its protobuf envelope and its JSON text, kind and apiVersion
    first. Both raise Unreadable; any thread may call them."""

    json_of: Convert
    protobuf_of: Convert


#: That of the built-in types.
BUILT_IN: Final = Codec(json_of, protobuf_of)


class Values:
    """Converts with a codec and keeps what was made. Any thread.

    frames   rows of tables, for all who watch the same object
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES, codec: Codec = BUILT_IN) -> None:
        self.codec = codec
        self.memo = Memo(budget_bytes)
        self.frames = Memo(FRAMES_BYTES)

    def json(self, element: Element) -> bytes:
        """The JSON text of an element stored as protobuf. Raises Unreadable."""
        found = self.memo.get("json", element)
        if found is None:
            found = self.codec.json_of(element.value)
            self.memo.put("json", element, found)
        return found

    def protobuf(self, element: Element) -> bytes:
        """The protobuf of an element stored as JSON, in its envelope. Raises Unreadable."""
        return self.made("protobuf", element, lambda: self.codec.protobuf_of(element.value))

    def made(self, what: str, element: Element, make: Callable[[], bytes]) -> bytes:
        """What `make` makes of the element, or made before under the name `what`."""
        found = self.memo.get(what, element)
        if found is None:
            found = make()
            self.memo.put(what, element, found)
        return found
