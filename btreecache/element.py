"""Element: one key as it is served, and what it takes to get back what the source holds.

In the raw form the two are the same bytes. A codec (codec/) serves other bytes: it writes the
resourceVersion into an object, as an API server does on reading it. Then `undo` says how to take
that out again, in a few bytes, so that the source's own bytes are never lost to a comparison. A
transform that drops content for good (managedFields, to save memory) would save nothing if the
dropped bytes were kept; it leaves `source_digest` instead, which is enough to compare with.

Elements are immutable and, in the raw form, hold no containers, so they are not tracked by the
garbage collector (`gc=False`): a million of them add nothing to a collection pause. The tuples of
decoded ones hold strings only; the collector lets go of those at its first look.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

#: Bytes that CPython spends on an element beside its key and value: the struct itself, two bytes
#: headers and the three numbers. An estimate for budgets, not an account.
ELEMENT_OVERHEAD_BYTES = sys.getsizeof(b"") * 2 + 32 * 3 + 96

#: And on a decoded one: the headers of its tuples and of `undo`, its name and the short strings
#: that are not shared with others.
DECODED_OVERHEAD_BYTES = sys.getsizeof(()) * 2 + sys.getsizeof(b"") + 80


class Element(msgspec.Struct, frozen=True, gc=False):
    """A key-value pair with the revisions that etcd keeps with it (etcd `mvccpb.KeyValue`).

    `value`: the bytes as served. `mod_revision`: the revision of its last put. `create_revision`:
    of the put that created it. `version`: puts since it was created, from 1; 0 where the source
    keeps no such number, and then a lost event can't be proved from it.

    `labels`: name, value, name, value, ... sorted by name. `fields`: the values of the codec's
    declared fields, in its order. `undo`, `source_digest`: see `source_value`. `problem`: why the
    codec could not read the value, which is then the source's, without labels and fields.
    """

    key: bytes
    value: bytes
    mod_revision: int
    create_revision: int
    version: int
    labels: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    undo: bytes = b""
    source_digest: bytes = b""
    problem: str | None = None

    def source_value(self) -> bytes:
        """The value exactly as the source holds it. O(1) if it is served so, else O(its size).

        Raises LookupError where a transform dropped content: compare `digest()` instead.
        """
        if self.source_digest:
            raise LookupError(f"{self.key!r}: a transform dropped part of the source's value")
        return restore(self.value, self.undo) if self.undo else self.value

    def digest(self) -> bytes:
        """What digest.py's `values` mode hashes this element to, always of the source's value."""
        return self.source_digest or digest_of(self.key, self.mod_revision, self.source_value())

    def same_source(self, other: Element) -> bool:
        """Whether the source's values of two elements with one key and revision are the same."""
        if self.source_digest or other.source_digest:
            return self.digest() == other.digest()
        return self.source_value() == other.source_value()

    def altered(self, value: bytes) -> Element:
        """This element with another value to serve, for transforms that drop content."""
        return Element(
            self.key, value, self.mod_revision, self.create_revision, self.version,
            self.labels, self.fields, b"", self.digest(), self.problem,
        )  # fmt: skip

    def size_bytes(self) -> int:
        """Memory held by this element in bytes, estimated; shared strings not counted. O(1)."""
        size = len(self.key) + len(self.value) + ELEMENT_OVERHEAD_BYTES
        if self.undo or self.fields or self.labels or self.source_digest or self.problem:
            size += DECODED_OVERHEAD_BYTES + 8 * (len(self.labels) + len(self.fields))
            size += len(self.undo) + len(self.problem or "")
            if self.source_digest:
                size += sys.getsizeof(self.source_digest)
        return size


def digest_of(key: bytes, mod_revision: int, value: bytes) -> bytes:
    """blake2b-256 over len(key), key, mod_revision, value; numbers are 8 bytes, big-endian."""
    hashed = blake2b(len(key).to_bytes(8, "big") + key, digest_size=32)
    hashed.update(mod_revision.to_bytes(8, "big"))
    hashed.update(value)
    return hashed.digest()


#: Replace source[start:stop] by these bytes.
Edit = tuple[int, int, bytes]


def splice(source: bytes, edits: Sequence[Edit]) -> tuple[bytes, bytes]:
    """The source with edits made, and the `undo` that takes them back. O(len(source)).

    Edits are in order and don't overlap. `undo` is, for each edit: how many bytes of the value lie
    unchanged before it, how many it put there, how many it took away, and those. Numbers are
    varints, so the usual edit costs a handful of bytes.
    """
    parts: list[bytes] = []
    undo = bytearray()
    at = 0
    for start, stop, new in edits:
        assert at <= start <= stop <= len(source)
        parts += (source[at:start], new)
        for number in (start - at, len(new), stop - start):
            rest = number
            while rest > 0x7F:
                undo.append(rest & 0x7F | 0x80)
                rest >>= 7
            undo.append(rest)
        undo += source[start:stop]
        at = stop
    parts.append(source[at:])
    return b"".join(parts), bytes(undo)


def restore(value: bytes, undo: bytes) -> bytes:
    """The source that `splice` was given. O(len(value))."""
    parts: list[bytes] = []
    position = at = 0
    while position < len(undo):
        numbers = [0, 0, 0]
        for index in range(3):
            shift = 0
            while True:
                byte = undo[position]
                position += 1
                numbers[index] |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
        kept, put, taken = numbers
        parts += (value[at : at + kept], undo[position : position + taken])
        position += taken
        at += kept + put
    parts.append(value[at:])
    return b"".join(parts)
