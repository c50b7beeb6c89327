"""Record from a real etcd: seeded random traffic of several clients, and what they got.

Everything happens below a key prefix of the recording's own, which must be empty and is emptied at
the end. Each client writes transactions, and watches, asks for progress and cancels on one stream
of its own; what a client draws is the seed's, how it all falls together is the server's. The truth
is what the acknowledged transactions come to, so no watch has to be trusted.

Before 3.4.31, and in 3.5.0 to 3.5.12, a progress mark may overtake events (etcd issue 15220). Such
a server is not asked for any, unless `marks` says so: the trace would rightly be broken. For the
same reason compactions, which are off unless asked for, since they are the whole store's, are at
revisions that deleted nothing: before 3.4.33 and 3.5.15 etcd loses deletes there (18089).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from etcdsim import wire
from etcdsim.calls import Calls, operation
from etcdsim.model import Event, KeyValue, prefix_range
from etcdsim.prng import Prng
from etcdsim.record import RecordError
from etcdsim.trace import (
    Compaction,
    Origin,
    Response,
    Trace,
    WatchRequest,
    WatchTrace,
    Write,
)
from etcdsim.txn import DeleteRange, Put

DRAIN_TIMEOUT_S = 10.0
WATCHES_OPEN_MAX = 4  # of one client at a time
GROUPS, KEYS = 3, 8  # the keys written: so many groups of so many
OPS_MAX = 4  # of one transaction


@dataclass(slots=True)
class _Watch:
    """One watch as its stream's reader fills it."""

    client: int
    request: WatchRequest
    responses: list[Response] = field(default_factory=list)
    is_open: bool = True
    is_leaving: bool = False  # the server was asked to cancel it

    def seen(self) -> int:
        """The last revision that it got an event of."""
        for response in reversed(self.responses):
            if response.events:
                return response.events[-1].kv.mod_revision
        return 0


class _Client:
    """One connection: calls, and one watch stream with a thread that reads it."""

    def __init__(self, number: int, endpoint: str) -> None:
        self.number = number
        self._calls = Calls(endpoint)
        self.ask = self._calls.ask
        self.changed = threading.Condition()
        self.watches: dict[int, _Watch] = {}  # by watch id, which starts at 1
        self._requests: SimpleQueue[Any] = SimpleQueue()
        call = self._calls.channel.stream_stream(
            wire.WATCH.path,
            request_serializer=wire.WATCH.request.SerializeToString,
            response_deserializer=wire.WATCH.response.FromString,
        )
        self._call = call(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name=f"etcdsim watch {number}")
        self._reader.start()

    def stop(self) -> None:
        """End the watch stream: nothing more is recorded. Idempotent."""
        self._requests.put(None)
        self._call.cancel()
        self._reader.join()

    def close(self) -> None:
        self.stop()
        self._calls.channel.close()

    def watch(self, request: WatchRequest) -> None:
        watch_id = len(self.watches) + 1
        with self.changed:
            self.watches[watch_id] = _Watch(self.number, request)
        create = wire.WatchCreateRequest(
            key=request.key,
            range_end=request.range_end,
            start_revision=request.start_revision,
            prev_kv=request.prev_kv,
            progress_notify=request.progress_notify,
            filters=[["noput", "nodelete"].index(name) for name in request.filters],
            watch_id=watch_id,
        )
        self._requests.put(wire.WatchRequest(create_request=create))

    def cancel(self, watch_id: int) -> None:
        with self.changed:
            self.watches[watch_id].is_leaving = True
        request = wire.WatchCancelRequest(watch_id=watch_id)
        self._requests.put(wire.WatchRequest(cancel_request=request))

    def request_progress(self) -> None:
        request = wire.WatchRequest(progress_request=wire.WatchProgressRequest())
        self._requests.put(request)

    def open_watches(self) -> dict[int, _Watch]:
        with self.changed:
            return {number: watch for number, watch in self.watches.items() if watch.is_open}

    def _read(self) -> None:
        try:
            for response in self._call:
                with self.changed:
                    self._take(response)
                    self.changed.notify_all()
        except self._calls.error:
            return  # closed, or the server went away: what is there is the trace

    def _take(self, answer: Any) -> None:
        revision = answer.header.revision
        if answer.watch_id == -1:
            # A mark for all the watches of the stream. In etcd the answer to a creation goes
            # another way and may overtake it: one that isn't newer may be older than the watch. So
            # may it overtake the answer to a cancellation: it speaks of the watches that are left.
            for watch in self.watches.values():
                told = watch.is_open and not watch.is_leaving and watch.responses
                if told and revision > watch.responses[0].header_revision:
                    watch.responses.append(Response("progress", revision))
            return
        watch = self.watches[answer.watch_id]
        if answer.created:
            watch.responses.append(Response("created", revision))
        elif answer.events:
            events = tuple(map(_event, answer.events))
            watch.responses.append(Response("events", revision, events, answer.fragment))
        elif not answer.canceled:
            watch.responses.append(Response("progress", revision))
        if answer.canceled and watch.is_open:  # one that was told so afterwards says it once more
            watch.is_open = False
            compacted = answer.compact_revision
            watch.responses.append(Response("canceled", compact_revision=compacted))
            if compacted:
                # Until it is told, etcd 3.5 keeps it registered and answers no progress request.
                self.cancel(answer.watch_id)


def _kv(kv: Any) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version)


def _event(event: Any) -> Event:
    previous = _kv(event.prev_kv) if event.HasField("prev_kv") else None
    return Event("delete" if event.type else "put", _kv(event.kv), previous)


class _Traffic:
    """What one client does, step by step. Thread: the client's own."""

    def __init__(
        self, client: _Client, prng: Prng, prefix: bytes, revision: int, *, marks: bool,
        compact: bool,
    ) -> None:  # fmt: skip
        self._client, self._prng, self._prefix = client, prng, prefix
        self._first = self._revision = revision  # of the store, as far as this client knows
        self._marks, self._compact = marks, compact
        self._put_only: list[int] = []  # revisions of its own at which nothing was deleted
        self.writes: list[Write] = []
        self.compactions: list[Compaction] = []

    def step(self) -> None:
        drawn = self._prng.below(100)
        if drawn < 70:
            self.write(self._ops())
        elif drawn < 85:
            self._watch()
        elif drawn < 90:
            watches = list(self._client.open_watches())
            if len(watches) > 1:
                self._client.cancel(self._prng.choice(watches))
        elif drawn < 97:
            if self._marks:
                self._client.request_progress()
        elif self._compact and self._put_only:
            self._compact_at(self._prng.choice(self._put_only))

    def _key(self) -> bytes:
        group, number = self._prng.below(GROUPS), self._prng.below(KEYS)
        return self._prefix + b"%c/%d" % (97 + group, number)

    def _ops(self) -> tuple[Put | DeleteRange, ...]:
        if self._prng.chance(0.1):
            key = self._key()
            return (DeleteRange(*prefix_range(key[:-1])),)  # a whole group
        keys = {self._key(): None for _ in range(1 + self._prng.below(OPS_MAX))}
        return tuple(
            DeleteRange(key) if self._prng.chance(0.25) else Put(key, self._prng.bytes(6))
            for key in keys
        )

    def write(self, ops: tuple[Put | DeleteRange, ...]) -> int | None:
        """One transaction -> its revision; None if there is none."""
        request = wire.TxnRequest(success=[operation(op) for op in ops])
        answer = self._client.ask(wire.TXN, request)
        if answer is None:
            self.writes.append(Write(self._client.number, ops, (), None))
            return None
        self._revision = int(answer.header.revision)
        deleted = tuple(
            int(done.response_delete_range.deleted) if done.HasField("response_delete_range") else 0
            for done in answer.responses
        )
        self.writes.append(Write(self._client.number, ops, deleted, self._revision))
        if not any(deleted) and any(isinstance(op, Put) for op in ops):
            self._put_only.append(self._revision)
        return self._revision

    def _watch(self) -> None:
        if len(self._client.open_watches()) >= WATCHES_OPEN_MAX:
            return
        prng, key = self._prng, self._key()
        cut = prng.below(4)
        range_end = b""
        if cut:  # everything, a group, or the key as a prefix
            key, range_end = prefix_range((self._prefix, key[:-1], key)[cut - 1])
        start = 0
        if prng.chance(0.7):
            start = self._first + 1 + prng.below(self._revision + 3 - self._first)
        filters = ("noput",) if prng.chance(0.1) else ("nodelete",) if prng.chance(0.1) else ()
        self._client.watch(
            WatchRequest(key, range_end, start, prng.chance(0.5), prng.chance(0.3), filters)
        )

    def _compact_at(self, revision: int) -> None:
        request = wire.CompactionRequest(revision=revision)
        if self._client.ask(wire.COMPACT, request) is not None:  # else someone was ahead
            self.compactions.append(Compaction(self._client.number, revision))


def record_etcd(
    endpoint: str,
    duration_s: float,
    *,
    clients: int,
    seed: int,
    clock: Callable[[], float],
    compact: bool = False,
    marks: bool | None = None,
) -> Trace:
    """Traffic of `clients` for `duration_s`, then wait until every watch has seen its end.

    compact  compact the store now and then
    marks    ask for progress; None: if the version's marks can be trusted

    Raises RecordError in one line: no grpcio, no etcd there, the prefix isn't empty, or it went
    away. A write that isn't answered is no error: the trace says so.
    """
    opened: list[_Client] = []
    try:
        for number in range(clients):
            opened.append(_Client(number, endpoint))
        return _record(opened, duration_s, seed, clock, compact=compact, marks=marks)
    finally:
        for client in opened:
            client.close()


def _read_all(client: _Client, prefix: bytes) -> tuple[tuple[KeyValue, ...], int]:
    key, range_end = prefix_range(prefix)
    answer = client.ask(wire.RANGE, wire.RangeRequest(key=key, range_end=range_end))
    if answer is None:
        raise RecordError("the etcd answers no more")
    return tuple(map(_kv, answer.kvs)), int(answer.header.revision)


def _record(
    clients: list[_Client],
    duration_s: float,
    seed: int,
    clock: Callable[[], float],
    *,
    compact: bool,
    marks: bool | None,
) -> Trace:
    status = clients[0].ask(wire.STATUS, wire.StatusRequest())
    if status is None:
        raise RecordError("the etcd answers no more")
    if marks is None:
        marks = wire.marks_are_safe(status.version)
    first = int(status.header.revision)
    prefix = b"etcdsim/record/%d/%d/" % (seed, first)
    there, first = _read_all(clients[0], prefix)
    if there:
        raise RecordError(f"there are keys below {prefix.decode()} already")
    prng = Prng(seed).fork("record etcd")
    traffic = [
        _Traffic(
            client, prng.fork(f"client {client.number}"), prefix, first, marks=marks,
            compact=compact,
        )
        for client in clients
    ]  # fmt: skip
    _run(traffic, clock() + duration_s, clock)
    _finish(clients, traffic[0], marks=marks)
    for client in clients:
        client.stop()
    final, end = _read_all(clients[0], prefix)
    key, range_end = prefix_range(prefix)
    clients[0].ask(wire.DELETE_RANGE, wire.DeleteRangeRequest(key=key, range_end=range_end))
    writes = sorted(
        (write for one in traffic for write in one.writes),
        key=lambda write: (write.revision is None, write.revision or 0, not any(write.deleted)),
    )
    compactions = sorted(
        (done for one in traffic for done in one.compactions), key=lambda done: done.revision
    )
    watches = tuple(
        WatchTrace(watch.client, watch.request, tuple(watch.responses))
        for client in clients
        for watch in client.watches.values()
    )
    header = Origin(
        "etcd", "transactions", status.version, seed=seed, clients=len(clients), prefix=prefix,
        first_revision=first,
    )  # fmt: skip
    return Trace(header, watches, end, (), tuple(writes), tuple(compactions), final)


def _run(traffic: list[_Traffic], deadline: float, clock: Callable[[], float]) -> None:
    stopping = threading.Event()

    def loop(one: _Traffic) -> None:
        while clock() < deadline and not stopping.is_set():
            one.step()

    threads = [threading.Thread(target=loop, args=(one,)) for one in traffic]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:  # also when interrupted
        stopping.set()
        for thread in threads:
            thread.join()


def _finish(clients: list[_Client], traffic: _Traffic, *, marks: bool) -> None:
    """A last event for every open watch, wait until each has it, and then a last mark."""
    watches = [watch for client in clients for watch in client.open_watches().values()]
    start_max = max((watch.request.start_revision for watch in watches), default=0)
    last: dict[tuple[bytes, str], int] = {}
    for key in sorted({watch.request.key for watch in watches}):
        revision: int | None = 0
        while revision is not None and revision <= start_max:
            revision = traffic.write((Put(key, b"last"),))
        last[key, "put"] = revision or 0
        last[key, "delete"] = traffic.write((DeleteRange(key),)) or 0
    for client in clients:
        for watch in client.open_watches().values():
            kind = "put" if "nodelete" in watch.request.filters else "delete"
            wanted = last.get((watch.request.key, kind), 0)
            with client.changed:
                client.changed.wait_for(lambda: _has_seen(watch, wanted), DRAIN_TIMEOUT_S)  # noqa: B023
        if marks and client.open_watches():
            client.request_progress()
            with client.changed:
                client.changed.wait_for(lambda: _has_marks(client), 0.2)  # noqa: B023


def _has_seen(watch: _Watch, revision: int) -> bool:
    return not watch.is_open or watch.seen() >= revision


def _has_marks(client: _Client) -> bool:
    return any(
        watch.is_open and watch.responses and watch.responses[-1].kind == "progress"
        for watch in client.watches.values()
    )
