"""Objects, lists, watch frames and Status objects as the bytes that go out. Pure.

Objects are served as they are stored, with their resourceVersion written in: nothing is decoded.
What is stored in another form than JSON, or as another kind or version than was asked for, would
have to be converted; it is refused by name instead (NotAcceptable), never passed off as what it is
not.

Lists are laid out as the server behind a type does it: built-in types as their structs (kind,
apiVersion, metadata, items; the items without kind and apiVersion), custom resources with all names
sorted and their items whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.element import Element
from btreecache.errors import quoted, status
from btreecache.plan import PageMeta
from btreecache.resources import Resource
from btreecache.server.refusals import NotAcceptable, UnknownPath
from btreecache.watch_stream import WatchEvent

#: Bytes that go out together: less would cost a write per object, more would hold others up.
CHUNK_BYTES = 64 << 10

#: Objects that an error names.
NAMED_MAX = 10

#: On the bookmark after the initial events of a watch (KEP-3157).
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}

#: What Go's JSON encoder escapes in strings, and leaves nowhere else.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028",
            "\u2029": "\\u2029"}  # fmt: skip
_ESCAPED = str.maketrans(_ESCAPES)


def json_bytes(document: Mapping[str, object], indent: int | None = None) -> bytes:
    """A document as Go encodes it, members in their order. Lone surrogates become "?"."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(document, ensure_ascii=False, separators=separators, indent=indent)
    return text.translate(_ESCAPED).encode(errors="replace")


def status_of(error: BaseException) -> dict[str, object]:
    """The Status object of an error, as `errors.status`."""
    answer = status(error)
    if isinstance(error, UnknownPath):
        code = answer.pop("code")
        answer |= {"details": {}, "code": code}
    return answer


class _TypeMeta(msgspec.Struct, rename="camel", gc=False):
    api_version: str = ""
    kind: str = ""


_type_meta = msgspec.json.Decoder(_TypeMeta).decode


@dataclass(frozen=True, slots=True)
class Form:
    """How the objects of one resource are written in one version of the API.

    typed   built-in types, whose lists hold items without kind and apiVersion
    """

    resource: Resource
    version: str
    typed: bool

    @property
    def api_version(self) -> str:
        return self.resource.group_version(self.version)

    @property
    def _type_texts(self) -> tuple[bytes, bytes]:
        """What the bytes of an object begin with: as an API server writes the structs of built-in
        types, and as everybody does who sorts names. Both have the same length."""
        kind, version = self.resource.kind.encode(), self.api_version.encode()
        return (
            b'{"kind":"%b","apiVersion":"%b",' % (kind, version),
            b'{"apiVersion":"%b","kind":"%b",' % (version, kind),
        )

    def object(self, element: Element) -> bytes:
        """The answer to a GET. Raises NotAcceptable."""
        self._cuts([element])
        return element.value + b"\n"

    def page(self, elements: Sequence[Element], meta: PageMeta) -> Iterator[bytes]:
        """The answer to a LIST in pieces of about CHUNK_BYTES: constant memory beside the page.

        Raises NotAcceptable here, before the first piece.
        """
        return _joined(elements, self._cuts(elements), *self._around(meta))

    def _around(self, meta: PageMeta) -> tuple[bytes, bytes]:
        """What comes before the items and after them."""
        kind, members = self.resource.list_kind, meta.members()
        if self.typed:
            before = {"kind": kind, "apiVersion": self.api_version, "metadata": members}
            return json_bytes(before)[:-1] + b',"items":[', b"]}\n"
        # As apimachinery's UnstructuredList: `continue` is set even where it is empty.
        members = dict(sorted(({"continue": ""} | members).items()))
        head = json_bytes({"apiVersion": self.api_version})[:-1] + b',"items":['
        tail = json_bytes({"kind": kind, "metadata": members})[1:]
        return head, b"]," + tail + b"\n"

    def _cuts(self, elements: Sequence[Element]) -> list[int]:
        """For each element how many bytes of kind and apiVersion it begins with that an item of a
        list doesn't have. Raises NotAcceptable, naming those that can't be served so."""
        texts = self._type_texts
        cut = len(texts[0]) if self.typed else 0
        cuts, refused = [], []
        for element in elements:
            if element.value.startswith(texts):
                cuts.append(cut)
            else:
                cuts.append(0)
                problem = self._problem(element.value)
                if problem:
                    refused.append((element.key, problem))
        if refused:
            raise self._refusal(refused)
        return cuts

    def _problem(self, value: bytes) -> str:
        """Why a value can't be served in this form; "" if it can."""
        if value.startswith(MAGIC):
            return "stored as protobuf, and this server writes JSON only"
        try:
            stored = _type_meta(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return "stored as something that is no JSON object"
        if (stored.kind, stored.api_version) == (self.resource.kind, self.api_version):
            return ""
        return (
            f"stored as {quoted(stored.kind)} of {quoted(stored.api_version)}, and this server"
            f" doesn't convert it to {self.resource.kind} of {self.api_version}"
        )

    def _refusal(self, refused: Sequence[tuple[bytes, str]]) -> NotAcceptable:
        resource = self.resource
        dotted = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        said = [
            f"{dotted} at key {quoted(key.decode(errors='surrogateescape'))}: {problem}"
            for key, problem in refused[:NAMED_MAX]
        ]
        if len(refused) > NAMED_MAX:
            said.append(f"and {len(refused) - NAMED_MAX} more")
        return NotAcceptable("; ".join(said))

    def frame(self, event: WatchEvent) -> bytes:
        """One line of a watch. Raises NotAcceptable for an object that can't be served."""
        if event.error is not None:
            return error_frame(event.error)
        if event.element is None:
            metadata: dict[str, object] = {"resourceVersion": str(event.revision)}
            if event.ends_initial_events:
                metadata["annotations"] = INITIAL_EVENTS_END
            shown = {"kind": self.resource.kind, "apiVersion": self.api_version}
            body = json_bytes(shown | {"metadata": metadata})
        else:
            self._cuts([event.element])
            body = event.element.value
            # In valid JSON these stand between tokens only: strings have them escaped.
            if b"\n" in body or b"\r" in body:
                body = body.translate(None, b"\r\n")
        return b'{"type":"%b","object":%b}\n' % (event.type.encode(), body)


def error_frame(error: BaseException) -> bytes:
    """The last line of a watch that failed."""
    return json_bytes({"type": "ERROR", "object": status_of(error)}) + b"\n"


def _joined(
    elements: Sequence[Element], cuts: Sequence[int], head: bytes, tail: bytes
) -> Iterator[bytes]:
    chunk = bytearray(head)
    for index, (element, cut) in enumerate(zip(elements, cuts, strict=True)):
        if index:
            chunk += b","
        if cut:
            chunk += b"{"
            chunk += memoryview(element.value)[cut:]
        else:
            chunk += element.value
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk) + tail
