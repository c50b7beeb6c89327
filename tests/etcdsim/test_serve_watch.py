"""The Watch service of etcdsim, over gRPC on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pytest

from etcdsim import wire
from etcdsim.server.watching import OUTBOX_MAX, WatchStream, fragments
from tests.etcdsim.served import Client, Conversation, Served, client


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def etcd(served: Served) -> Iterator[Client]:
    with client(served.endpoint) as etcd:
        yield etcd


@pytest.fixture
def stream(etcd: Client) -> Iterator[Conversation]:
    conversation = etcd.stream()
    yield conversation
    conversation.close()


def said(response: Any) -> str:
    """A response as text, without the ids of its header."""
    header = wire.ResponseHeader(revision=response.header.revision)
    response.header.CopyFrom(header)
    return " ".join(str(response).split())


def keys(response: Any) -> list[tuple[bytes, int]]:
    return [(event.kv.key, event.kv.mod_revision) for event in response.events]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_are_those_of_the_recorded_server(etcd: Client, stream: Conversation) -> None:
    """The conversation of `probe-3.5.30.txt` in small."""
    stream.create(b"w", b"x")
    assert said(stream.next()) == "header { revision: 1 } created: true"
    etcd.put(b"w1", b"1")
    assert said(stream.next()) == (
        'header { revision: 2 } events { kv { key: "w1" create_revision: 2 mod_revision: 2'
        ' version: 1 value: "1" } }'
    )
    etcd.delete(b"w1")
    assert said(stream.next()) == (
        'header { revision: 3 } events { type: DELETE kv { key: "w1" mod_revision: 3 } }'
    )
    puts = [
        wire.RequestOp(request_put=wire.PutRequest(key=key, value=b"x"))
        for key in (b"w1", b"w2", b"y")
    ]
    etcd.ask(wire.TXN, success=puts)
    assert keys(stream.next()) == [(b"w1", 4), (b"w2", 4)]
    etcd.compact(3)
    stream.create(b"w", b"x", start_revision=2)
    assert said(stream.next()) == "header { revision: 4 } watch_id: 1 created: true"
    assert said(stream.next()) == ("header { } watch_id: 1 canceled: true compact_revision: 3")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"start_revision": -1}, "etcdserver: mvcc: required revision has been compacted"),
        ({"range_end": b"a"}, "mvcc: watcher range is empty"),
        ({"range_end": b"b"}, "mvcc: watcher range is empty"),
        ({"watch_id": 7}, "mvcc: duplicate watch ID provided on the WatchStream"),
        # Which of two reasons is given; measured on 3.5.30.
        (
            {"range_end": b"a", "start_revision": -1},
            "etcdserver: mvcc: required revision has been compacted",
        ),
        ({"range_end": b"a", "watch_id": 7}, "mvcc: watcher range is empty"),
    ],
)
def test_a_watch_that_cannot_be(stream: Conversation, fields: Any, reason: str) -> None:
    stream.create(b"a", watch_id=7)
    stream.next()
    stream.create(**{"key": b"b", **fields})
    assert said(stream.next()) == (
        "header { revision: 1 } watch_id: -1 created: true canceled: true "
        f'cancel_reason: "{reason}"'
    )
    stream.create(b"b")  # and the stream goes on
    assert said(stream.next()) == "header { revision: 1 } created: true"


def test_ids(stream: Conversation) -> None:
    """Auto ids count from 0 and pass over those in use; negative ones are ids as any."""
    for watch_id in (1, 0, 0, -1, -5, 0):
        stream.create(b"a", watch_id=watch_id)
    assert [stream.next().watch_id for _ in range(6)] == [1, 0, 2, -1, -5, 3]
    stream.cancel_watch(99)
    stream.send(wire.WatchRequest())
    stream.cancel_watch(-5)
    assert said(stream.next()) == "header { revision: 1 } watch_id: -5 canceled: true"


def test_a_negative_start_in_3_4() -> None:
    with Served("3.4.23") as served, client(served.endpoint) as etcd:
        for value in range(4):
            etcd.put(b"a", b"%d" % value)
        etcd.compact(3)
        stream = etcd.stream()
        stream.create(b"a", start_revision=-1)
        assert said(stream.next()) == "header { revision: 5 } created: true"
        assert said(stream.next()) == "header { } canceled: true compact_revision: 3"
        stream.close()


def test_the_empty_key_is_the_smallest(etcd: Client, stream: Conversation) -> None:
    stream.create(b"")
    stream.create(b"", b"\0")
    stream.next(), stream.next()
    etcd.put(b"z", b"")
    assert (response := stream.next()).watch_id == 1
    etcd.put(b"\0", b"")
    assert {stream.next().watch_id, stream.next().watch_id} == {0, 1}
    assert keys(response) == [(b"z", 2)]


def test_filters_and_prev_kv(etcd: Client, stream: Conversation) -> None:
    etcd.put(b"a", b"0")
    stream.create(b"a", filters=["NOPUT"], prev_kv=True)
    stream.create(b"a", filters=["NODELETE"], prev_kv=True)
    stream.create(b"a", filters=["NOPUT", "NODELETE"])
    stream.send(
        wire.WatchRequest(create_request=wire.WatchCreateRequest(key=b"a", filters=[7])),
    )
    for _ in range(4):
        stream.next()
    etcd.put(b"a", b"1")
    got = {(response := stream.next()).watch_id: response for _ in range(2)}
    assert got.keys() == {1, 3}
    assert got[1].events[0].prev_kv.value == b"0"
    assert not got[3].events[0].HasField("prev_kv")
    etcd.delete(b"a")
    got = {(response := stream.next()).watch_id: response for _ in range(2)}
    assert got.keys() == {0, 3}
    assert got[0].events[0].prev_kv.version == 2
    etcd.put(b"a", b"2")
    got = {(response := stream.next()).watch_id: response for _ in range(2)}
    assert not got[1].events[0].HasField("prev_kv")  # a create
    assert stream.nothing()


def test_history_then_live_and_future(etcd: Client, stream: Conversation) -> None:
    for _ in range(3):
        etcd.put(b"a", b"")
    stream.create(b"a", start_revision=3)
    assert stream.next().created
    assert keys(stream.next()) == [(b"a", 3), (b"a", 4)]
    stream.create(b"a", start_revision=6)
    assert said(stream.next()) == "header { revision: 4 } watch_id: 1 created: true"
    etcd.put(b"a", b"")
    assert keys(stream.next()) == [(b"a", 5)]
    etcd.put(b"a", b"")
    assert {stream.next().watch_id, stream.next().watch_id} == {0, 1}
    assert stream.nothing()


def test_batches_hold_1000_whole_revisions(
    served: Served, etcd: Client, stream: Conversation
) -> None:
    def write() -> None:
        for number in range(2500):
            served.member.model.put(b"a%d" % (number % 7), b"")
        served.member.tell()

    served.do(write)
    stream.create(b"a", b"b", start_revision=1)
    assert stream.next().created
    batches = [stream.next() for _ in range(3)]
    assert [len(batch.events) for batch in batches] == [1000, 1000, 500]
    assert {batch.header.revision for batch in batches} == {2501}
    revisions = [event.kv.mod_revision for batch in batches for event in batch.events]
    assert revisions == list(range(2, 2502))


def test_progress_on_request(etcd: Client, stream: Conversation) -> None:
    """3.5.30: nothing without watches, nothing below a start, nothing while one is compacted."""
    stream.ask_progress()
    assert stream.nothing()
    stream.create(b"a")
    stream.next()
    stream.ask_progress()
    assert said(stream.next()) == "header { revision: 1 } watch_id: -1"
    stream.create(b"a", start_revision=9)
    stream.next()
    stream.ask_progress()
    assert stream.nothing()
    stream.cancel_watch(1)
    assert stream.next().canceled
    for _ in range(4):
        etcd.put(b"b", b"")
    etcd.compact(4)
    stream.create(b"a", start_revision=2)
    assert stream.next().created
    assert stream.next().compact_revision == 4
    stream.ask_progress()
    assert stream.nothing()
    stream.cancel_watch(2)
    assert said(stream.next()) == "header { revision: 5 } watch_id: 2 canceled: true"
    etcd.put(b"a", b"")
    stream.ask_progress()
    assert stream.next().events
    assert said(stream.next()) == "header { revision: 6 } watch_id: -1"


def test_progress_on_request_in_3_4_23() -> None:
    with Served("3.4.23") as served, client(served.endpoint) as etcd:
        stream = etcd.stream()
        stream.ask_progress()
        assert said(stream.next()) == "header { revision: 1 } watch_id: -1"
        stream.create(b"a", start_revision=9)
        stream.next()
        stream.ask_progress()
        assert said(stream.next()) == "header { revision: 1 } watch_id: -1"
        stream.close()


def test_progress_notify() -> None:
    with Served(progress_notify_interval_s=0.1) as served, client(served.endpoint) as etcd:
        stream = etcd.stream()
        stream.create(b"a", progress_notify=True)
        stream.create(b"a", progress_notify=True, start_revision=9)
        stream.create(b"a")
        for _ in range(3):
            stream.next()
        assert said(stream.next()) == "header { revision: 1 }"
        etcd.put(b"b", b"")
        while (response := stream.next()).header.revision == 1:
            assert response.watch_id == 0
        assert said(response) == "header { revision: 2 }"
        stream.close()


def test_cancel_ends_it(served: Served, etcd: Client, stream: Conversation) -> None:
    stream.create(b"a")
    stream.next()
    etcd.put(b"a", b"")
    assert stream.next().events
    stream.cancel_watch(0)
    assert stream.next().canceled
    etcd.put(b"a", b"")
    assert stream.nothing()
    stream.create(b"a")  # ids of auto aren't used again
    assert stream.next().watch_id == 1


def test_a_half_closed_stream_goes_on(etcd: Client, stream: Conversation) -> None:
    """As on 3.5.30."""
    stream.create(b"a")
    stream.next()
    stream.half_close()
    etcd.put(b"a", b"")
    assert stream.next().events


def test_a_cancelled_stream_leaves_nothing(served: Served, etcd: Client) -> None:
    streams = [etcd.stream() for _ in range(5)]
    for stream in streams:
        stream.create(b"a", b"b")
        stream.create(b"k")
        stream.next(), stream.next()
    assert served.do(lambda: (len(served.hub.streams), len(list(served.hub.index.at(b"k"))))) == (
        5,
        5,
    )
    for stream in streams:
        stream.close()
    wait_until(lambda: served.do(lambda: not served.hub.streams))
    assert served.do(lambda: [*served.hub.index.at(b"k"), *served.hub.index.at(b"a1")]) == []
    etcd.put(b"a1", b"")


def test_a_message_that_is_none_ends_the_stream(served: Served, stream: Conversation) -> None:
    stream.create(b"a")
    stream.next()
    stream.send(b"\xff\xff\xff")
    code, _ = stream.end()
    assert code == "INTERNAL"
    wait_until(lambda: served.do(lambda: not served.hub.streams))


def test_a_synced_watch_loses_nothing_to_a_compaction(served: Served, etcd: Client) -> None:
    """Its events are on their way before the compaction; etcd cancels only who is behind."""
    stream = etcd.stream()
    stream.create(b"a")
    stream.next()

    def write_and_compact() -> None:
        for _ in range(10):
            served.member.model.put(b"a", b"")
            served.member.tell()
        served.member.compact(11)
        served.member.tell()

    served.do(write_and_compact)
    got: list[Any] = []
    while len(got) < 10:  # what waits for a client comes in one response, or in several
        response = stream.next()
        got += keys(response)
        assert response.header.revision == got[-1][1]
    assert got == [(b"a", rev) for rev in range(2, 12)]
    stream.close()


def test_what_waits_comes_together_and_no_watch_gets_what_another_wants(
    served: Served, etcd: Client
) -> None:
    stream = etcd.stream()
    wants: list[dict[str, Any]] = [{}, {}, {"prev_kv": True}, {"filters": [0]}, {"fragment": True}]
    for number, fields in enumerate(wants, 1):
        stream.create(b"a", b"c", watch_id=number, **fields)
        stream.next()

    def write() -> None:
        for _ in range(3):
            served.member.model.put(b"a", b"x")
            served.member.tell()
            served.member.model.delete_range(b"a")
            served.member.tell()

    served.do(write)
    got: dict[int, list[tuple[int, int, bytes]]] = {number: [] for number in range(1, 6)}
    while sum(map(len, got.values())) < 4 * 6 + 3:
        response = stream.next()
        events = [(e.type, e.kv.mod_revision, e.prev_kv.value) for e in response.events]
        got[response.watch_id] += events
        assert response.header.revision == events[-1][1]
    every = [(revision % 2, revision, b"") for revision in range(2, 8)]
    assert got[1] == got[2] == got[5] == every
    assert got[3] == [(kind, revision, b"x" if kind else b"") for kind, revision, _ in every]
    assert got[4] == [event for event in every if event[0]]
    stream.close()


def test_a_client_that_never_reads(served: Served, etcd: Client) -> None:
    """It costs the outbox, then it is behind; when it reads again it gets everything, in order."""
    requests = [wire.WatchRequest(create_request=wire.WatchCreateRequest(key=b"a"))]
    call = etcd._channel.stream_stream(
        wire.WATCH.path,
        request_serializer=wire.WatchRequest.SerializeToString,
        response_deserializer=wire.WatchResponse.FromString,
    )(iter(requests))
    created = next(call)
    value = b"x" * 10_000

    def write() -> None:
        for _ in range(50):
            served.member.model.put(b"a", value)
            served.member.tell()

    for _ in range(60):
        served.do(write)
    (stream,) = served.hub.streams
    assert served.do(lambda: len(stream._outbox)) <= OUTBOX_MAX
    revisions: list[int] = []
    for response in call:
        revisions += [event.kv.mod_revision for event in response.events]
        if revisions and revisions[-1] == 3001:
            break
    assert created.created
    assert revisions == list(range(2, 3002))
    call.cancel()


def test_a_client_that_only_asks(served: Served, etcd: Client) -> None:
    """Answers that nobody takes are bounded: the server stops to read."""
    creates = (
        wire.WatchRequest(
            create_request=wire.WatchCreateRequest(key=b"a", watch_id=5, start_revision=-1)
        )
        for _ in range(200_000)
    )
    call = etcd._channel.stream_stream(
        wire.WATCH.path,
        request_serializer=wire.WatchRequest.SerializeToString,
        response_deserializer=wire.WatchResponse.FromString,
    )(creates)
    next(call)
    time.sleep(0.5)
    (stream,) = served.hub.streams
    assert served.do(lambda: len(stream._outbox)) <= 1001
    call.cancel()
    wait_until(lambda: served.do(lambda: not served.hub.streams))


def event(size: int) -> Any:
    return wire.Event(kv=wire.KeyValue(key=b"k", value=b"v" * size))


@pytest.mark.parametrize("limit", [40, 100, 101, 102, 103, 104, 105, 1000])
def test_fragments(limit: int) -> None:
    for sizes in ([], [10], [500], [10] * 20, [500, 1, 1, 500], [0] * 50):
        response = wire.WatchResponse(watch_id=3, events=[event(size) for size in sizes])
        response.header.revision = 9
        parts = fragments(response, limit)
        assert [item for part in parts for item in part.events] == list(response.events)
        assert [part.fragment for part in parts] == [True] * (len(parts) - 1) + [False]
        assert {(part.watch_id, part.header.revision) for part in parts} == {(3, 9)}
        for part in parts:
            assert part.ByteSize() < limit or len(part.events) <= 1
        for part, behind in itertools.pairwise(parts):  # none could have taken more
            whole = wire.WatchResponse()
            whole.CopyFrom(part)
            whole.events.append(behind.events[0])
            assert whole.ByteSize() >= limit


def test_fragments_on_the_wire(served: Served, etcd: Client) -> None:
    """A revision of more than 2 MiB: deletions with what was there before."""
    for number in range(4):
        etcd.put(b"a%d" % number, b"x" * 900_000)
    stream = etcd.stream()
    stream.create(b"a", b"b", prev_kv=True, fragment=True)
    stream.create(b"a", b"b", prev_kv=True)
    stream.next(), stream.next()
    etcd.delete(b"a", b"b")
    got: dict[int, list[Any]] = {0: [], 1: []}
    while len(got[0]) < 2 or not got[1]:
        response = stream.next()
        got[response.watch_id].append(response)
    assert [(part.fragment, len(part.events)) for part in got[0]] == [(True, 2), (False, 2)]
    assert [(part.fragment, len(part.events)) for part in got[1]] == [(False, 4)]
    stream.close()


def test_a_revision_wakes_only_whom_it_concerns(
    served: Served, etcd: Client, stream: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    concerned: list[int] = []
    hand_out = WatchStream.hand_out

    def counted(self: WatchStream, watch: Any, revision: int, events: Any) -> None:
        concerned.append(watch.watch_id)
        hand_out(self, watch, revision, events)

    monkeypatch.setattr(WatchStream, "hand_out", counted)
    for number in range(1000):
        stream.create(b"/%d/" % number, b"/%d0" % number)
    for _ in range(1000):
        stream.next()
    etcd.put(b"/77/x", b"")
    etcd.put(b"other", b"")
    assert stream.next().watch_id == 77
    assert concerned == [77]


def test_an_idle_watch_is_cheap(served: Served, etcd: Client, stream: Conversation) -> None:
    """10,000 of them are a few megabytes. Counted as what the interpreter allocates for them."""
    hub, count = served.hub, 2000
    inner = WatchStream(hub, Silent())

    def create() -> int:
        tracemalloc.start()
        for number in range(count):
            key = b"/registry/pods/%d/" % number
            request = wire.WatchCreateRequest(key=key, range_end=key[:-1] + b"0")
            inner._create(request)
            inner._outbox.clear()  # the answers were sent
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        inner.close()
        return size

    assert served.do(create) / count < 1500


class Silent:
    """A call whose client has `requests` to send, and takes nothing."""

    metadata: ClassVar[dict[str, str]] = {}

    def __init__(self, requests: Iterable[Any] = ()) -> None:
        self.requests, self.read_so_far = iter(requests), 0

    async def read(self) -> Any:
        self.read_so_far += 1
        return next(self.requests, None)

    async def write(self, message: Any) -> None:
        await asyncio.Event().wait()


def test_who_takes_no_answers_is_not_read_either(served: Served) -> None:
    create = wire.WatchCreateRequest(key=b"a", start_revision=-1)
    call = Silent([wire.WatchRequest(create_request=create)] * 20_000)

    async def converse() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(served.hub.watch(call), 0.5)

    asyncio.run_coroutine_threadsafe(converse(), served.loop).result(10)
    assert 1000 < call.read_so_far < 1010
    assert not served.hub.streams


def test_who_takes_nothing_holds_few_megabytes(served: Served) -> None:
    """Fewer than the outbox has room for, where they are large; the log has the others."""

    def write() -> tuple[int, bool, int]:
        stream = WatchStream(served.hub, Silent())
        stream._create(wire.WatchCreateRequest(key=b"large"))
        for _ in range(20):
            served.member.model.put(b"large", bytes(1024 * 1024))
            served.member.tell()
        [watch] = stream._watches.values()
        queued, is_behind = watch.queued, watch.is_behind
        stream._cancel(watch.watch_id)
        return queued, is_behind, stream._held_bytes

    assert served.do(write) == (9, True, 0)  # the answer to its request, and 8 events


def test_created_is_said_even_if_the_cancel_is_there_already(served: Served) -> None:
    def ask() -> list[str]:
        stream = WatchStream(served.hub, Silent())
        stream._create(wire.WatchCreateRequest(key=b"a"))
        served.member.model.put(b"a", b"")
        served.member.tell()
        assert len(stream._outbox) == 2
        stream._cancel(0)
        return [said(response) for _, response in stream._outbox]

    assert served.do(ask) == [
        "header { revision: 1 } created: true",
        "header { revision: 2 } canceled: true",
    ]


def test_no_mark_where_events_came_since_the_last() -> None:
    with Served(progress_notify_interval_s=0.4) as served, client(served.endpoint) as etcd:
        stream = etcd.stream()
        stream.create(b"a", progress_notify=True)
        stream.next()
        for _ in range(30):  # 1.2 s
            time.sleep(0.04)
            etcd.put(b"a", b"")
            assert stream.next().events
        assert not stream.next(1.5).events
        stream.close()


def test_writes_that_were_not_told_before_a_compaction(
    served: Served, etcd: Client, stream: Conversation
) -> None:
    """Who is up to date then has missed something that can't be read any more."""
    stream.create(b"a")
    stream.create(b"b", start_revision=50)
    stream.next(), stream.next()

    def write() -> None:
        for _ in range(10):
            served.member.model.put(b"a", b"")
        served.member.compact(8)
        served.member.tell()

    served.do(write)
    assert said(stream.next()) == "header { } canceled: true compact_revision: 8"
    assert stream.nothing()
