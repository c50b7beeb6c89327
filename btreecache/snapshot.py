"""Snapshot: the whole state at one revision, immutable and O(1) to take.

A snapshot answers for the revision that was asked for, which may be newer than the last change: the
state at 17 is the state at 15 if nothing happened in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from btreecache.digest import DIGESTS, Mode
from btreecache.element import Element
from btreecache.errors import BadRequest
from btreecache.tree import Diff, Tree


def prefix_end(prefix: bytes) -> bytes | None:
    """The least key above every key with this prefix; None if there is none (b"", b"\\xff...")."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


class Page(NamedTuple):
    """A part of a list. Pages of one chain carry the same revision (I7).

    revision     the revision that the page is of, to ask for the next one at
    elements     in key order
    next_start   where the next page starts, None on the last
    remaining    how many elements come after this page
    """

    revision: int
    elements: list[Element]
    next_start: bytes | None
    remaining: int


class Snapshot:
    """The elements of a cache at one revision. Any thread may read it, for as long as it likes."""

    __slots__ = ("revision", "tree")

    def __init__(self, revision: int, tree: Tree[bytes, Element]) -> None:
        self.revision = revision
        self.tree = tree

    def __len__(self) -> int:
        return len(self.tree)

    def __iter__(self) -> Iterator[Element]:
        """Every element in key order, lazily."""
        return self.tree.values()

    def __repr__(self) -> str:
        return f"Snapshot(revision={self.revision}, {len(self.tree)} elements)"

    def get(self, key: bytes) -> Element | None:
        """The element at `key`, or None. O(log n)."""
        return self.tree.get(key)

    def count(self, prefix: bytes = b"") -> int:
        """How many keys have the prefix. O(log n)."""
        return self.tree.count(prefix, prefix_end(prefix))

    def list(
        self, prefix: bytes = b"", *, start: bytes | None = None, limit: int | None = None
    ) -> Page:
        """The elements with `prefix` in key order, from key `start` on, at most `limit` of them.

        `start` is usually the `next_start` of the page before. O(log n + the elements returned).
        Raises BadRequest if `start` lies outside the prefix or `limit` is not positive.
        """
        if limit is not None and limit <= 0:
            raise BadRequest(f"limit must be positive: {limit}")
        first, end = prefix if start is None else start, prefix_end(prefix)
        if first < prefix or (end is not None and first > end):
            raise BadRequest(f"start {first!r} lies outside the prefix {prefix!r}")
        if limit is None:
            return Page(self.revision, [*self.tree.values(first, end)], None, 0)
        elements = []
        for element in self.tree.values(first, end):
            elements.append(element)
            if len(elements) == limit:
                break
        if not elements:
            return Page(self.revision, [], None, 0)
        next_start = elements[-1].key + b"\0"
        remaining = self.tree.count(next_start, end)
        return Page(self.revision, elements, next_start if remaining else None, remaining)

    def digest(self, mode: Mode, prefix: bytes = b"") -> int:
        """The digest of the elements with `prefix` (digest.py). O(what changed since the last)."""
        return self.tree.aggregate(DIGESTS[mode], prefix or None, prefix_end(prefix))

    def diff(self, newer: Snapshot) -> Diff[bytes, Element]:
        """What changed from this snapshot to `newer`. O(nodes that the two don't share)."""
        return self.tree.diff(newer.tree)
