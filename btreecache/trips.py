"""Trips to the source that many reads share: for its current revision, and for progress marks.

A consistent read must not be answered by a trip that began before the read did: what was written in
between would be missed. So a trip takes along everybody who came before it left, and nobody else:
while one is under way those who come wait for the next, which is one for all of them. However many
read at once, at most two trips lie between a read and its answer, and one is under way at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

from btreecache.errors import Unavailable

#: Seconds between two progress requests while somebody waits (upstream: the same).
PROGRESS_S = 0.1

#: For how long the word of a stream that progress is safe is taken, in seconds.
TRUST_S = 1.0

#: Longest time that a cancelled caller takes to notice, in seconds.
POLL_S = 0.1

Cancelled = Callable[[], bool]


def never() -> bool:
    """Not cancelled, and never will be."""
    return False


class _Trip:
    """One trip: what it brought, once it is `over`."""

    __slots__ = ("error", "over", "revision")

    def __init__(self) -> None:
        self.over = threading.Event()
        self.revision = 0
        self.error: Exception | None = None


class Trips:
    """Shares calls of `fetch` among threads; whoever comes first makes the trip for the others.

    `fetch` is bounded by its own timeouts.
    """

    def __init__(self, fetch: Callable[[], int]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._road = threading.Lock()  # held by the trip under way
        self._waiting: _Trip | None = None  # has not left, takes along who comes; under _lock

    def ask(self, cancelled: Cancelled = never) -> int:
        """The source's revision, from a trip that left after this call began. Any thread.

        Raises what `fetch` raises, the same error for all who shared the trip, and CancelledError;
        only one who makes the trip for others ends it first.
        """
        with self._lock:
            trip, leads = self._waiting, self._waiting is None
            if trip is None:
                trip = self._waiting = _Trip()
        if leads:
            self._make(trip)
        while not trip.over.wait(POLL_S):
            if cancelled():
                raise CancelledError
        if trip.error is not None:
            raise trip.error
        return trip.revision

    def _make(self, trip: _Trip) -> None:
        # Whoever shares the trip must not wait for ever, whatever ends this thread.
        trip.error = Unavailable("the trip to the source was interrupted")
        try:
            with self._road:
                with self._lock:
                    self._waiting = None  # it leaves: who comes from here on takes the next
                trip.revision = self._fetch()
            trip.error = None
        except Exception as error:
            trip.error = error
        finally:
            with self._lock:
                if self._waiting is trip:
                    self._waiting = None
            trip.over.set()


class AsyncTrips:
    """The same for the tasks of one event loop; `fetch` runs in a thread of the loop's own."""

    def __init__(self, fetch: Callable[[], int]) -> None:
        self._fetch = fetch
        self._road = asyncio.Lock()
        self._waiting: asyncio.Task[int] | None = None

    async def ask(self) -> int:
        """As Trips.ask. A caller that is cancelled leaves the trip to the others."""
        if self._waiting is None or self._waiting.done():  # done: it was cancelled before it left
            self._waiting = asyncio.create_task(self._make())
            self._waiting.add_done_callback(_heard)
        return await asyncio.shield(self._waiting)

    async def _make(self) -> int:
        async with self._road:
            self._waiting = None
            return await asyncio.to_thread(self._fetch)


def _heard(trip: asyncio.Task[int]) -> None:
    """Looks at how a trip ended, so that nobody complains of one that was left alone."""
    if not trip.cancelled():
        trip.exception()


class ProgressRequests:
    """One requester of progress marks for all who wait, at most one request per `interval_s`.

    `request` asks for a mark and says whether marks can be trusted, None: not known just now; it
    must not block. None: they can't. Any thread.
    """

    def __init__(
        self,
        request: Callable[[], bool | None] | None,
        now: Callable[[], float],
        interval_s: float = PROGRESS_S,
    ) -> None:
        self._request = request
        self._now = now
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._asked_s = float("-inf")
        self._safe: bool | None = False

    def ask(self) -> bool:
        """Ask for a mark, unless that was just done. Whether marks are safe."""
        return self._ask(self._interval_s)

    def safe(self) -> bool:
        """Whether marks are safe, by a word not older than TRUST_S."""
        return self._ask(TRUST_S if self._safe else self._interval_s)

    def _ask(self, unless_within_s: float) -> bool:
        if self._request is None:
            return False
        with self._lock:
            now = self._now()
            if now - self._asked_s >= unless_within_s:
                self._asked_s = now
                self._safe = self._request()
            return bool(self._safe)

    @property
    def unknown(self) -> bool:
        """Whether the last answer was that nobody knows."""
        return self._safe is None
