"""The last state of a deleted object, as an API server shows it: at the revision of its deletion.

A watch says of an object that is gone what it was, with the resourceVersion of the event. Only that
number changes; who resumes there sees neither the deletion again nor anything from before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from btreecache.codec.base import Shared
from btreecache.codec.kubernetes import NOT_READ
from btreecache.codec.kubernetes_json import JsonReader
from btreecache.codec.kubernetes_protobuf import MAGIC, ProtobufReader
from btreecache.element import Edit, Element, splice


def with_revision(element: Element, revision: int) -> Element:
    """The element with another `mod_revision`, in its served bytes too if a codec wrote it there.

    Where the source's bytes can be restored they are decoded anew, so that `source_value()` still
    gives them. Where a transform dropped some, the number is replaced in what is left; the digest
    stays that of the element as it was stored. An element served raw or not readable keeps its
    value. O(len(value)); any thread.
    """
    value, undo, digest = element.value, element.undo, element.source_digest
    # Only a decoded element has fields: every object has a metadata.name.
    if element.problem is None and (undo or (digest and element.fields)):
        source = value if digest else element.source_value()
        try:
            value, undo = splice(source, _edits(source, revision))
        except NOT_READ:
            # A transform made something else of the object: there is no number to replace.
            pass
        else:
            undo = b"" if digest else undo
    return Element(
        element.key, value, revision, element.create_revision, element.version,
        element.labels, element.fields, undo, digest, element.problem,
    )  # fmt: skip


def _edits(value: bytes, revision: int) -> Sequence[Edit]:
    """What writes the revision into an object that the Kubernetes codec has read before."""
    if value.startswith(MAGIC):
        return ProtobufReader((), Shared()).read(value, revision)[0]
    return JsonReader((), Shared()).read(value, revision).edits
