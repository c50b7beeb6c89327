"""Pending: what a cache has told and is not written yet, bounded in number and bytes.

The cache is never kept waiting. When a slow disk lets too much pile up, what comes next is dropped
until the writer has caught up, and then the history begins anew from the state of that moment. What
lies between is a gap, and is said to be one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple

from btreecache.element import Element
from btreecache.event import Batch
from btreecache.tree import Tree

#: Why a history has a gap.
Reason = Literal["list", "overflow", "fault"]


class Began(NamedTuple):
    """A state that doesn't follow from the one before."""

    revision: int
    tree: Tree[bytes, Element]
    arrived_s: float
    reason: Reason = "list"


class Appended(NamedTuple):
    """A batch, and the state after it."""

    batch: Batch
    tree: Tree[bytes, Element]
    arrived_s: float

    @property
    def revision(self) -> int:
        return self.batch.revision


class Distrusted(NamedTuple):
    """What was told above `after` is wrong, or may be."""

    after: int


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
        self._since_s: float | None = None
        self._complete = 0
        self._skipping = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def held_bytes(self) -> int:
        """Of the elements that wait."""
        return self._bytes

    @property
    def since_s(self) -> float | None:
        """When the first of the waiting steps came in; None: nothing waits."""
        return self._since_s

    @property
    def idle(self) -> bool:
        """Whether all that came in was taken, nothing was dropped since."""
        return not self._steps and not self._skipping

    def began(self, revision: int, tree: Tree[bytes, Element]) -> None:
        """As History.began."""
        self._put(Began(revision, tree, self._wall()), 0)

    def appended(self, batch: Batch, tree: Tree[bytes, Element]) -> None:
        """As History.appended."""
        size = sum([e.element.size_bytes() for e in batch.events if e.element is not None])
        self._put(Appended(batch, tree, self._wall()), size)

    def progressed(self, revision: int) -> None:
        """As History.progressed."""
        with self._lock:
            if not self._skipping:
                self._complete = max(self._complete, revision)

    def distrusted(self, after: int) -> None:
        """As History.distrusted. Steps that wait and are above go at once."""
        with self._lock:
            self._steps = [step for step in self._steps if _is_upto(step, after)]
            self._steps.append(Distrusted(after))
            self._complete = min(self._complete, after)
            if self._since_s is None:
                self._since_s = self._wall()
        self._wake()

    def take(self, steps_max: int, bytes_max: int) -> tuple[list[Step], int]:
        """The first steps, at most so many, and how far all is known after them (0: no further
        than they say themselves)."""
        with self._lock:
            count = size = 0
            for step in self._steps[:steps_max]:
                count += 1
                size += _size(step)
                if size >= bytes_max:
                    break
            taken, self._steps = self._steps[:count], self._steps[count:]
            self._bytes -= min(size, self._bytes)
            self._since_s = self._wall() if self._steps else None
            return taken, 0 if self._steps else self._complete

    def put_back(self, steps: list[Step]) -> None:
        """They could not be written."""
        with self._lock:
            if self._steps and isinstance(self._steps[0], Distrusted):
                after = self._steps[0].after
                steps = [step for step in steps if _is_upto(step, after)]
            self._steps = [*steps, *self._steps]
            self._bytes += sum(map(_size, steps))
            if self._since_s is None:
                self._since_s = self._wall()

    def _put(self, step: Began | Appended, size: int) -> None:
        with self._lock:
            full = len(self._steps) >= self._revisions_max or self._bytes >= self._bytes_max
            if full or (self._skipping and self._steps):
                self._skipping = True
                self.dropped += 1
                return
            if self._skipping and isinstance(step, Appended):
                step, size = Began(step.revision, step.tree, step.arrived_s, "overflow"), 0
            self._skipping = False
            self._steps.append(step)
            self._bytes += size
            self._complete = max(self._complete, step.revision)
            if self._since_s is None:
                self._since_s = step.arrived_s
        self._wake()


def _size(step: Step) -> int:
    if not isinstance(step, Appended):
        return 0
    return sum([e.element.size_bytes() for e in step.batch.events if e.element is not None])


def _is_upto(step: Step, revision: int) -> bool:
    return isinstance(step, Distrusted) or step.revision <= revision
