"""Form: how the objects of one resource are written in one version of the API.

What is stored in the form that is asked for goes out as it is stored, with its resourceVersion
written in: nothing is decoded. What is stored in the other form is converted (values.py). What is
stored as another kind or version than was asked for would have to be converted between versions; it
is refused by name (NotAcceptable), never passed off as what it is not.

Lists are laid out as the server behind a type does it: built-in types as their structs (kind,
apiVersion, metadata, items; the items without kind and apiVersion), custom resources with all names
sorted and their items whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Final

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.codec.json_text import SPACE
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.element import Element
from btreecache.encoding import envelope
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.refusals import NotAcceptable
from btreecache.encoding.values import Values
from btreecache.errors import quoted
from btreecache.plan import PageMeta
from btreecache.resources import Resource

#: Objects that an error names.
NAMED_MAX: Final = 10


class TypeMeta(msgspec.Struct, rename="camel", gc=False):
    """What an object in JSON says that it is."""

    api_version: str = ""
    kind: str = ""


_type_meta = msgspec.json.Decoder(TypeMeta).decode

#: What the readers of JSON raise for a text that isn't such an object.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
NO_OBJECT = "stored as something that is no JSON object"


class Form:
    """Immutable; any thread.

    version             of the API that was asked
    kind, api_version   what the objects are; list_kind: their lists
    typed               lists as structs are written, with items without kind and apiVersion
    begins              what the JSON of an object as stored begins with if it can be served as it
                        is, both of the same length
    """

    #: What has to be there of an object in JSON. Raises NOT_JSON.
    read: Callable[[bytes], TypeMeta] = staticmethod(_type_meta)

    __slots__ = (
        "api_version", "begins", "kind", "list_kind", "protobuf_head", "resource", "typed",
        "values", "version",
    )  # fmt: skip

    def __init__(self, resource: Resource, version: str, typed: bool, values: Values) -> None:
        self.resource, self.typed, self.values = resource, typed, values
        self.version = version
        self.kind, self.list_kind = resource.kind, resource.list_kind
        self.api_version = resource.group_version(version)
        kind, version_text = self.kind.encode(), self.api_version.encode()
        # As an API server writes the structs of built-in types, and as whoever sorts names.
        self.begins: tuple[bytes, ...] = (
            b'{"kind":"%b","apiVersion":"%b",' % (kind, version_text),
            b'{"apiVersion":"%b","kind":"%b",' % (version_text, kind),
        )
        self.protobuf_head = envelope.head(self.api_version, self.kind)

    @property
    def cut(self) -> int:
        """Bytes of what `begins` that an item of a list doesn't have."""
        return len(self.begins[0]) if self.typed else 0

    # One object.

    def text(self, element: Element) -> bytes:
        """The object as JSON, without a line end. Raises NotAcceptable."""
        value = element.value
        if value.startswith(self.begins):
            return value
        if not value.startswith(self.protobuf_head):
            self.check([element])
            if not value.startswith(MAGIC):
                return value
        try:
            return self.values.json(element)
        except Unreadable as error:
            raise self.refusal([(element.key, f"stored as protobuf: {error}")]) from error

    def protobuf(self, element: Element) -> bytes:
        """The object as protobuf, in its envelope. Raises NotAcceptable."""
        value, head = element.value, self.protobuf_head
        if envelope.is_plain(value, head):
            return value
        self.check([element])
        try:
            if value.startswith(MAGIC):
                envelope.raw_of(value)
                return value
            return self.values.protobuf(element)
        except Unreadable as error:
            form = "protobuf" if value.startswith(MAGIC) else "JSON"
            raise self.refusal([(element.key, f"stored as {form}: {error}")]) from error

    # An object as an item of a list.

    def item(self, element: Element) -> bytes:
        """As JSON. Raises NotAcceptable."""
        text = self.text(element)
        if self.typed and text.startswith(self.begins):
            return b"{" + text[self.cut :]
        return text.strip(SPACE)

    def entry(self, element: Element) -> bytes:
        """As protobuf: tag, length, message. Raises NotAcceptable."""
        value, head = element.value, self.protobuf_head
        if envelope.is_plain(value, head):
            return value[len(head) : -len(envelope.TAIL)]
        value = self.protobuf(element)
        try:
            return envelope.entry_of(value, head)
        except Unreadable as error:
            raise self.refusal([(element.key, f"stored as protobuf: {error}")]) from error

    def entry_length(self, element: Element) -> int:
        """The bytes of `entry`; of an object as upstream stores it without a copy. Raises
        NotAcceptable."""
        return envelope.entry_length(element.value, self.protobuf_head) or len(self.entry(element))

    def entries_length(self, elements: Sequence[Element]) -> tuple[bool, int]:
        """Whether all can be cut out of what is stored, and the bytes of their entries. Raises
        NotAcceptable."""
        head = self.protobuf_head
        if all(envelope.is_plain(one.value, head) for one in elements):
            around = len(head) + len(envelope.TAIL)
            return True, sum([len(one.value) for one in elements]) - around * len(elements)
        return False, sum(map(self.entry_length, elements))

    # What is around the items of a list.

    def list_metadata(self, meta: PageMeta) -> dict[str, object]:
        """The metadata of a list. As apimachinery's UnstructuredList, those of custom resources
        have their names sorted, and `continue` even where it is empty."""
        members = meta.members()
        return members if self.typed else dict(sorted(({"continue": ""} | members).items()))

    def around(self, meta: PageMeta) -> tuple[bytes, bytes]:
        """What comes before the items in JSON, and after them."""
        kind, members = self.list_kind, self.list_metadata(meta)
        if self.typed:
            before = {"kind": kind, "apiVersion": self.api_version, "metadata": members}
            return json_bytes(before)[:-1] + b',"items":[', b"]}\n"
        head = json_bytes({"apiVersion": self.api_version})[:-1] + b',"items":['
        tail = json_bytes({"kind": kind, "metadata": members})[1:]
        return head, b"]," + tail + b"\n"

    # What can be served.

    def check(self, elements: Iterable[Element]) -> None:
        """Raises NotAcceptable, naming those that are no objects of this kind and version."""
        refused = [
            (element.key, problem)
            for element in elements
            if not element.value.startswith(self.begins) and (problem := self.problem(element))
        ]
        if refused:
            raise self.refusal(refused)

    def json_length(self, elements: Sequence[Element]) -> tuple[int | None, int]:
        """The bytes of their items in JSON with the commas between, None where some are stored as
        protobuf; and the average of an object if all can be served as they are stored, else 0.

        O(elements), a tenth of a microsecond each. Raises NotAcceptable like `check`.
        """
        begins = self.begins
        values = [one.value for one in elements]
        total = sum(map(len, values)) + max(0, len(values) - 1)
        plain = sum(map(bytes.startswith, values, repeat(begins)))
        if self.typed:
            total -= plain * (self.cut - 1)
        if plain == len(values):
            return total, total // len(values) + 1 if values else 0
        whole = [one for one in elements if not one.value.startswith(begins)]
        self.check(whole)
        for one in whole:
            if one.value.startswith(MAGIC):
                return None, 0
            total -= len(one.value) - len(one.value.strip(SPACE))
        return total, 0

    def problem(self, element: Element) -> str:
        """Why an element is no object of this kind and version; "" if it is one."""
        value = element.value
        if value.startswith(self.protobuf_head):
            return ""
        try:
            if value.startswith(MAGIC):
                api_version, kind = envelope.type_of(value)
            else:
                stored = self.read(value)
                api_version, kind = stored.api_version, stored.kind
        except Unreadable as error:
            return f"stored as protobuf that can't be read: {error}"
        except NOT_JSON:
            return NO_OBJECT
        return self.judge(kind, api_version)

    def judge(self, kind: str, api_version: str) -> str:
        """Why an object of that kind and version isn't one of ours; "" if it is."""
        if (kind, api_version) == (self.kind, self.api_version):
            return ""
        return (
            f"stored as {quoted(kind)} of {quoted(api_version)}, and this server"
            f" doesn't convert it to {self.kind} of {self.api_version}"
        )

    def refusal(self, refused: Sequence[tuple[bytes, str]]) -> NotAcceptable:
        dotted = self.resource.dotted
        said = [
            f"{dotted} at key {quoted(key.decode(errors='surrogateescape'))}: {problem}"
            for key, problem in refused[:NAMED_MAX]
        ]
        if len(refused) > NAMED_MAX:
            said.append(f"and {len(refused) - NAMED_MAX} more")
        return NotAcceptable("; ".join(said))
