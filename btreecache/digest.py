"""Digests: one number that two parties can compare instead of their whole content.

The digest of a set of elements is the sum modulo 2**256 of one hash per element, so it does not
depend on order, can be kept per node of a tree, and can be kept elsewhere as a running sum that
each write adds to and subtracts from. docs/guarantees.md writes the format down; etcdsim implements
it a second time, from that text, on purpose: a check never shares code with what it checks.

It finds faults, not forgers: sums of hashes resist accidents, not somebody who may choose keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from btreecache.element import Element, digest_of
from btreecache.tree import Aggregate

#: What is compared: `keys` = key and mod_revision; `values` = the value too.
Mode = Literal["keys", "values"]

MODULUS = 1 << 256


def element_digest(element: Element, mode: Mode) -> int:
    """blake2b-256 over len(key), key, mod_revision [, value]; numbers are 8 bytes, big-endian.

    The value is the source's, whatever is served: two parties with codecs of their own agree.
    """
    if mode == "values":
        return int.from_bytes(element.digest(), "big")
    return int.from_bytes(digest_of(element.key, element.mod_revision, b""), "big")


def add(left: int, right: int) -> int:
    """Digest of the union of two disjoint sets of elements."""
    return (left + right) % MODULUS


def recompute(elements: Iterable[Element], mode: Mode) -> int:
    """The digest from the elements alone, using nothing that is kept with nodes. O(n)."""
    return sum(element_digest(element, mode) for element in elements) % MODULUS


def kept_digest(mode: Mode, remember_max: int = 0) -> Aggregate[bytes, Element, int]:
    """The digest as a monoid kept with the nodes of a tree.

    A node is new at each write, its elements but one are not: with `remember_max` the hashes of
    that many elements are remembered, so that a new leaf costs look-ups instead of hashes. They are
    all forgotten when there are too many.
    """
    known: dict[int, tuple[Element, int]] = {}

    def measure(_: bytes, element: Element) -> int:
        # By identity: an element can't change, and holding it keeps its id from being used again.
        found = known.get(id(element))
        if found is None:
            found = element, element_digest(element, mode)
            if len(known) >= remember_max:
                known.clear()
            known[id(element)] = found
        return found[1]

    def measure_afresh(_: bytes, element: Element) -> int:
        return element_digest(element, mode)

    return Aggregate(f"digest of {mode}", 0, measure if remember_max else measure_afresh, add)


#: One for each mode, for whoever asks a snapshot for its digest now and then.
DIGESTS: dict[Mode, Aggregate[bytes, Element, int]] = {
    "keys": kept_digest("keys"),
    "values": kept_digest("values"),
}
