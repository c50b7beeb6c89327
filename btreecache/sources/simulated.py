"""The embedded simulator as a Source: etcdsim's answers turned into elements and batches.

A simulator has two handles of one shape: `feed`, where its faults apply, for a cache to follow, and
`truth`, where they don't, for a checker. Nothing of a snapshot tree is behind either of them. A
simulator belongs to one thread, so a source over it does too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter

import etcdsim
from btreecache.element import Element
from btreecache.errors import Compacted, FutureRevision, SourceError, Unavailable
from btreecache.event import Batch, Event, Progress
from btreecache.source import Listing, RangePage
from etcdsim import EtcdError, KeyValue, WatchResponse
from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.simulator import Feed, Stream, Truth

#: Keys in a page of a list, as Kubernetes' watch cache asks for them.
PAGE_KEYS = 10_000


def _element(kv: KeyValue) -> Element:
    return Element(kv.key, kv.value, kv.mod_revision, kv.create_revision, kv.version)


class SimulatedSource:
    """A Source over one handle of a simulator.

    `sleep` passes the time that `receive` waits, on a virtual clock; without it, it waits in real
    time, for a test that writes from another thread.
    """

    def __init__(
        self,
        handle: Feed | Truth,
        name: str = "simulated",
        *,
        page_keys: int = PAGE_KEYS,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.name = name
        self._handle = handle
        self._page_keys = page_keys
        self._sleep = sleep
        self._closed = threading.Event()

    def list(self, prefix: bytes) -> Listing:
        """As Source.list: the first page fixes the revision of the others."""
        revision = self.current_revision()
        return Listing(revision, self._pages(prefix, revision))

    def _pages(self, prefix: bytes, revision: int) -> Iterator[Element]:
        start: bytes | None = None
        while True:
            page = self.range_at(revision, prefix, start, self._page_keys)
            yield from page.elements
            if not page.more:
                return
            start = page.elements[-1].key + b"\0"

    def watch(self, prefix: bytes, after: int) -> SimulatedStream:
        self._check_open()
        watch = self._handle.watch(*etcdsim.prefix_range(prefix), after + 1)
        return SimulatedStream(watch, after, self._closed, self._sleep)

    def current_revision(self) -> int:
        self._check_open()
        return self._handle.current_revision()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Unavailable(f"{self.name} is closed")

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self._check_open()
        key, range_end = etcdsim.prefix_range(prefix)
        try:
            found = self._handle.range(
                max(key, start or key), range_end, revision, limit or 0, keys_only=keys_only
            )
        except ErrCompacted:
            raise Compacted(revision) from None
        except ErrFutureRev:
            raise FutureRevision(revision, self._handle.current_revision()) from None
        except EtcdError as error:
            raise SourceError(str(error)) from None
        size = sum(len(kv.key) + len(kv.value) for kv in found.kvs)
        return RangePage([_element(kv) for kv in found.kvs], found.more, found.count, size)

    def close(self) -> None:
        self._closed.set()


class SimulatedTruth(SimulatedSource):
    """The clean handle, with the sums that it keeps for every revision of the prefix it tracks."""

    def __init__(self, truth: Truth, name: str = "simulated") -> None:
        super().__init__(truth, name)
        self._truth = truth

    def count_at(self, revision: int) -> int:
        return self._truth.count_at(revision)

    def digest_at(self, revision: int) -> int:
        return self._truth.digest_at(revision)

    def recompute_digest(self, revision: int) -> tuple[int, int]:
        return self._truth.recompute_digest(revision)

    def changed_keys(self, revision: int) -> Iterable[bytes]:
        return self._truth.changed_keys(revision)

    def page_at(self, revision: int, start: bytes, limit: int) -> list[Element]:
        return [_element(kv) for kv in self._truth.page(revision, start, limit).kvs]

    def get_at(self, revision: int, key: bytes) -> Element | None:
        found = self._truth.range(key, b"", revision).kvs
        return _element(found[0]) if found else None


class SimulatedStream:
    """A watch on the simulator. Over when its source is closed."""

    def __init__(
        self,
        stream: Stream,
        after: int,
        source_closed: threading.Event,
        sleep: Callable[[float], object] | None,
    ) -> None:
        self._stream = stream
        self._after = after
        self._source_closed = source_closed
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._items: deque[Batch | Progress] = deque()

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        """As Stream.receive."""
        if not self._items and not self._poll() and timeout_s > 0:
            self._sleep(timeout_s)
            self._poll()
        return self._items.popleft() if self._items else None

    def _poll(self) -> bool:
        if self._closed.is_set() or self._source_closed.is_set():
            raise Unavailable("the watch is closed")
        response = self._stream.poll()
        if response is None:
            return False
        if response.canceled:
            if response.compact_revision:
                raise Compacted(self._after + 1, response.compact_revision)
            raise SourceError("the watch was cancelled")
        self._items.extend(_items(response))
        return bool(self._items)

    def request_progress(self) -> bool:
        if self._closed.is_set():
            return False
        self._stream.request_progress()
        return True

    def close(self) -> None:
        self._closed.set()
        self._stream.close()


def _items(response: WatchResponse) -> Iterable[Batch | Progress]:
    """A response's events as one batch per run of equal revisions, in the order they came."""
    if response.progress:
        yield Progress(response.header_revision)
        return
    for revision, events in groupby(response.events, key=attrgetter("kv.mod_revision")):
        yield Batch(revision, tuple(_event(event) for event in events))


def _event(event: etcdsim.Event) -> Event:
    previous = _element(event.prev_kv) if event.prev_kv else None
    element = _element(event.kv) if event.kind == "put" else None
    return Event(event.kv.key, element, previous)
