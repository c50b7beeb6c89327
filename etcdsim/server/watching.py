"""The Watch service: streams of many watches, fed from the model.

A watch that keeps up gets the events of each revision into the outbox of its stream, as they are
written. The outbox is bounded: a client that doesn't read it in time leaves the watch behind, and
from then on the watch is only a position in the model's log, served in batches of whole revisions
until it has caught up. So an idle watch costs its entry in an index, and a stuck client no memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from etcdsim import wire
from etcdsim.errors import ErrCompacted, ErrDuplicateWatchID, ErrEmptyWatcherRange, EtcdError
from etcdsim.model import ALL, Event
from etcdsim.server.member import Call, Handlers, Member
from etcdsim.server.messages import fill_kv
from etcdsim.server.watch_index import WatchIndex

BATCH_REVISIONS = 1000  # etcd's watchBatchMaxRevs
OUTBOX_MAX = 128  # responses a stream holds back, as in etcd
OUTBOX_BYTES = 8 * 1024 * 1024  # and bytes of events
FRAGMENT_BYTES = 2 * 1024 * 1024  # etcd's --max-request-bytes and half a MiB for gRPC
_SCAN_REVISIONS = 5000  # looked through for one watch before others get a turn
_ANSWERS_MAX = 1000  # to requests of a client that doesn't read them; then it isn't read either
_NOBODY = -1  # the id of a watch that isn't there, and of all watches of a stream
_NOPUT, _NODELETE = 0, 1
#: By whether puts and whether deletes are wanted.
_KINDS = {
    (True, True): ("put", "delete"),
    (True, False): ("put",),
    (False, True): ("delete",),
    (False, False): (),
}


class _Written(NamedTuple):
    """What one revision means to all the watches that want the same of it: `events`, encoded
    once. A response is its own head before them."""

    revision: int
    events: bytes


def watch_handlers(member: Member) -> Handlers:
    """What answers the method of Watch."""
    return {wire.WATCH: WatchHub(member).watch}


class _Watch:
    """One watch of a stream. `next_revision`: with `is_behind`, where it is in the model's log;
    else the first revision that it wants."""

    __slots__ = (
        "fragment",
        "had_events",
        "is_behind",
        "is_compacted",
        "key",
        "kinds",
        "next_revision",
        "notify",
        "prev_kv",
        "queued",
        "range_end",
        "start_revision",
        "stream",
        "watch_id",
    )

    def __init__(self, stream: WatchStream, request: Any, watch_id: int, current: int) -> None:
        self.stream = stream
        self.watch_id = watch_id
        self.key, self.range_end = _range_of(request)
        self.start_revision = request.start_revision
        self.next_revision = request.start_revision or current + 1
        self.is_behind = self.next_revision <= current
        self.is_compacted = False
        self.kinds = _KINDS[_NOPUT not in request.filters, _NODELETE not in request.filters]
        self.prev_kv, self.fragment = request.prev_kv, request.fragment
        self.notify = request.progress_notify
        self.had_events = False  # since the last tick
        self.queued = 0  # of its responses in the outbox

    def is_synced_at(self, revision: int) -> bool:
        """Whether all its events up to `revision` are sent or in the outbox."""
        return not (self.is_behind or self.is_compacted or self.start_revision > revision)


def _range_of(request: Any) -> tuple[bytes, bytes]:
    return request.key or ALL, request.range_end


class WatchHub:
    """Every watch of a member. It follows the model: one entry per watch in an index of ranges, so
    a revision wakes only those that it concerns. One event loop."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.index: WatchIndex[_Watch] = WatchIndex()
        self.revision = member.model.revision  # up to here everything is handed out
        self.marks_at_once = not wire.marks_are_safe(member.version_text)
        self.streams: dict[WatchStream, None] = {}
        member.subscribe(self._follow)

    async def watch(self, call: Call) -> None:
        """Serve one stream until it is cancelled. That the client sends no more doesn't end it."""
        stream = WatchStream(self, call)
        reader = asyncio.ensure_future(stream.read())
        reader.add_done_callback(stream.woken_by)
        self.streams[stream] = None
        try:
            await stream.serve(reader)
        finally:
            del self.streams[stream]
            reader.cancel()
            stream.close()

    def _follow(self) -> None:
        model = self.member.model
        if self.revision + 1 < model.compact_revision:
            for stream in self.streams:  # somebody wrote and compacted without telling in between
                stream.fall_behind(self.revision + 1)
        for revision in range(self.revision + 1, model.revision + 1):
            if revision >= model.compact_revision:
                self._hand_out(revision)
        self.revision = model.revision

    def _hand_out(self, revision: int) -> None:
        records = self.member.model.records_at(revision)
        shared: dict[tuple[object, ...], _Written | None] = {}
        for watch in dict.fromkeys(watch for kv in records for watch in self.index.at(kv.key)):
            if watch.is_behind or watch.next_revision > revision:
                continue
            wants = watch.key, watch.range_end, watch.kinds, watch.prev_kv
            if wants not in shared:
                events = self.events_at(watch, revision)
                shared[wants] = _Written(revision, _encoded(events)) if events else None
            watch.stream.hand_out(watch, revision, shared[wants])

    def events_at(self, watch: _Watch, revision: int) -> tuple[Event, ...]:
        """What a watch wants of a revision. Raises as `Model.events_at`."""
        events = self.member.model.events_at(revision, watch.key, watch.range_end, watch.prev_kv)
        if len(watch.kinds) == 2:
            return events
        return tuple(event for event in events if event.kind in watch.kinds)


class WatchStream:
    """The watches of one call, and what is on its way to its client."""

    def __init__(self, hub: WatchHub, call: Call) -> None:
        self._hub, self._member, self._call = hub, hub.member, call
        self._watches: dict[int, _Watch] = {}
        self._next_id = 0
        self._outbox: deque[tuple[_Watch | None, Any]] = deque()
        self._held_bytes = 0  # of the events in it
        self._behind: dict[_Watch, None] = {}
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None

    def woken_by(self, reader: asyncio.Future[None]) -> None:
        if not reader.cancelled():
            reader.exception()  # `serve` raises it, unless the stream ends before
        self._work.set()

    def close(self) -> None:
        """Forget every watch."""
        if self._tick is not None:
            self._tick.cancel()
        for watch in self._watches.values():
            self._hub.index.discard(watch.key, watch.range_end, watch)
        self._watches.clear()
        self._behind.clear()
        self._outbox.clear()
        self._held_bytes = 0

    # What the client asks

    async def read(self) -> None:
        """Do what the client asks, until it asks no more."""
        while (request := await self._call.read()) is not None:
            match request.WhichOneof("request_union"):
                case "create_request":
                    self._create(request.create_request)
                case "cancel_request":
                    self._cancel(request.cancel_request.watch_id)
                case "progress_request":
                    self._mark_all()
            while len(self._outbox) > _ANSWERS_MAX:
                self._room.clear()
                await self._room.wait()

    def _create(self, request: Any) -> None:
        try:
            watch_id = self._id_of(request)
        except EtcdError as error:
            self._send(
                None,
                watch_id=_NOBODY,
                created=True,
                canceled=True,
                cancel_reason=_reason(error),
            )
            return
        watch = _Watch(self, request, watch_id, self._hub.revision)
        self._watches[watch_id] = watch
        self._hub.index.add(watch.key, watch.range_end, watch)
        self._send(watch, watch_id=watch_id, created=True)
        if watch.is_behind:
            self._behind[watch] = None
        if watch.notify and self._tick is None:
            self._plan_tick()

    def _id_of(self, request: Any) -> int:
        """The id for a new watch; raises the reason why there can't be one."""
        # From 3.5 on; 3.4 takes it for a start that is compacted away.
        if request.start_revision < 0 and self._member.version >= (3, 5):
            raise ErrCompacted
        self._member.permit(wire.WATCH, request, self._call.metadata)
        key, range_end = _range_of(request)
        if range_end and range_end != ALL and range_end <= key:
            raise ErrEmptyWatcherRange
        watch_id = int(request.watch_id)
        if watch_id in self._watches and watch_id:
            raise ErrDuplicateWatchID
        if not watch_id:
            while self._next_id in self._watches:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        return watch_id

    def _cancel(self, watch_id: int) -> None:
        watch = self._watches.pop(watch_id, None)
        if watch is None:
            return
        self._hub.index.discard(watch.key, watch.range_end, watch)
        self._behind.pop(watch, None)
        if watch.queued:  # nothing comes behind the answer to a cancel
            stay = [item for item in self._outbox if item[0] is not watch or _is_created(item[1])]
            self._outbox = deque(stay)
            self._held_bytes = sum(_held(item) for _, item in stay)
        self._send(None, watch_id=watch_id, canceled=True)

    def _mark_all(self) -> None:
        # Before 3.4.31 and 3.5.13 etcd answers at once, and so a mark may overtake events.
        revision = self._hub.revision
        synced = self._watches and all(
            watch.is_synced_at(revision) for watch in self._watches.values()
        )
        if (synced or self._hub.marks_at_once) and len(self._outbox) < OUTBOX_MAX:
            self._send(None, watch_id=_NOBODY)

    # What is sent

    def _send(self, watch: _Watch | None, revision: int | None = None, **fields: Any) -> None:
        if revision is None:
            revision = self._hub.revision
        response = wire.WatchResponse(header=self._member.header(revision), **fields)
        self._push(watch, response)

    def _push(self, watch: _Watch | None, item: Any) -> None:
        self._outbox.append((watch, item))
        self._held_bytes += _held(item)
        if watch is not None:
            watch.queued += 1
        self._work.set()

    def hand_out(self, watch: _Watch, revision: int, written: _Written | None) -> None:
        """The events of a new revision for a watch that is up to date; if there is no room for
        them the watch falls behind."""
        if len(self._outbox) < OUTBOX_MAX and self._held_bytes < OUTBOX_BYTES:
            watch.next_revision = revision + 1
            if written is not None:
                self._push(watch, written)
        else:
            watch.is_behind, watch.next_revision = True, revision
            self._behind[watch] = None
            self._work.set()

    def fall_behind(self, revision: int) -> None:
        """Let every watch that is up to date be served from the log, from `revision` on."""
        for watch in self._watches.values():
            if watch.is_synced_at(revision):
                watch.is_behind, watch.next_revision = True, revision
                self._behind[watch] = None
        self._work.set()

    def _plan_tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick = loop.call_later(self._member.progress_notify_interval_s, self._notify)

    def _notify(self) -> None:
        revision = self._hub.revision
        for watch in self._watches.values():
            # A mark that nobody took yet says as much as one more would.
            if watch.notify and not watch.had_events and not watch.queued:
                early = watch.start_revision > revision and not self._hub.marks_at_once
                if not (watch.is_behind or watch.is_compacted or early):
                    self._send(watch, watch_id=watch.watch_id)
            watch.had_events = False
        self._plan_tick()

    async def serve(self, reader: asyncio.Future[None]) -> None:
        """Send what there is to send, until cancelled; raises what reading raises."""
        while True:
            if reader.done():
                reader.result()
            for _ in range(len(self._outbox)):
                await self._send_next()
            for watch in tuple(self._behind):
                # What it has in the outbox goes first. The client may have cancelled it meanwhile.
                if watch in self._behind and not watch.queued:
                    await self._catch_up(watch)
            if self._behind:
                await asyncio.sleep(0)
            elif not self._outbox:
                self._work.clear()
                await self._work.wait()

    async def _send_next(self) -> None:
        if not self._outbox:  # a cancel took what was in it
            return
        watch, item = self._take()
        if not isinstance(item, _Written):
            await self._call.write(item)
            return
        assert watch is not None
        # Whoever is slow gets what has come up meanwhile in one response: the fewer there are, the
        # sooner it has caught up.
        events, size = [item.events], len(item.events)
        while self._outbox and self._outbox[0][0] is watch and size < FRAGMENT_BYTES:
            if not isinstance(self._outbox[0][1], _Written):
                break
            _, item = self._take()
            events.append(item.events)
            size += len(item.events)
        await self._send_events(watch, item.revision, b"".join(events))

    def _take(self) -> tuple[_Watch | None, Any]:
        watch, item = self._outbox.popleft()
        self._held_bytes -= _held(item)
        self._room.set()
        if watch is not None:
            watch.queued -= 1
        return watch, item

    async def _catch_up(self, watch: _Watch) -> None:
        """One batch of whole revisions to a watch that is behind, or its end."""
        model = self._member.model
        if watch.next_revision < model.compact_revision:
            del self._behind[watch]
            # It keeps its id until the client cancels it, and lets no mark pass until then.
            watch.is_behind, watch.is_compacted = False, True
            self._hub.index.discard(watch.key, watch.range_end, watch)
            self._send(
                watch,
                revision=0,
                watch_id=watch.watch_id,
                canceled=True,
                compact_revision=model.compact_revision,
            )
            return
        current = self._hub.revision
        events = self._batch(watch, current)
        if watch.next_revision > current:
            watch.is_behind = False
            del self._behind[watch]
        if events:
            await self._send_events(watch, current, _encoded(events))

    def _batch(self, watch: _Watch, current: int) -> list[Event]:
        events: list[Event] = []
        revisions = size = 0
        start = max(watch.next_revision, 1)
        stop = min(current + 1, start + _SCAN_REVISIONS)
        for revision in range(start, stop):
            watch.next_revision = revision + 1
            found = self._hub.events_at(watch, revision)
            if found:
                events += found
                revisions += 1
                size += sum(map(_size, found))
                if revisions == BATCH_REVISIONS or size >= FRAGMENT_BYTES:
                    break
        return events

    async def _send_events(self, watch: _Watch, revision: int, events: bytes) -> None:
        watch.had_events = True
        head = wire.WatchResponse(header=self._member.header(revision), watch_id=watch.watch_id)
        data = head.SerializeToString() + events
        if not watch.fragment or len(data) < FRAGMENT_BYTES:
            await self._call.write(data)
            return
        for part in fragments(wire.WatchResponse.FromString(data), FRAGMENT_BYTES):
            await self._call.write(part)


def _reason(error: EtcdError) -> str:
    """Why there is no watch; who may not have one is told as Go prints a status."""
    if isinstance(error, (ErrCompacted, ErrEmptyWatcherRange, ErrDuplicateWatchID)):
        return error.text
    code = error.code_name.title().replace("_", "")
    return f"rpc error: code = {code} desc = {error.text}"


def _is_created(item: Any) -> bool:
    return not isinstance(item, _Written) and bool(item.created)


def _held(item: Any) -> int:
    return len(item.events) if isinstance(item, _Written) else 0


def _size(event: Event) -> int:
    before = event.prev_kv
    return len(event.kv.key) + len(event.kv.value) + (len(before.value) if before else 0)


def _encoded(events: Iterable[Event]) -> bytes:
    """The `events` of a WatchResponse, as a part of its bytes."""
    response = wire.WatchResponse()
    for event in events:
        message = response.events.add()
        if event.kind == "delete":
            message.type = wire.Event.DELETE
        fill_kv(message.kv, event.kv)
        if event.prev_kv is not None:
            fill_kv(message.prev_kv, event.prev_kv)
    return bytes(response.SerializeToString())


def fragments(response: Any, bytes_max: int) -> list[Any]:
    """A WatchResponse in parts below `bytes_max`, each with one event at least; all but the last
    say that there are more. One that is small enough, or has one event, stays whole."""
    if response.ByteSize() < bytes_max or len(response.events) < 2:
        return [response]
    head = wire.WatchResponse(header=response.header, watch_id=response.watch_id, fragment=True)
    parts: list[Any] = []
    part, size = None, 0
    for event in response.events:
        grown = _embedded(event.ByteSize())
        if part is None or size + grown >= bytes_max:
            part = wire.WatchResponse()
            part.CopyFrom(head)
            parts.append(part)
            size = part.ByteSize()
        part.events.append(event)
        size += grown
    parts[-1].fragment = False
    return parts


def _embedded(size: int) -> int:
    """The bytes of a message of `size` as a field of another: a tag and its length come first."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size
