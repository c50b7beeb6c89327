"""A simulator that goes on writing while others read: what `serve --sim` serves.

A simulator belongs to one thread at a time, and here many use it: a follower for each cache, reads
that no cache can answer, and the writer. All of them take one lock. Which writes are made follows
from the seed; when they are made is real time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from time import monotonic
from types import TracebackType

from btreecache.cli.simulation import Simulation
from btreecache.compaction import KEY as COMPACTION_KEY
from btreecache.event import Batch, Progress
from btreecache.source import Listing, RangePage, Source, Stream
from btreecache.sources.simulated import SimulatedSource
from btreecache.window import Bounds

#: Revisions that the simulator keeps at least; older ones are compacted, as API servers have etcd
#: do it, or a server that runs for days would keep every one of them.
KEPT_REVISIONS = 10_000

#: Seconds before now that the first objects are from.
LOAD_S = 3600.0

#: Seconds between two looks at the clock, and revisions that one look may make up for.
TICK_S, CATCH_UP_MAX = 0.01, 1_000


class LiveSimulation:
    """`with` loads the objects and starts the writer; its end stops it.

    writes_per_s   revisions a second; 0: none after the first objects
    wall_s         the time of day, in seconds since 1970: what objects say of time is then no
                   earlier than it is, so that their ages are right. None: virtual time

    Raises ValueError for what Simulation does.
    """

    def __init__(
        self,
        profile: str,
        *,
        seed: int,
        objects: int,
        faults: Iterable[str],
        writes_per_s: int,
        wall_s: Callable[[], float] | None = None,
    ) -> None:
        simulation = Simulation(
            profile, seed=seed, objects=objects, faults=faults,
            prefix=b"", mode="keys", bounds=Bounds(),
        )  # fmt: skip
        self._simulator = simulation.simulator
        self._writes_per_s = writes_per_s
        self._wall_s = wall_s
        self._changed = threading.Condition(threading.RLock())
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._compacted = 0
        feed = SimulatedSource(self._simulator.feed, simulation.source.name)
        self.source: Source = _Shared(feed, self._changed)

    def __enter__(self) -> LiveSimulation:
        with self._changed:
            self._catch_up(LOAD_S)
            self._simulator.load()
        if self._writes_per_s:
            self._thread = threading.Thread(target=self._run, name="btreecache-traffic")
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.source.close()

    def _run(self) -> None:
        began_s, done = monotonic(), 0
        while not self._stopping.wait(TICK_S):
            due = int((monotonic() - began_s) * self._writes_per_s)
            if due - done > CATCH_UP_MAX:
                done = due - CATCH_UP_MAX  # the machine was busy, or slept: don't make up for it
            if due > done:
                self.write(due - done)
                done = due

    def _catch_up(self, less_s: float = 0.0) -> None:
        """Let virtual time pass until it is the time of day, or less."""
        if self._wall_s is not None:
            clock = self._simulator.clock
            clock.advance(max(0, int((self._wall_s() - less_s) * 1000) - clock.now_ms))

    def write(self, writes: int) -> None:
        """Make so many revisions now. Any thread."""
        with self._changed:
            self._catch_up()
            for _ in range(writes):
                self._simulator.step()
            revision = self._simulator.model.revision
            if revision - self._compacted > 2 * KEPT_REVISIONS:
                self._compacted = revision - KEPT_REVISIONS
                self._simulator.compact(self._compacted)
                self._simulator.model.put(COMPACTION_KEY, b"%d" % self._compacted)
            self._changed.notify_all()


class _Shared:
    """A source that many threads may use, under one lock."""

    def __init__(self, source: SimulatedSource, changed: threading.Condition) -> None:
        self._source = source
        self._changed = changed
        self.name = source.name

    def list(self, prefix: bytes) -> Listing:
        with self._changed:
            listing = self._source.list(prefix)
            return Listing(listing.revision, list(listing.elements))

    def watch(self, prefix: bytes, after: int) -> Stream:
        with self._changed:
            return _SharedStream(self._source.watch(prefix, after), self._changed)

    def current_revision(self) -> int:
        with self._changed:
            return self._source.current_revision()

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        with self._changed:
            return self._source.range_at(revision, prefix, start, limit, keys_only)

    def close(self) -> None:
        with self._changed:
            self._source.close()
            self._changed.notify_all()


class _SharedStream:
    """A stream of it. Waits without the lock, woken by the next write or progress request."""

    def __init__(self, stream: Stream, changed: threading.Condition) -> None:
        self._stream = stream
        self._changed = changed

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        with self._changed:
            item = self._stream.receive(0)
            if item is None and timeout_s > 0:
                self._changed.wait(timeout_s)
                item = self._stream.receive(0)
            return item

    def request_progress(self) -> bool:
        with self._changed:
            asked = self._stream.request_progress()
            self._changed.notify_all()
            return asked

    def close(self) -> None:
        with self._changed:
            self._stream.close()
            self._changed.notify_all()
