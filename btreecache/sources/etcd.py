"""EtcdSource: a real etcd (3.4 and later), or anything that speaks its v3 API, as a Source.

A thin client on blocking gRPC. It adds what a cache needs and the generic clients lack: pages
pinned to one revision, fragments put together so that a revision is delivered whole (I5), progress
marks only from servers whose marks can be trusted, errors of one line each.

It does not resume a broken watch: that is the follower's part, which knows what it has applied.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any

from btreecache.element import Element
from btreecache.errors import BtreecacheError, Compacted, SourceError, Unavailable
from btreecache.event import Batch, Event, Progress
from btreecache.snapshot import prefix_end
from btreecache.source import Listing, RangePage
from btreecache.sources.etcd_connection import (
    COMPACTED_TEXT,
    Access,
    Connection,
    parse_endpoints,
)
from etcdsim import wire

log = logging.getLogger(__name__)

#: Keys asked for by the first page of a list. Values may be 1.5 MiB each, so it starts small; later
#: pages grow at most fourfold, towards `page_bytes`.
FIRST_PAGE_KEYS = 64


def range_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with `prefix`; b"\\0" is etcd's "to the last key"."""
    return prefix_end(prefix) or b"\0"


class EtcdSource:
    """An etcd. Connects with the first call; thread-safe, each stream for one thread.

    endpoints     HOST:PORT, or several members of one cluster separated by commas: the one in use
                  is left for the next when it is Unavailable
    access        certificates and a user, for an etcd that isn't open to everybody
    timeout_s     a call that has no answer by then is Unavailable
    page_keys     most keys in a page of a list. Every page costs etcd a walk over the index of all
                  the keys still to come (they are counted), so large pages are cheaper; 10,000 is
                  also kube-apiserver's figure for its own initial list
    page_bytes    size that the pages of a list aim at
    prev_kv       ask for the previous value of each event; it costs etcd a read per event
    buffer_bytes  responses held for a stream that isn't read; then etcd has to wait

    https:// is TLS with the roots that grpcio brings (or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH).
    Raises BadRequest for a malformed endpoint, MissingExtra without grpcio.
    """

    def __init__(
        self,
        endpoints: str,
        *,
        access: Access | None = None,
        timeout_s: float = 5.0,
        page_keys: int = 10_000,
        page_bytes: int = 4 << 20,
        prev_kv: bool = False,
        buffer_bytes: int = 8 << 20,
    ) -> None:
        assert timeout_s > 0
        assert page_keys > 0
        assert page_bytes > 0
        assert buffer_bytes > 0
        access = access or Access()
        self._connections = [
            Connection(endpoint, timeout_s, access)
            for endpoint in parse_endpoints(endpoints, access.tls)
        ]
        self._at = 0  # the connection in use
        self._page_keys = page_keys
        self._page_bytes = page_bytes
        self._prev_kv = prev_kv
        self._buffer_bytes = buffer_bytes
        self._version: str | None = None  # None before the first answer, "" if it won't say
        self._streams: weakref.WeakSet[EtcdStream] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards _streams, _closed and _at
        self._closed = False

    @property
    def name(self) -> str:
        """`etcd 3.5.30 at 127.0.0.1:2379`; without the version before the first call."""
        version = f" {self._version}" if self._version else ""
        return f"etcd{version} at {','.join(one.address for one in self._connections)}"

    def list(self, prefix: bytes) -> Listing:
        """See Source. The first page is fetched here, the others as the elements are consumed."""
        self._greet()
        limit = min(FIRST_PAGE_KEYS, self._page_keys)
        page, size = self._ask(wire.RANGE, _range(prefix, limit=limit))
        revision = page.header.revision
        return Listing(revision, self._pages(prefix, revision, page, size, limit))

    def _pages(
        self, prefix: bytes, revision: int, page: Any, size: int, limit: int
    ) -> Iterator[Element]:
        while True:
            for kv in page.kvs:
                yield _element(kv)
            if not page.more:
                return
            wanted = self._page_bytes * len(page.kvs) // size
            limit = max(1, min(wanted, 4 * limit, self._page_keys))
            request = _range(prefix, limit=limit, revision=revision)
            request.key = page.kvs[-1].key + b"\0"
            page, size = self._ask(wire.RANGE, request, revision)

    def watch(self, prefix: bytes, after: int) -> EtcdStream:
        """See Source. Returns when etcd has answered that it watches, or raises Unavailable."""
        assert after >= 0
        # Asked again for each watch: another etcd, with other marks, may have taken its place.
        self._greet(again=True)
        marks = wire.marks_are_safe(self._version or "")
        create = wire.WatchCreateRequest(
            key=prefix or b"\0",
            range_end=range_end(prefix),
            start_revision=after + 1,
            progress_notify=marks,
            prev_kv=self._prev_kv,
            fragment=True,
        )
        stream = EtcdStream(
            self._connections[self._at],
            create,
            after=after,
            marks=marks,
            buffer_bytes=self._buffer_bytes,
        )
        with self._lock:
            self._streams.add(stream)
            closed = self._closed
        if closed:
            stream.close()
        try:
            stream.open()
        except BtreecacheError:
            stream.close()
            raise
        return stream

    def current_revision(self) -> int:
        """See Source."""
        self._greet()
        # A linearizable read that counts one key: only its header matters.
        answer, _ = self._ask(wire.RANGE, wire.RangeRequest(key=b"\0", count_only=True))
        return int(answer.header.revision)

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        """See Source. Without a limit etcd sends everything in one answer."""
        assert revision > 0
        assert limit is None or limit > 0
        self._greet()
        request = _range(prefix, limit=limit or 0, revision=revision, keys_only=keys_only)
        if start is not None:
            request.key = max(start, request.key)
        answer, size = self._ask(wire.RANGE, request, revision)
        elements = [_element(kv) for kv in answer.kvs]
        return RangePage(elements, answer.more, answer.count, size)

    def close(self) -> None:
        """Close every stream and the connection. Idempotent, from any thread."""
        with self._lock:
            self._closed = True
            streams = tuple(self._streams)
        for stream in streams:
            stream.close()
        for connection in self._connections:
            connection.close()

    def _ask(self, method: wire.Method, request: Any, revision: int = 0) -> tuple[Any, int]:
        """Connection.ask of the endpoint in use; if that is away, of the others in turn."""
        for left in range(len(self._connections) - 1, -1, -1):
            at = self._at
            try:
                return self._connections[at].ask(method, request, revision)
            except Unavailable:
                with self._lock:
                    if self._at == at:  # else somebody has moved on already
                        self._at = (at + 1) % len(self._connections)
                if not left:
                    raise
        raise AssertionError("no endpoints")

    def _greet(self, again: bool = False) -> None:
        """Learn the server's version: marks are trusted by it, reports show it."""
        if self._version is not None and not again:
            return
        try:
            answer, _ = self._ask(wire.STATUS, wire.StatusRequest())
        except SourceError as error:
            # A look-alike without Status, or a user who may not ask: it can still be followed.
            log.debug("version=unknown error=%r", str(error))
            self._version = ""
        else:
            self._version = str(answer.version)


class EtcdStream:
    """A watch: one gRPC stream with one watcher, and a thread that reads it into a bounded buffer.

    For one thread, except that `close` may come from any. Once over, for whatever reason, every
    further `receive` raises the same error again; after `close` that is Unavailable.
    """

    def __init__(
        self, connection: Connection, create: Any, *, after: int, marks: bool, buffer_bytes: int
    ) -> None:
        self._connection = connection
        self._after = after  # the caller knows, or was given, everything up to here
        self._marks_from = after  # a mark below is of no use; old servers send some at the start
        self._marks = marks
        self._items: deque[Batch | Progress] = deque()
        self._held: list[Event] = []  # of the revision whose last fragment is still to come
        self._error: BtreecacheError | None = None
        self._created = False
        self._closed = False
        self._reader = _Reader(connection, wire.WatchRequest(create_request=create), buffer_bytes)
        # A stream that is dropped unclosed must not leave its thread behind.
        weakref.finalize(self, self._reader.stop)

    def open(self) -> None:
        """Wait for etcd's answer that the watch exists; part of `EtcdSource.watch`."""
        timeout_s = self._connection.timeout_s
        deadline = time.monotonic() + timeout_s
        while not self._created and self._error is None:
            if not self._advance(deadline - time.monotonic()):
                raise self._connection.unavailable(f"no answer to a watch within {timeout_s:g} s")
        if self._error is not None:
            raise self._error

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        """See Stream."""
        if self._items and not self._closed:
            return self._items.popleft()
        deadline = time.monotonic() + timeout_s
        while not self._items or self._closed:
            if self._closed or self._error is not None:
                self._error = self._error or self._connection.unavailable("this watch was closed")
                raise self._error.with_traceback(None)
            if not self._advance(deadline - time.monotonic()):
                return None
        return self._items.popleft()

    def request_progress(self) -> bool:
        """See Stream. Also False when the stream is over."""
        if not self._marks or self._closed or self._error is not None:
            return False
        self._reader.send(wire.WatchRequest(progress_request=wire.WatchProgressRequest()))
        return True

    def close(self) -> None:
        """See Stream. Ends the call and its thread; a `receive` under way raises Unavailable."""
        self._closed = True
        self._reader.stop()
        self._reader.join()

    def _advance(self, timeout_s: float) -> bool:
        """Take in one response, or the end of them. False if nothing came in time."""
        item = self._reader.take(timeout_s)
        if item is None:
            return False
        if isinstance(item, BtreecacheError):
            self._error = item
        else:
            self._take_in(wire.WatchResponse.FromString(item))
        return True

    def _take_in(self, response: Any) -> None:
        if response.canceled:
            self._cancelled(response)
        elif response.events:
            self._group(response)
        elif response.created:
            self._created = True
        elif self._marks and response.header.revision >= self._marks_from and not self._held:
            # The header of a response WITH events is no mark: for a watcher that is behind it is
            # the store's revision, and events up to it are still to come.
            self._items.append(Progress(response.header.revision))

    def _group(self, response: Any) -> None:
        """Events into batches. A fragment's last revision waits for the rest of the response."""
        events, revision = self._held, self._after
        for wired in response.events:
            event, mod_revision = _event(wired)
            if mod_revision != revision:
                if events:
                    self._items.append(Batch(revision, tuple(events)))
                    events = []
                revision = mod_revision
            events.append(event)
        self._after = revision
        if response.fragment:
            self._held = events
        else:
            self._held = []
            self._items.append(Batch(revision, tuple(events)))

    def _cancelled(self, response: Any) -> None:
        """The server ended the watch: say why, and end the call."""
        reason = response.cancel_reason
        if response.compact_revision or COMPACTED_TEXT in reason:
            self._error = Compacted(self._after + 1, response.compact_revision)
            # etcd 3.5 keeps such a watcher until it is cancelled, and lets it swallow the progress
            # requests of its stream.
            cancel = wire.WatchCancelRequest(watch_id=response.watch_id)
            self._reader.send(wire.WatchRequest(cancel_request=cancel))
        elif not reason or "no leader" in reason:
            self._error = self._connection.unavailable(f"watch cancelled: {reason or 'no reason'}")
        else:
            self._error = self._connection.refused(f"watch cancelled: {reason}")
        self._reader.hang_up()


class _Reader:
    """The call of a stream, and the thread that reads it while there is room for the responses.

    A response is asked of gRPC only when less than `bytes_max` is held, so a stream that nobody
    reads costs that much and one response; then HTTP/2 flow control makes etcd wait. Responses are
    kept undecoded: the thread that uses them decodes them.
    """

    def __init__(self, connection: Connection, first: Any, bytes_max: int) -> None:
        self._connection = connection
        self._bytes_max = bytes_max
        self._requests: SimpleQueue[Any] = SimpleQueue()  # None: no more follow
        # A SimpleQueue hands over in C: a Condition here would double the cost of a live event.
        # The last item is the error that ended the stream.
        self._responses: SimpleQueue[bytes | BtreecacheError] = SimpleQueue()
        self._bytes_read = 0  # written by the thread only
        self._bytes_taken = 0  # written by the user only
        self._room = threading.Event()  # set after each take, and by stop
        self._stopped = False
        self.send(first)
        self._call = connection.stream(wire.WATCH, iter(self._requests.get, None))
        name = f"btreecache-etcd-{connection.address}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def bytes_held(self) -> int:
        return self._bytes_read - self._bytes_taken

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def hang_up(self) -> None:
        """Say that no more requests follow: the server takes in those sent, and ends the call."""
        self._requests.put(None)

    def take(self, timeout_s: float) -> bytes | BtreecacheError | None:
        """The next response, or what ended the stream, or None if there was neither in time."""
        try:
            item = self._responses.get(timeout_s > 0, timeout_s)
        except Empty:
            return None
        if isinstance(item, bytes):
            self._bytes_taken += len(item)
            self._room.set()
        return item

    def stop(self) -> None:
        """End the call. Idempotent, from any thread."""
        self._stopped = True
        self._room.set()
        self._finish(self._connection.unavailable("this watch was closed"))
        self._call.cancel()

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        cause: BtreecacheError = self._connection.unavailable("the server ended the watch")
        try:
            while self._wait_for_room():
                response = next(self._call)
                self._bytes_read += len(response)
                self._responses.put(response)
        except StopIteration:
            pass
        except self._connection.rpc_error as error:
            cause = self._connection.failure(error)
        finally:
            self._finish(cause)

    def _wait_for_room(self) -> bool:
        """False when the stream was stopped."""
        while self.bytes_held >= self._bytes_max and not self._stopped:
            self._room.clear()
            # Looked at again after the clear: what is taken from here on sets it.
            if self.bytes_held >= self._bytes_max and not self._stopped:
                self._room.wait()
        return not self._stopped

    def _finish(self, cause: BtreecacheError) -> None:
        self._responses.put(cause)
        self.hang_up()  # ends gRPC's thread that waits for requests to send


def _range(prefix: bytes, **fields: Any) -> Any:
    """A RangeRequest for every key with the prefix."""
    return wire.RangeRequest(key=prefix or b"\0", range_end=range_end(prefix), **fields)


#: Each field of a message is looked up by its name: one call in C for all costs the least.
_FIELDS = attrgetter("key", "value", "mod_revision", "create_revision", "version")


def _element(kv: Any) -> Element:
    return Element(*_FIELDS(kv))


def _event(event: Any) -> tuple[Event, int]:
    """The event, and the revision that it belongs to."""
    element = Element(*_FIELDS(event.kv))
    previous = _element(event.prev_kv) if event.HasField("prev_kv") else None
    return Event(element.key, None if event.type else element, previous), element.mod_revision
