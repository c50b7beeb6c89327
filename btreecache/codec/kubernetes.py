"""The Kubernetes codec: objects as an API server answers with them, whatever form etcd holds.

What it reads is metadata and the declared fields, never the whole object: a read of the cache
serves bytes. Of what it can't read it says so (`Element.problem`): such an element keeps the
source's bytes, has no labels and no fields, and costs the others nothing. Encrypted values are
among these; only an API server with the key can read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from btreecache.codec import kubernetes_json, kubernetes_protobuf
from btreecache.codec.base import DeclaredField, Path, Shared, Unreadable
from btreecache.codec.kubernetes_json import JsonReader
from btreecache.codec.kubernetes_protobuf import MAGIC, ProtobufReader
from btreecache.element import Edit, Element, splice

#: Of what is made of a value. To be raised with every change of that, however small: archives hold
#: elements that were made, beside the version that has made them.
VERSION = 1

#: The self-described tag of CBOR, which newer servers can store.
CBOR = b"\xd9\xd9\xf7"

#: Value of an API server that encrypts at rest: `k8s:enc:`, provider, version, key name.
ENCRYPTED = b"k8s:enc:"

#: Longest `problem` kept; what a parser says may quote the value.
PROBLEM_CHARS_MAX = 200

#: What the readers raise for a value that they can't read. Nesting deeper than Python's C stack
#: allows (about a thousand levels) is a RecursionError.
NOT_READ = (Unreadable, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Transform = Callable[[Element], Element]


class _Field(NamedTuple):
    name: str
    paths: tuple[Path, ...]
    default: str = ""


#: What every object can be selected by, in front of the declared fields.
ALWAYS: tuple[DeclaredField, ...] = (
    _Field("metadata.name", (("metadata", "name"),)),
    _Field("metadata.namespace", (("metadata", "namespace"),)),
)


class Kubernetes:
    """Decodes objects stored as JSON or as protobuf, told apart by their first bytes.

    `fields`: what selectors and indexes will ask for beside metadata.name and metadata.namespace,
    which always come first. From protobuf only fields of codec/numbers.py can be read. Raises
    ValueError for fields that contradict each other. Any thread may decode.
    """

    name = "kubernetes"

    def __init__(self, fields: Sequence[DeclaredField] = ()) -> None:
        always = {field.name for field in ALWAYS}
        declared = [*ALWAYS, *(field for field in fields if field.name not in always)]
        self.fields = tuple(field.name for field in declared)
        if len(set(self.fields)) < len(self.fields):
            raise ValueError("a field is declared twice")
        shared = Shared()
        paths = list(dict.fromkeys(path for field in declared for path in field.paths))
        self._json = JsonReader(paths, shared)
        self._protobuf = ProtobufReader(paths, shared)
        self._choices = [
            (tuple(paths.index(path) for path in field.paths), field.default) for field in declared
        ]
        #: Whether the paths' values are the fields' as they are.
        self._is_plain = self._choices == [((index,), "") for index in range(len(paths))]
        self.recipe = b""
        if type(self) is Kubernetes:  # Another class may decode in another way.
            made_of = [(field.name, field.paths, field.default) for field in declared]
            self.recipe = blake2b(repr((VERSION, made_of)).encode(), digest_size=16).digest()

    def decode(self, element: Element) -> Element:
        """The element as an API server answers with it. O(value), never raises for it."""
        value, revision = element.value, element.mod_revision
        try:
            if value.startswith(MAGIC):
                edits, labels, fields = self._protobuf.read(value, revision)
            else:
                check_form(value)
                edits, labels, fields = self._json.read(value, revision)
        except NOT_READ as error:
            return Element(
                element.key, value, revision, element.create_revision, element.version,
                problem=problem_of(error),
            )  # fmt: skip
        if not self._is_plain:
            fields = self._choose(fields)
        served, undo = splice(value, edits)
        return Element(
            element.key, served, revision, element.create_revision, element.version,
            labels, fields, undo,
        )  # fmt: skip

    def _choose(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """Of each field's paths the first value that is not empty, else its default."""
        chosen = []
        for places, default in self._choices:
            for place in places:
                if values[place]:
                    chosen.append(values[place])
                    break
            else:
                chosen.append(default)
        return tuple(chosen)


def check_form(value: bytes) -> None:
    """Raises Unreadable for what is neither JSON nor protobuf on the face of it."""
    if not value:
        raise Unreadable("the value is empty")
    if value.startswith(ENCRYPTED):
        provider = value[len(ENCRYPTED) :][:40].split(b":")[0].decode("ascii", "replace")
        raise Unreadable(f"encrypted at rest ({provider})")
    if value.startswith(CBOR):
        raise Unreadable("stored as CBOR, which can't be read here")


def problem_of(error: Exception) -> str:
    """What is wrong with a value, in one short line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    text = " ".join(str(error).split())
    return text[:PROBLEM_CHARS_MAX] or type(error).__name__


def strip_managed_fields(element: Element) -> Element:
    """A transform: the decoded element without metadata.managedFields, a fifth of most objects.

    Nothing else changes. The dropped bytes are gone: kept, even compressed, they would cost most of
    what this saves. The element keeps the digest of the source's value, 32 bytes, which is all that
    a check asks for; `source_value()` raises from then on. An element without managedFields, or one
    that could not be read, is returned as it is. O(len(value)).
    """
    if element.problem is not None:
        return element
    value = element.value
    edits: list[Edit]
    try:
        if value.startswith(MAGIC):
            edits = kubernetes_protobuf.managed_fields_edits(value)
        else:
            edits = kubernetes_json.managed_fields_edit(value)
    except NOT_READ:
        # Not a Kubernetes object, though no codec said so (the raw one reads nothing).
        return element
    return element.altered(splice(value, edits)[0]) if edits else element
