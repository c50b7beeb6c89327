"""Element: one key as the source holds it and as it is served.

This is the raw form: the bytes served are the source's own. Elements are immutable and hold no
containers, so they are not tracked by the garbage collector (`gc=False`): a million of them add
nothing to a collection pause.
"""

from __future__ import annotations

import sys

import msgspec

#: Bytes that CPython spends on an element beside its key and value: the struct itself, two bytes
#: headers and the three numbers. An estimate for budgets, not an account.
ELEMENT_OVERHEAD_BYTES = sys.getsizeof(b"") * 2 + 32 * 3 + 56


class Element(msgspec.Struct, frozen=True, gc=False):
    """A key-value pair with the revisions that etcd keeps with it (etcd `mvccpb.KeyValue`).

    `mod_revision`: the revision of its last put. `create_revision`: of the put that created it.
    `version`: puts since it was created, from 1; 0 where the source keeps no such number, and then
    a lost event can't be proved from it.
    """

    key: bytes
    value: bytes
    mod_revision: int
    create_revision: int
    version: int

    def size_bytes(self) -> int:
        """Memory held by this element in bytes, estimated. O(1)."""
        return len(self.key) + len(self.value) + ELEMENT_OVERHEAD_BYTES
