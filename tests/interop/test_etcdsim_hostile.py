"""Hostile clients: what the simulator answers is what a real etcd answers; and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from etcdsim import services, wire
from tests.etcdsim import hostile
from tests.etcdsim.hostile import Row, outcome
from tests.etcdsim.served import Conversation
from tests.interop.conftest import etcd_binary
from tests.interop.etcd_server import EtcdServer, Writer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop

MIB = 1024 * 1024
#: Of 3.4.23: an older gRPC, with other codes for what isn't of a method.
CODES_3_4 = {
    "snapshot: no message": "UNKNOWN",
    "one word": "RESOURCE_EXHAUSTED",
    "no path": "RESOURCE_EXHAUSTED",
}
METHODS = [
    value
    for module in (wire, services)
    for value in vars(module).values()
    if isinstance(value, wire.Method) and value is not services.RANGE_STREAM
]


def rows() -> list[Row]:
    return hostile.ROWS + hostile.malformed(METHODS)


def test_a_real_3_5_ends_each_call_the_same_way(data_dir: Path) -> None:
    with (
        EtcdServer(etcd_binary("3.5"), data_dir) as etcd,
        hostile.connect(etcd.endpoint) as channel,
    ):
        for row in rows():
            expected = row.real or row.ends
            answers = 1 if expected == ("OK", "") and row.real else row.answers
            assert outcome(channel, row) == (*expected, answers), row.name


def test_a_real_3_4_ends_each_call_with_the_same_code(data_dir: Path) -> None:
    with (
        EtcdServer(etcd_binary("3.4"), data_dir) as etcd,
        hostile.connect(etcd.endpoint) as channel,
    ):
        for row in rows():
            if row.path == services.AUTH_STATUS.path:  # 3.4 hasn't this method
                continue
            expected = CODES_3_4.get(row.name, (row.real or row.ends)[0])
            assert outcome(channel, row)[0] == expected, row.name


# What they cost: the memory of the process, measured.


@pytest.fixture
def simulated() -> Iterator[EtcdsimServer]:
    # Of a version that doesn't hash the whole store at each compaction.
    with EtcdsimServer("--emulated-version=3.4.23") as server:
        yield server


def create(key: bytes, range_end: bytes = b"") -> bytes:
    request = wire.WatchRequest(create_request={"key": key, "range_end": range_end})
    return bytes(request.SerializeToString())


def never_read(channel: Any, requests: list[bytes]) -> Callable[[], Any]:
    """Open a stream of watches, and take nothing from it -> what ends it."""
    sent: SimpleQueue[bytes | None] = SimpleQueue()
    for request in requests:
        sent.put(request)
    call = channel.stream_stream(wire.WATCH.path)(iter(sent.get, None))
    return lambda: (call.cancel(), sent.put(None))


def test_clients_that_never_read(simulated: EtcdsimServer) -> None:
    """40 of them, each with 300 MB of events on the way to it that are compacted long since."""
    value = bytes(MIB)
    with (
        Writer(simulated.endpoint) as writer,
        hostile.connect(simulated.endpoint) as channel,
        ExitStack() as stack,
    ):
        for number in range(40):
            stack.callback(never_read(channel, [create(b"%d/" % number, b"%d0" % number)]))
        for number in range(40):
            writer.put(b"%d/" % number, b"")
        before = simulated.memory_mib
        for number in range(300):
            revision = writer.put(b"%d/k" % (number % 4), value)
            if number % 10 == 9:
                writer.compact(revision)
        after = simulated.memory_mib
        assert writer.put(b"still", b"there") > 300
    assert after - before < 150


def test_10_000_idle_watches_on_100_connections(simulated: EtcdsimServer) -> None:
    keys = [b"/registry/things/%d/" % number for number in range(100)]
    before = simulated.memory_mib
    with ExitStack() as stack:
        channels = [stack.enter_context(pinging(simulated.endpoint)) for _ in range(100)]
        streams = [Conversation(channel, wire.WATCH) for channel in channels]
        for stream in streams:
            for key in keys:
                stream.create(key, key[:-1] + b"0")
        for stream in streams:
            for _ in keys:
                assert stream.next().created
        cost = simulated.memory_mib - before
        time.sleep(2)
        with Writer(simulated.endpoint) as writer:
            revision = writer.put(keys[7] + b"x", b"")
        for stream in streams:
            assert (stream.next().events[0].kv.mod_revision) == revision
        for stream in streams:
            stream.close()
    assert cost < 60


def test_10_000_idle_watches_on_one_stream(simulated: EtcdsimServer) -> None:
    before = simulated.memory_mib
    with hostile.connect(simulated.endpoint) as channel:
        stream = Conversation(channel, wire.WATCH)
        for number in range(10_000):
            stream.create(b"/registry/things/%d/" % number, b"/registry/things/%d0" % number)
        assert all(stream.next().created for _ in range(10_000))
        cost = simulated.memory_mib - before
        with Writer(simulated.endpoint) as writer:
            writer.put(b"/registry/things/9999/x", b"")
        assert stream.next().watch_id == 9999
        stream.close()
    assert cost < 40


def pinging(endpoint: str) -> Any:
    """A channel that asks every second whether its server lives."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    return grpc.insecure_channel(endpoint, options=options)
