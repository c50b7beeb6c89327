"""PartialObjectMetadata: of each object only its metadata, cut out of the stored bytes.

Metadata is the same in every version of an API and for every kind, custom ones too. So this form
serves objects whatever version they are stored in, and where it has to convert, it converts
metadata alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.codec.kubernetes_protobuf import MAGIC, locate
from btreecache.element import Element
from btreecache.encoding import envelope
from btreecache.encoding.form import Form, TypeMeta
from btreecache.encoding.media import MetaVersion
from btreecache.encoding.values import Values
from btreecache.errors import quoted
from btreecache.resources import Resource

KIND = "PartialObjectMetadata"


class _Object(TypeMeta, rename="camel", gc=False, kw_only=True):
    metadata: msgspec.Raw


_object = msgspec.json.Decoder(_Object).decode


def _text_head(version: str) -> bytes:
    return b'{"kind":"%b","apiVersion":"meta.k8s.io/%b","metadata":' % (
        KIND.encode(), version.encode(),
    )  # fmt: skip


#: What the codec knows; later versions of the name differ in nothing else.
_V1_TEXT, _V1_PROTOBUF = _text_head("v1"), envelope.head("meta.k8s.io/v1", KIND)


class MetadataForm(Form):
    """A Form whose objects are PartialObjectMetadata of `meta.k8s.io`."""

    __slots__ = ("_text_head",)

    def __init__(self, resource: Resource, version: MetaVersion, values: Values) -> None:
        super().__init__(resource, version, True, values)
        self.kind, self.list_kind = KIND, f"{KIND}List"
        self.api_version = f"meta.k8s.io/{version}"
        self.begins = ()
        self.protobuf_head = envelope.head(self.api_version, KIND)
        self._text_head = _text_head(version)

    @property
    def cut(self) -> int:
        return 0

    def text(self, element: Element) -> bytes:
        """The object's metadata as an object of its own. Raises NotAcceptable."""
        return b"%b%b}" % (self._text_head, self._in_json(element))

    def item(self, element: Element) -> bytes:
        """The same: items of these lists have kind and apiVersion (upstream)."""
        return self.text(element)

    def protobuf(self, element: Element) -> bytes:
        """The same in protobuf, in its envelope. Raises NotAcceptable."""
        return envelope.enclosed(self.protobuf_head, self._message(element))

    def entry(self, element: Element) -> bytes:
        return envelope.second(self._message(element))

    def entry_length(self, element: Element) -> int:
        return len(self.entry(element))

    def json_length(self, elements: Sequence[Element]) -> tuple[int | None, int]:
        """Not known ahead."""
        return None, 0

    read = staticmethod(_object)

    def judge(self, kind: str, api_version: str) -> str:
        group = api_version.rpartition("/")[0]
        if (kind, group) == (self.resource.kind, self.resource.group):
            return ""
        return f"stored as {quoted(kind)} of {quoted(api_version)}, which is another kind"

    def _in_json(self, element: Element) -> bytes:
        """The JSON text of an element's metadata."""
        self.check([element])
        value = element.value
        if not value.startswith(MAGIC):
            found = bytes(_object(value).metadata)
            if not found.startswith(b"{"):
                raise self.refusal([(element.key, "its metadata is no JSON object")])
            return found
        try:
            text = self.values.made("metadata", element, lambda: self._converted(value))
        except Unreadable as error:
            raise self.refusal([(element.key, f"stored as protobuf: {error}")]) from error
        return text[len(_V1_TEXT) : -1]

    def _converted(self, value: bytes) -> bytes:
        """The metadata of an object in protobuf as an object in JSON. Raises Unreadable."""
        place = locate(value).enclosing[-1]
        message = envelope.first(value[place[4] : place[5]])
        text = self.values.codec.json_of(envelope.enclosed(_V1_PROTOBUF, message))
        assert text.startswith(_V1_TEXT)
        return text

    def _message(self, element: Element) -> bytes:
        """The message PartialObjectMetadata: its only field is metadata."""
        value = element.value
        try:
            if value.startswith(MAGIC):
                self.check([element])
                place = locate(value).enclosing[-1]
                return envelope.first(value[place[4] : place[5]])
            text = b"%b%b}" % (_V1_TEXT, self._in_json(element))
            made = self.values.made(
                "metadata", element, lambda: self.values.codec.protobuf_of(text)
            )
            return envelope.raw_of(made)
        except Unreadable as error:
            raise self.refusal([(element.key, str(error))]) from error
