"""Pending: what a cache has told and is not written yet, bounded in number and bytes.

The cache is never kept waiting. When a slow disk lets too much pile up, what comes next is not
kept, but for the newest state: once the rest is written, the history goes on from there. What lies
between is a gap, and is said to be one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from btreecache.element import Element
from btreecache.event import Batch
from btreecache.tree import Tree

#: Why a history has a gap: the source was listed anew, too much was waiting, a feed fault.
#: And of an imported one: nothing in between was retained where it comes from.
Reason = Literal["list", "overflow", "fault", "thinned"]


class Began(NamedTuple):
    """A state that doesn't follow from the one before."""

    revision: int
    tree: Tree[bytes, Element]
    arrived_s: float
    reason: Reason = "list"

    @property
    def is_list(self) -> bool:
        """Whether the source itself named this state: no fault before it can have touched it."""
        return self.reason != "overflow"


class Appended(NamedTuple):
    """A batch, and the state after it."""

    batch: Batch
    tree: Tree[bytes, Element]
    arrived_s: float

    @property
    def revision(self) -> int:
        return self.batch.revision


class Distrusted(NamedTuple):
    """What was told above `after`, and since the last list, is wrong, or may be."""

    after: int
    arrived_s: float


Step = Began | Appended | Distrusted


class Pending:
    """The steps of one history, from the cache's writer to the archive's. Any thread.

    revisions_max, bytes_max   how much may wait
    wall                       seconds since 1970
    wake                       called when something came in; must not wait
    """

    def __init__(
        self,
        wall: Callable[[], float],
        wake: Callable[[], None],
        *,
        revisions_max: int = 100_000,
        bytes_max: int = 256 << 20,
    ) -> None:
        self._wall = wall
        self._wake = wake
        self._revisions_max, self._bytes_max = revisions_max, bytes_max
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._bytes = 0
        self._skipped: Began | None = None
        self._listed = 0
        self._complete = 0
        self._suspect = False
        self._durable = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._steps) + (self._skipped is not None)

    @property
    def held_bytes(self) -> int:
        """Of the elements that wait."""
        return self._bytes

    @property
    def since_s(self) -> float | None:
        """When the first of the waiting steps came in; None: nothing waits. Long ago if a cut
        waits: until it is written, others may read what can't be trusted."""
        with self._lock:
            if any(isinstance(step, Distrusted) for step in self._steps):
                return 0.0
            first = self._steps[0] if self._steps else self._skipped
        return first.arrived_s if first else None

    @property
    def idle(self) -> bool:
        """Whether all that came in was taken."""
        return not len(self)

    @property
    def durable_revision(self) -> int:
        """Up to which revision all is written and trusted."""
        return self._durable

    def began(
        self, revision: int, tree: Tree[bytes, Element], reason: Reason | None = None
    ) -> None:
        """As History.began. `reason`: if it is known to be another one."""
        with self._lock:
            reason = reason or ("fault" if self._suspect else "list")
            self._suspect = False
            self._listed = revision
            # Whether the archive holds this very state, the writer has to see.
            self._durable = min(self._durable, revision - 1)
            self._put(Began(revision, tree, self._wall(), reason))
        self._wake()

    def appended(self, batch: Batch, tree: Tree[bytes, Element]) -> None:
        """As History.appended. Nothing, from a fault until the list that mends it."""
        with self._lock:
            if not self._suspect:
                self._put(Appended(batch, tree, self._wall()))
        self._wake()

    def progressed(self, revision: int) -> None:
        """As History.progressed."""
        with self._lock:
            if self._skipped is None and not self._suspect:
                self._complete = max(self._complete, revision)

    def distrusted(self, after: int) -> None:
        """As History.distrusted. Steps that wait and are above go at once."""
        with self._lock:
            after = max(after, self._listed)
            self._steps = [*_upto(after, self._steps), Distrusted(after, self._wall())]
            self._bytes = sum(map(_size, self._steps))
            self._skipped = None
            self._suspect = True
            self._complete = 0  # How much is known to be complete, the writer knows.
            self._durable = min(self._durable, after)
        self._wake()

    def take(self, steps_max: int, bytes_max: int) -> tuple[list[Step], int]:
        """The first steps that make one group: a list alone, a cut alone, batches together unless
        the clock went back, at most so many; and how far all is known after them (0: no further
        than they say themselves)."""
        with self._lock:
            if not self._steps and self._skipped is not None:
                self._steps, self._complete = [self._skipped], self._skipped.revision
                self._skipped = None
            taken: list[Step] = []
            size = 0
            for step in self._steps[:steps_max]:
                if taken and not _joins(step, taken[-1]):
                    break
                taken.append(step)
                size += _size(step)
                if size >= bytes_max:
                    break
            del self._steps[: len(taken)]
            self._bytes -= size
            return taken, 0 if len(self) else self._complete

    def put_back(self, steps: list[Step]) -> None:
        """They could not be written."""
        with self._lock:
            for cut in self._steps:
                if isinstance(cut, Distrusted):
                    steps = [*_upto(cut.after, steps)]
            self._steps = [*steps, *self._steps]
            self._bytes += sum(map(_size, steps))

    def written(self, complete: int) -> None:
        """All that was taken is safe, and with it everything up to `complete`."""
        with self._lock:
            for step in self._steps:
                if isinstance(step, Distrusted):
                    complete = min(complete, step.after)
                elif isinstance(step, Began):
                    complete = min(complete, step.revision - 1)
            self._durable = complete

    def _put(self, step: Began | Appended) -> None:
        full = len(self._steps) >= self._revisions_max or self._bytes >= self._bytes_max
        if full or self._skipped is not None:
            self._skipped = Began(step.revision, step.tree, step.arrived_s, "overflow")
            self.dropped += 1
            return
        self._steps.append(step)
        self._bytes += _size(step)
        self._complete = step.revision


def _joins(step: Step, before: Step) -> bool:
    """Whether a step can be in one group with the one before: batches whose times ascend."""
    both = isinstance(step, Appended) and isinstance(before, Appended)
    return both and before.arrived_s <= step.arrived_s


def _size(step: Step) -> int:
    if not isinstance(step, Appended):
        return 0
    return sum([e.element.size_bytes() for e in step.batch.events if e.element is not None])


def _upto(revision: int, steps: Iterable[Step]) -> Iterable[Step]:
    return (step for step in steps if isinstance(step, Distrusted) or step.revision <= revision)
