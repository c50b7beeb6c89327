"""Reader, AsyncReader: GET, LIST and WATCH from a cache and its source, blocking and on an event
loop.

What a read does stands in `reads`, once; here its needs are met: trips that are shared, waits that
end with the caller's timeout, with cancellation or with the cache, progress marks asked for while
anybody waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Literal, TypeVar

from btreecache.cache import Cache, State
from btreecache.codec import Codec
from btreecache.compaction import Compaction
from btreecache.errors import BtreecacheError, NotReady
from btreecache.features import Features
from btreecache.fields import ResourceFields
from btreecache.follow import Follower
from btreecache.metrics import ReadCounts
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.plan import Plan
from btreecache.reads import Answer, Ask, Call, ListPage, Reads, Steps, Until
from btreecache.resources import Resource
from btreecache.selection import Keys
from btreecache.source import Source
from btreecache.trips import POLL_S, AsyncTrips, Cancelled, ProgressRequests, Trips, never
from btreecache.watch_stream import DeletedElements, WatchStream

T = TypeVar("T")

#: `cache.wait_until`, or what passes the time on a simulated clock.
WaitUntil = Callable[[Callable[[State], object], float], bool]


class Reader:
    """Answers get, list and watch for one cache: make one and keep it. Any thread, at any time.

    source       answers what the cache can't; None: nobody does (503), and a Store needs none
    follower     what feeds the cache: it is asked for progress marks, without which reads of the
                 newest state go to the source
    compaction   is told of what the source has forgotten
    codec        the one that the cache was given: its fields are what field selectors ask for
    fields       which fields may be asked for, None: any
    resource     what the keys mean: for the text of a NotFound, and for finding pinned names by key
    read         "source": answer nothing from the cache
    use_indexes  False: declared indexes aren't used; the answers are the same
    now, wait    clock in seconds and how to wait on it (as `cache.wait_until`), for simulations
    """

    def __init__(
        self,
        cache: Cache,
        source: Source | None = None,
        *,
        follower: Follower | None = None,
        compaction: Compaction | None = None,
        features: Features | None = None,
        codec: Codec | None = None,
        fields: ResourceFields | None = None,
        resource: Resource | None = None,
        read: Literal["cache", "source"] = "cache",
        use_indexes: bool = True,
        now: Callable[[], float] = time.monotonic,
        wait: WaitUntil | None = None,
    ) -> None:
        assert read == "cache" or source is not None, "there is no source to read"
        names = codec.fields if codec else ()
        self._cache = cache
        self._now = now
        self._wait_until: WaitUntil = wait or cache.wait_until
        request = None if follower is None else follower.request_progress
        self.reads = Reads(
            cache=cache,
            source=source,
            features=features or Features(),
            fields=fields,
            names=names,
            keys=Keys(cache.prefix, resource, names),
            source_only=read == "source",
            use_indexes=use_indexes,
            now=now,
            progress=ProgressRequests(request, now),
            deleted=DeletedElements(),
            compaction=compaction,
            counts=ReadCounts(),
        )
        self._trips = Trips(self.reads.ask_source)

    @property
    def counts(self) -> ReadCounts:
        """What was read since the reader was made, also by an AsyncReader around it."""
        return self.reads.counts

    def get(
        self, key: bytes, options: GetOptions | None = None, *, cancelled: Cancelled = never
    ) -> Answer:
        """The object at `key`.

        `cancelled` is asked at least every POLL_S seconds: once it is true, CancelledError.
        Raises NotFound; BadRequest and Invalid for options that mean nothing; Compacted (410),
        NotReady (429), FutureRevision (504); Unavailable and SourceError of the source, and
        SourceError for an object that can't be read.
        """
        return self.drive(self.reads.get(key, options or GetOptions()), cancelled)

    def list(
        self,
        options: ListOptions | None = None,
        prefix: bytes | None = None,
        *,
        recursive: bool = True,
        cancelled: Cancelled = never,
    ) -> ListPage:
        """A page of the objects with `prefix` (None: all of the cache's), or not `recursive`, of
        that key alone. A prefix ends with a slash; if it doesn't, one is added, as upstream.

        O(log n + page), with selectors as Snapshot.select. Raises as `get`, but NotFound.
        """
        return self.drive(self.reads.list(options or ListOptions(), prefix, recursive), cancelled)

    def watch(
        self,
        options: WatchOptions | None = None,
        prefix: bytes | None = None,
        *,
        exact: bool = False,
        cancelled: Cancelled = never,
    ) -> WatchStream:
        """Watch the objects with `prefix` (None: all of the cache's), or with `exact` that key.

        What can't be served is said in the stream, as its only event. Options are taken as they
        are meant: what an API server makes of unset ones is `WatchOptions.defaulted`. Raises, as
        answers of their own, BadRequest and Invalid for options that mean nothing or for a reader
        of the source, and NotReady.
        """
        return self.drive(self.reads.watch(options or WatchOptions(), prefix, exact), cancelled)

    def plan(
        self,
        options: GetOptions | ListOptions | WatchOptions,
        prefix: bytes | None = None,
        *,
        recursive: bool = True,
    ) -> Plan:
        """How a read would be answered now, for `Plan.explain`. Raises as it would."""
        return self.reads.plan(options, prefix, recursive=recursive)

    # Meeting the needs of a read in the caller's thread.

    def drive(self, steps: Steps[T], cancelled: Cancelled) -> T:
        """Take the steps, doing what each asks for in this thread; what they return or raise."""
        try:
            need = next(steps)
            while True:
                try:
                    met = self._meet(need, cancelled)
                except BtreecacheError as error:
                    need = steps.throw(error)
                else:
                    need = steps.send(met)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            steps.close()

    def _meet(self, need: Ask | Until | Call, cancelled: Cancelled) -> object:
        if cancelled():
            raise CancelledError
        match need:
            case Ask():
                return self._trips.ask(cancelled)
            case Until():
                return self._wait(need, cancelled)
            case Call(fetch=fetch):
                return fetch()

    def _wait(self, need: Until, cancelled: Cancelled) -> State | None:
        seen: list[State] = []

        def reached(state: State) -> bool:
            seen[:] = [state]
            return _has_reached(state, need.revision)

        while True:
            remaining_s = need.deadline_s - self._now()
            if remaining_s > 0 and not reached(self._cache.state):
                self.reads.progress.ask()
            if self._wait_until(reached, min(max(remaining_s, 0.0), POLL_S)):
                return seen[-1]
            if self._cache.closed:
                raise NotReady("the cache is closed")
            if cancelled():
                raise CancelledError
            if remaining_s <= 0:
                return None


class AsyncReader:
    """The same reads for the tasks of one event loop. Cancelling the task cancels the read.

    It never blocks the loop for the source or for a wait: however many wait, one thread at a time
    waits for the cache, and one trip to the source is under way. Reading a page from memory
    happens on the loop.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.reads = reader.reads
        self._trips = AsyncTrips(self.reads.ask_source)
        self._watch: asyncio.Task[bool] | None = None

    async def get(self, key: bytes, options: GetOptions | None = None) -> Answer:
        """As Reader.get."""
        return await self.drive(self.reads.get(key, options or GetOptions()))

    async def list(
        self,
        options: ListOptions | None = None,
        prefix: bytes | None = None,
        *,
        recursive: bool = True,
    ) -> ListPage:
        """As Reader.list."""
        return await self.drive(self.reads.list(options or ListOptions(), prefix, recursive))

    async def watch(
        self,
        options: WatchOptions | None = None,
        prefix: bytes | None = None,
        *,
        exact: bool = False,
    ) -> WatchStream:
        """As Reader.watch."""
        return await self.drive(self.reads.watch(options or WatchOptions(), prefix, exact))

    async def drive(self, steps: Steps[T]) -> T:
        """Take the steps, doing what each asks for on this loop; what they return or raise."""
        try:
            need = next(steps)
            while True:
                try:
                    met = await self._meet(need)
                except BtreecacheError as error:
                    need = steps.throw(error)
                else:
                    need = steps.send(met)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            steps.close()

    async def _meet(self, need: Ask | Until | Call) -> object:
        match need:
            case Ask():
                return await self._trips.ask()
            case Until():
                return await self._wait(need)
            case Call(fetch=fetch):
                return await asyncio.to_thread(fetch)

    async def _wait(self, need: Until) -> State | None:
        reader = self._reader
        while True:
            state = reader._cache.state
            if _has_reached(state, need.revision):
                return state
            if reader._cache.closed:
                raise NotReady("the cache is closed")
            remaining_s = need.deadline_s - reader._now()
            if remaining_s <= 0:
                return None
            self.reads.progress.ask()
            await self._changed(state, min(remaining_s, POLL_S))

    async def _changed(self, seen: State, timeout_s: float) -> None:
        """Wait until the cache's state is another than `seen`, or might be."""
        # A watch that somebody else began on an older state ends at once, which is early, not late.
        if self._watch is None or self._watch.done():
            waiting = asyncio.to_thread(
                self._reader._wait_until, lambda state: state is not seen, POLL_S
            )
            self._watch = asyncio.create_task(waiting)
        await asyncio.wait([self._watch], timeout=timeout_s)


def _has_reached(state: State, revision: int) -> bool:
    return state.window is not None and state.window.current >= revision
