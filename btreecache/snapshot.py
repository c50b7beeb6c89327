"""Snapshot: the whole state at one revision, immutable and O(1) to take.

A snapshot answers for the revision that was asked for, which may be newer than the last change: the
state at 17 is the state at 15 if nothing happened in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from btreecache.digest import DIGESTS, Mode
from btreecache.element import Element
from btreecache.errors import BadRequest
from btreecache.index import NO_INDEXES, Choice, Indexes, Requirement
from btreecache.tree import Diff, Tree

#: A page of matches looks on for one more match among at least this many elements, see `select`.
LOOK_AHEAD = 100


def prefix_end(prefix: bytes) -> bytes | None:
    """The least key above every key with this prefix; None if there is none (b"", b"\\xff...")."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


class Page(NamedTuple):
    """A part of a list. Pages of one chain carry the same revision (I7).

    revision     the revision that the page is of, to ask for the next one at
    elements     in key order
    next_start   where the next page starts, None on the last
    remaining    how many elements come after this page; None: some may, not counted
    """

    revision: int
    elements: list[Element]
    next_start: bytes | None
    remaining: int | None


class Snapshot:
    """The elements of a cache at one revision. Any thread may read it, for as long as it likes.

    `indexes` must be those of the elements of `tree`.
    """

    __slots__ = ("indexes", "revision", "tree")

    def __init__(
        self, revision: int, tree: Tree[bytes, Element], indexes: Indexes = NO_INDEXES
    ) -> None:
        self.revision = revision
        self.tree = tree
        self.indexes = indexes

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
        first, end = _bounds(prefix, start, limit)
        if limit is None:
            return Page(self.revision, [*self.tree.values(first, end)], None, 0)
        elements = [*islice(self.tree.values(first, end), limit)]
        if not elements:
            return Page(self.revision, [], None, 0)
        next_start = elements[-1].key + b"\0"
        remaining = self.tree.count(next_start, end)
        return Page(self.revision, elements, next_start if remaining else None, remaining)

    def choose(
        self,
        requirements: Sequence[Requirement] = (),
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
    ) -> Choice:
        """How `select` would find its candidates, and how many. O(log n) per requirement.

        Raises BadRequest as `select`.
        """
        first, end = _bounds(prefix, start, None)
        return self.indexes.cheapest(requirements, first, end, self.tree.count(first, end))

    def select(
        self,
        predicate: Callable[[Element], bool],
        requirements: Sequence[Requirement] = (),
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        limit: int | None = None,
    ) -> Page:
        """The elements that `list` would give and that satisfy `predicate`, paged as they are.

        `requirements`: what the predicate implies, all of it or a part. They decide how candidates
        are found and never what the answer is (I12). O(candidates), and with an index O(log n)
        each; the fewest that any way offers. `remaining` is 0 on the last page, else None.

        A full page has to know whether another match follows. To look until one is found could take
        the whole rest, so it looks among as many candidates as it took to fill the page, or
        LOOK_AHEAD: each is looked at at most twice in a chain of pages, save LOOK_AHEAD a page. If
        that does not decide, the page has a `next_start` and the one there may be empty, as in
        Kubernetes, which does not look ahead at all. No `next_start`: certainly no match follows.

        Raises BadRequest as `list`, and whatever the predicate raises.
        """
        first, end = _bounds(prefix, start, limit)
        choice = self.choose(requirements, prefix, start=start)
        if choice.requirement is None:
            found = self.tree.values(first, end)
        else:
            # KeyError: an index that does not belong to this tree. No answer rather than a wrong.
            found = map(self.tree.__getitem__, self.indexes.keys(choice.requirement, first, end))
        matches = filter(predicate, found)
        if limit is None:
            return Page(self.revision, [*matches], None, 0)
        elements = [*islice(matches, limit)]
        if len(elements) < limit:
            return Page(self.revision, elements, None, 0)
        next_start = elements[-1].key + b"\0"
        looked_at = choice.candidates - self.candidates(choice, next_start, end)
        ahead = max(LOOK_AHEAD, looked_at)
        follows = any(True for _ in filter(predicate, islice(found, ahead)))
        if not follows and looked_at + ahead >= choice.candidates:
            return Page(self.revision, elements, None, 0)
        return Page(self.revision, elements, next_start, None)

    def candidates(self, choice: Choice, first: bytes, end: bytes | None) -> int:
        """How many candidates a range has, found by the way that was chosen. O(log n)."""
        if choice.requirement is None:
            return self.tree.count(first, end)
        return self.indexes.count(choice.requirement, first, end)

    def digest(self, mode: Mode, prefix: bytes = b"") -> int:
        """The digest of the elements with `prefix` (digest.py). O(what changed since the last)."""
        return self.tree.aggregate(DIGESTS[mode], prefix or None, prefix_end(prefix))

    def diff(self, newer: Snapshot) -> Diff[bytes, Element]:
        """What changed from this snapshot to `newer`. O(nodes that the two don't share)."""
        return self.tree.diff(newer.tree)


def _bounds(prefix: bytes, start: bytes | None, limit: int | None) -> tuple[bytes, bytes | None]:
    """The range of keys that a list reads. Raises BadRequest."""
    if limit is not None and limit <= 0:
        raise BadRequest(f"limit must be positive: {limit}")
    first, end = prefix if start is None else start, prefix_end(prefix)
    if first < prefix or (end is not None and first > end):
        raise BadRequest(f"start {first!r} lies outside the prefix {prefix!r}")
    return first, end
