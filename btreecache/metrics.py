"""What is counted, as plain numbers that lie with what they count. Nothing here knows how a scrape
looks: text is made where somebody asks for it (server/metrics).

Counting may be done by any thread: it takes a lock of its own, never while anything else is done.
Who reads while others count gets each number as it was at some moment, not all of the same one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock
from typing import Final

#: Upper bounds of how long reads wait for a revision, in seconds (upstream: the same).
READ_WAIT_S: Final = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)


class Histogram:
    """How many values fell where.

    bounds   upper bounds of the buckets, ascending; each belongs to its bucket
    counts   of each bucket, and of what lies above all of them; only ever grow
    total    the sum of the values
    """

    __slots__ = ("_lock", "bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0
        self._lock = Lock()

    def observe(self, value: float) -> None:
        """Count a value. O(log bounds)."""
        place = bisect_left(self.bounds, value)
        with self._lock:
            self.counts[place] += 1
            self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class ListCounts:
    """Lists that were answered in one way.

    lists      how many
    fetched    elements that were looked at for them
    returned   elements that they had
    """

    __slots__ = ("fetched", "lists", "returned")

    def __init__(self) -> None:
        self.lists = self.fetched = self.returned = 0


class ReadCounts:
    """What the reads of one cache came to.

    cached   lists from snapshots, by the name of the index that found their elements; "": none
    source   lists that were read from the source
    waits    seconds that reads waited for a revision
    """

    __slots__ = ("_lock", "cached", "source", "waits")

    def __init__(self) -> None:
        self.cached: dict[str, ListCounts] = {"": ListCounts()}
        self.source = ListCounts()
        self.waits = Histogram(READ_WAIT_S)
        self._lock = Lock()

    def from_cache(self, returned: int, *, fetched: int, index: str = "") -> None:
        """Count a list that came from a snapshot."""
        with self._lock:
            counts = self.cached.get(index)
            if counts is None:
                counts = self.cached[index] = ListCounts()
            _add(counts, fetched, returned)

    def from_source(self, returned: int, *, fetched: int) -> None:
        """Count a list that came from the source."""
        with self._lock:
            _add(self.source, fetched, returned)


def _add(counts: ListCounts, fetched: int, returned: int) -> None:
    counts.lists += 1
    counts.fetched += fetched
    counts.returned += returned
