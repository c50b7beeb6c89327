"""Window: the retained revisions, each with its batch and its snapshot.

A window is an immutable value. Appending gives a new one that shares the segments of the old; a
segment's lists only ever grow at their end, and each window knows how far it may read. So a reader
keeps the window that it took, whatever the writer evicts meanwhile.

Segments have a fixed length, so an entry's place is plain arithmetic, and eviction advances `start`
and drops whole segments.

However many revisions are retained, the garbage collector has next to nothing to visit: only the
lists of the last segment. A full segment holds tuples, and a tuple of what the collector doesn't
track isn't tracked itself; windows and segments are structs that it never tracks (`gc=False`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from btreecache.element import Element
from btreecache.errors import Compacted, FutureRevision
from btreecache.event import Batch
from btreecache.index import NO_INDEXES, Indexes
from btreecache.snapshot import Snapshot
from btreecache.tree import Tree

#: Entries in a segment: what one append copies is len(window) / SEGMENT_ENTRIES pointers, what an
#: eviction keeps alive too long is at most one segment.
SEGMENT_ENTRIES = 256

#: Gaps remembered one by one; of more, the oldest two count as one.
GAPS_MAX = 64


class Segment(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Parallel sequences, one item an entry: nobody ever changes an item.

    `superseded_bytes` is a running sum over the window's life: what each batch made unreachable
    from the newest snapshot, and so what evicting the entries before it sets free.
    """

    revisions: Sequence[int]
    batches: Sequence[Batch | None]
    trees: Sequence[Tree[bytes, Element]]
    indexes: Sequence[Indexes]
    times_s: Sequence[float]
    superseded_bytes: Sequence[int]


class OpenSegment(Segment, frozen=True, eq=False, gc=False):
    """The last segment of a window: lists that the one writer appends to, and nobody else."""

    revisions: list[int]
    batches: list[Batch | None]
    trees: list[Tree[bytes, Element]]
    indexes: list[Indexes]
    times_s: list[float]
    superseded_bytes: list[int]

    @classmethod
    def empty(cls) -> OpenSegment:
        return cls([], [], [], [], [], [])

    def append(
        self,
        revision: int,
        batch: Batch | None,
        tree: Tree[bytes, Element],
        indexes: Indexes,
        time_s: float,
        superseded_bytes: int,
    ) -> None:
        # `revisions` last: it is what readers without a window of their own could look at first.
        self.batches.append(batch)
        self.trees.append(tree)
        self.indexes.append(indexes)
        self.times_s.append(time_s)
        self.superseded_bytes.append(superseded_bytes)
        self.revisions.append(revision)

    def sealed(self) -> Segment:
        """The same entries, never to grow again. Older windows may go on reading this one."""
        return Segment(
            tuple(self.revisions),
            tuple(self.batches),
            tuple(self.trees),
            tuple(self.indexes),
            tuple(self.times_s),
            tuple(self.superseded_bytes),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ceilings on what a window keeps; None: no ceiling. The newest snapshot is always kept.

    age_s       seconds of history. Kubernetes clients expect at least 75 s.
    bytes       what eviction would set free: superseded elements and nodes, estimated.
    revisions   retained snapshots, at least 1.
    """

    age_s: float | None = 300.0
    bytes: int | None = None
    revisions: int | None = None


class Window(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The snapshots that can be read and the batches that can be watched.

    oldest        the lowest revision that can be read
    current       the highest: the last batch's or the last progress mark's
    watch_floor   the lowest position that a watch may start after without losing an event
    gaps          between which revisions only the net change is known, ascending: no watch may
                  start strictly inside one, as what came before its start can't be told apart
    """

    segments: tuple[Segment, ...]
    start: int
    stop: int
    oldest: int
    current: int
    watch_floor: int
    gaps: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(
        cls,
        revision: int,
        tree: Tree[bytes, Element],
        time_s: float,
        indexes: Indexes = NO_INDEXES,
    ) -> Window:
        """A window that begins with the state `tree` at `revision`."""
        segment = OpenSegment.empty()
        segment.append(revision, None, tree, indexes, time_s, 0)
        return cls((segment,), 0, 1, revision, revision, revision)

    def __len__(self) -> int:
        """Retained snapshots."""
        return self.stop - self.start

    def _locate(self, index: int) -> tuple[Segment, int]:
        return self.segments[index // SEGMENT_ENTRIES], index % SEGMENT_ENTRIES

    def _bisect(self, revision: int) -> int:
        """Index of the first entry above `revision`. O(log n)."""
        segments = self.segments
        place = max(bisect_right(segments, revision, key=_first_revision) - 1, 0)
        base = place * SEGMENT_ENTRIES
        low = max(self.start - base, 0)
        high = min(self.stop - base, SEGMENT_ENTRIES)
        return base + bisect_right(segments[place].revisions, revision, low, high)

    @property
    def last_revision(self) -> int:
        """Revision of the newest entry: of the last change, whatever progress said since."""
        segment, at = self._locate(self.stop - 1)
        return segment.revisions[at]

    @property
    def newest(self) -> Tree[bytes, Element]:
        segment, at = self._locate(self.stop - 1)
        return segment.trees[at]

    @property
    def newest_indexes(self) -> Indexes:
        segment, at = self._locate(self.stop - 1)
        return segment.indexes[at]

    @property
    def since_s(self) -> float:
        """When the oldest entry was appended, on the clock that they all were. O(1)."""
        return self._time_s(self.start)

    @property
    def retained_bytes(self) -> int:
        """What evicting everything but the newest snapshot would set free, estimated. O(1)."""
        return self._superseded(self.stop - 1) - self._superseded(self.start)

    def _superseded(self, index: int) -> int:
        segment, at = self._locate(index)
        return segment.superseded_bytes[at]

    def at(self, revision: int) -> Tree[bytes, Element]:
        """The state at `revision` (I4). O(log n). Raises Compacted, FutureRevision."""
        segment, at = self._entry(revision)
        return segment.trees[at]

    def snapshot(self, revision: int) -> Snapshot:
        """The state at `revision`, with its indexes. O(log n). Raises as `at`."""
        segment, at = self._entry(revision)
        return Snapshot(revision, segment.trees[at], segment.indexes[at])

    def _entry(self, revision: int) -> tuple[Segment, int]:
        if revision < self.oldest:
            raise Compacted(revision, self.oldest)
        if revision > self.current:
            raise FutureRevision(revision, self.current)
        return self._locate(self._bisect(revision) - 1)

    def revisions(self) -> Iterator[int]:
        """The revision of every retained snapshot, ascending.

        After a compaction the first may be below `oldest`: it is the floor that `oldest` reads.
        """
        for index in range(self.start, self.stop):
            segment, at = self._locate(index)
            yield segment.revisions[at]

    def trees(self) -> Iterator[Tree[bytes, Element]]:
        """Every retained snapshot, in the order of `revisions`."""
        for index in range(self.start, self.stop):
            segment, at = self._locate(index)
            yield segment.trees[at]

    def batch_after(self, position: int) -> Batch | None:
        """The first batch above `position`, None if there is none yet. O(log n).

        Raises Compacted if a batch above `position` may have been forgotten.
        """
        if position < self.watch_floor:
            raise Compacted(position, self.watch_floor)
        index = self._bisect(position)
        if index == self.stop:
            return None
        segment, at = self._locate(index)
        return segment.batches[at]

    def batch_at(self, revision: int) -> Batch | None:
        """The batch of exactly `revision`, None if it is not retained. O(log n)."""
        index = self._bisect(revision) - 1
        if index < self.start or self._revision(index) != revision:
            return None
        segment, at = self._locate(index)
        return segment.batches[at]

    def batches(self, after: int, upto: int) -> Iterator[Batch]:
        """The retained batches above `after` and not above `upto`, ascending."""
        for index in range(self._bisect(after), self._bisect(upto)):
            segment, at = self._locate(index)
            batch = segment.batches[at]
            if batch is not None:
                yield batch

    def append(
        self,
        batch: Batch,
        tree: Tree[bytes, Element],
        time_s: float,
        superseded_bytes: int,
        indexes: Indexes = NO_INDEXES,
    ) -> Window:
        """The window with one more revision. Only the one writer may call this, on its newest."""
        segments, stop, revision = self.segments, self.stop, batch.revision
        segment = segments[-1]
        assert isinstance(segment, OpenSegment)
        held = len(segment.revisions)
        assert (stop - held) % SEGMENT_ENTRIES == 0, "append to a window that is not the newest"
        total = segment.superseded_bytes[-1] + superseded_bytes
        if held == SEGMENT_ENTRIES:
            full, segment = segment, OpenSegment.empty()
            segments = (*segments[:-1], full.sealed(), segment)
        segment.append(revision, batch, tree, indexes, time_s, total)
        floor, gaps = self.watch_floor, self.gaps
        return Window(segments, self.start, stop + 1, self.oldest, revision, floor, gaps)

    def progress(self, revision: int) -> Window:
        """The same content, readable up to `revision`."""
        return replace(self, current=revision)

    def readable_from(self, revision: int) -> Window:
        """Reads below `revision` refused, the batches below it kept for watchers."""
        return replace(self, oldest=revision)

    def with_gap(self, base: int, revision: int) -> Window:
        """All that is known from `base` to `revision` is the net change."""
        gaps = (*self.gaps, (base, revision))
        if len(gaps) > GAPS_MAX:
            gaps = ((gaps[0][0], gaps[1][1]), *gaps[2:])
        return replace(self, gaps=gaps)

    def in_gap(self, position: int) -> bool:
        """Whether a watch that starts after `position` would be told changes from before it, or
        not be told of changes after it. O(log gaps)."""
        gaps = self.gaps
        at = bisect_left(gaps, (position, 0)) - 1
        return at >= 0 and position < gaps[at][1]

    def watchable_from(self, position: int) -> Window:
        """Watches refused below `position`, as if the batches up to it were forgotten."""
        return replace(self, watch_floor=max(self.watch_floor, position))

    def compact(self, revision: int) -> Window:
        """Forget below `revision`, keep the newest snapshot at or below it (I8). O(log n).

        etcd lets a watch start exactly at the compacted revision, so its event is kept too.
        Raises FutureRevision; below `oldest` it changes nothing.
        """
        if revision > self.current:
            raise FutureRevision(revision, self.current)
        if revision <= self.oldest:
            return self
        return self._advance(self._bisect(revision) - 1, revision, revision - 1)

    def evict(self, bounds: Bounds, now_s: float) -> Window:
        """The window within `bounds`. O(log n), O(1) when there is nothing to evict."""
        start, last = self.start, self.stop - 1
        if bounds.revisions is not None:
            start = max(start, self.stop - bounds.revisions)
        if bounds.bytes is not None and self.retained_bytes > bounds.bytes:
            allowed = self._superseded(last) - bounds.bytes
            start = max(start, bisect_left(range(last), allowed, key=self._superseded))
        if bounds.age_s is not None:
            # An entry is history only once its successor is older than the ceiling.
            cutoff = now_s - bounds.age_s
            while start < last and self._time_s(start + 1) <= cutoff:
                start += 1
        start = min(start, last)
        if start == self.start:
            return self
        # The last batch forgotten is the lowest position that misses nothing, however far the next.
        forgotten, first = self._revision(start - 1), self._revision(start)
        return self._advance(start, max(self.oldest, first), forgotten)

    def _revision(self, index: int) -> int:
        segment, at = self._locate(index)
        return segment.revisions[at]

    def _time_s(self, index: int) -> float:
        segment, at = self._locate(index)
        return segment.times_s[at]

    def _advance(self, start: int, oldest: int, watch_floor: int) -> Window:
        dropped = start // SEGMENT_ENTRIES
        shift = dropped * SEGMENT_ENTRIES
        return Window(
            self.segments[dropped:],
            start - shift,
            self.stop - shift,
            oldest,
            self.current,
            max(self.watch_floor, watch_floor),
            self.gaps,
        )


def _first_revision(segment: Segment) -> int:
    return segment.revisions[0]
