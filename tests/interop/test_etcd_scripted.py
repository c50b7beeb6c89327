"""EtcdSource against a gRPC server that plays a script: what no etcd at hand can be made to do.

Old servers, look-alikes, refusals and broken feeds. Needs no etcd, so it is not marked `interop`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from btreecache.element import Element
from btreecache.errors import BadRequest, Compacted, MissingExtra, SourceError, Unavailable
from btreecache.event import Batch, Event, Progress
from btreecache.sources.etcd import EtcdSource, EtcdStream, range_end
from btreecache.sources.etcd_connection import parse_endpoint
from etcdsim import wire

COMPACTED = wire.WatchResponse(watch_id=3, canceled=True, compact_revision=40)

Abort = tuple[grpc.StatusCode, str]


class Server:
    """Answers Status with `version` and Range from `keys`; a watch gets `created`, then `script`.

    A script item is a WatchResponse, or a (code, text) to abort with. After the script the watch
    stays open until `released` is set, or, where COMPACTED was last, until the client ends it.
    """

    def __init__(self) -> None:
        self.version: str | Abort = "3.5.30"
        self.keys: list[tuple[bytes, bytes]] = []
        self.ranges: list[Any] = []
        self.refuse_range: Abort | None = None
        self.script: list[Any] = []
        self.created = True
        self.released = threading.Event()
        self.creates: list[Any] = []
        self.cancels: list[int] = []
        self.metadata: list[dict[str, Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        for method, behaviour in (
            (wire.STATUS, self._status),
            (wire.RANGE, self._range),
            (wire.WATCH, self._watch),
        ):
            service, name = method.path[1:].split("/")
            make = (
                grpc.stream_stream_rpc_method_handler
                if method.stream
                else grpc.unary_unary_rpc_method_handler
            )
            handler = make(
                behaviour,
                request_deserializer=method.request.FromString,
                response_serializer=method.response.SerializeToString,
            )
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {name: handler}),)
            )
        self._server.start()

    def stop(self) -> None:
        self.released.set()
        self._server.stop(0).wait(10)

    def _status(self, request: Any, context: Any) -> Any:
        if not isinstance(self.version, str):
            context.abort(*self.version)
        return wire.StatusResponse(version=self.version)

    def _range(self, request: Any, context: Any) -> Any:
        self.ranges.append(request)
        if self.refuse_range is not None:
            context.abort(*self.refuse_range)
        rest = [pair for pair in self.keys if pair[0] >= request.key]
        page = rest[: request.limit or None]
        return wire.RangeResponse(
            header=header(9),
            kvs=[wire.KeyValue(key=key, value=value, mod_revision=2) for key, value in page],
            count=len(rest),
            more=len(rest) > len(page),
        )

    def _watch(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self.metadata.append(dict(context.invocation_metadata()))
        self.creates.append(next(requests).create_request)
        if self.created:
            yield wire.WatchResponse(header=header(9), created=True)
        for item in self.script:
            if isinstance(item, tuple):
                context.abort(*item)
            yield item
        if self.script and self.script[-1] == COMPACTED:
            self.cancels += [request.cancel_request.watch_id for request in requests]
            return
        self.released.wait(30)


def header(revision: int) -> Any:
    return wire.ResponseHeader(revision=revision)


def response(*revisions: int, store: int = 100, fragment: bool = False) -> Any:
    """A put of key b"k" at each revision."""
    events = [wire.Event(kv=wire.KeyValue(key=b"k", mod_revision=r, version=1)) for r in revisions]
    return wire.WatchResponse(header=header(store), events=events, fragment=fragment)


def mark(revision: int) -> Any:
    return wire.WatchResponse(header=header(revision), watch_id=-1)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def source(server: Server) -> Iterator[EtcdSource]:
    source = EtcdSource(f"127.0.0.1:{server.port}", timeout_s=2.0)
    yield source
    source.close()


def items(stream: EtcdStream) -> list[Any]:
    """Revisions of the batches, with the number of events where not 1; marks as they are."""
    found: list[Any] = []
    while (item := stream.receive(0.5 if not found else 0.2)) is not None:
        if isinstance(item, Batch):
            found.append(
                item.revision if len(item.events) == 1 else (item.revision, len(item.events))
            )
        else:
            found.append(item)
    return found


def test_watch_request(server: Server, source: EtcdSource) -> None:
    source.watch(b"a\xff", 7)
    (create,) = server.creates
    assert create == wire.WatchCreateRequest(
        key=b"a\xff", range_end=b"b", start_revision=8, progress_notify=True, fragment=True
    )
    assert server.metadata[0]["hasleader"] == "true"


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.4.23", False), ("3.4.30", False), ("3.4.31", True), ("3.4.100", True),
        ("3.5.0", False), ("3.5.12", False), ("3.5.13", True), ("3.5.30", True),
        ("3.6.0-alpha.0", True), ("3.6.11", True), ("4.0.0", True), ("3.3.99", False),
        ("", False), ("three", False), ("3.5", False),
    ],
)  # fmt: skip
def test_marks_are_safe(version: str, safe: bool) -> None:
    assert wire.marks_are_safe(version) is safe


@pytest.mark.parametrize("version", ["3.4.23", "3.5.12", (grpc.StatusCode.UNIMPLEMENTED, "no")])
def test_marks_that_cannot_be_trusted_are_not_reported(
    server: Server, source: EtcdSource, version: str | Abort
) -> None:
    server.version = version
    server.script = [response(8), mark(9), response(10)]
    stream = source.watch(b"", 7)
    assert not server.creates[0].progress_notify
    assert not stream.request_progress()
    assert items(stream) == [8, 10]


def test_the_version_is_asked_again_for_each_watch(server: Server, source: EtcdSource) -> None:
    assert source.watch(b"", 7).request_progress()
    server.version = "3.5.12"
    assert not source.watch(b"", 7).request_progress()
    assert source.name.startswith("etcd 3.5.12 at ")


def test_marks(server: Server, source: EtcdSource) -> None:
    """Below the start of the watch a mark is ignored; the header of events is none."""
    server.script = [mark(3), mark(7), response(8, store=50), mark(50), mark(50)]
    expected = [Progress(7), 8, Progress(50), Progress(50)]
    assert items(source.watch(b"", 7)) == expected


def test_responses_are_never_merged(server: Server, source: EtcdSource) -> None:
    """Revisions that repeat or go back are passed on as they came: the cache calls it a fault."""
    server.script = [response(8, 8, 9), response(9), response(9, 8), response(8)]
    assert items(source.watch(b"", 7)) == [(8, 2), 9, 9, 9, 8, 8]


def test_fragments(server: Server, source: EtcdSource) -> None:
    server.script = [
        response(8, 9, fragment=True),
        response(9, 9, fragment=True),
        response(9, 10, fragment=True),
        response(10, 11),
        response(11),
    ]
    assert items(source.watch(b"", 7)) == [8, (9, 4), (10, 2), 11, 11]


def test_a_revision_cut_off_is_not_delivered(server: Server, source: EtcdSource) -> None:
    server.script = [
        response(8, 9, fragment=True),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped"),
    ]
    stream = source.watch(b"", 7)
    assert stream.receive(2) == Batch(8, stream_events(8))
    with pytest.raises(Unavailable, match="server stopped"):
        stream.receive(2)


def stream_events(revision: int) -> Any:
    return (Event(b"k", Element(b"k", b"", revision, 0, 1)),)


NO_LEADER = "etcdserver: no leader"
DENIED = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([(grpc.StatusCode.UNAVAILABLE, NO_LEADER)], Unavailable),
        ([(grpc.StatusCode.INTERNAL, "oops")], Unavailable),
        ([(grpc.StatusCode.UNKNOWN, "Stream removed")], Unavailable),
        ([(grpc.StatusCode.CANCELLED, "etcdserver: watch canceled")], Unavailable),
        ([(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")], Unavailable),
        ([(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")], SourceError),
        ([(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")], SourceError),
        ([wire.WatchResponse(canceled=True, cancel_reason=NO_LEADER)], Unavailable),
        ([wire.WatchResponse(canceled=True)], Unavailable),
        ([wire.WatchResponse(canceled=True, cancel_reason=DENIED)], SourceError),
        ([COMPACTED], Compacted),
    ],
)
def test_the_end_of_a_watch(
    server: Server, source: EtcdSource, script: list[Any], expected: type[Exception]
) -> None:
    """What came before it is delivered; then the same error for ever; no thread is left."""
    before = set(threading.enumerate())
    server.script = [response(8, 9), *script]
    stream = source.watch(b"", 7)
    assert [stream.receive(2), stream.receive(2)] == [
        Batch(8, stream_events(8)),
        Batch(9, stream_events(9)),
    ]
    for _ in range(2):
        with pytest.raises(expected) as failure:
            stream.receive(2)
        if isinstance(failure.value, Compacted):
            assert (failure.value.revision, failure.value.oldest) == (10, 40)
        else:
            assert str(failure.value).startswith(f"etcd at 127.0.0.1:{server.port}: ")
    assert not stream.request_progress()
    server.released.set()
    deadline = time.monotonic() + 10
    while any("btreecache" in thread.name for thread in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_compacted_watch_is_cancelled(server: Server, source: EtcdSource) -> None:
    """etcd keeps it otherwise. The stream ends by the server's doing, and its thread with it."""
    server.script = [COMPACTED]
    stream = source.watch(b"", 7)
    with pytest.raises(Compacted):
        stream.receive(2)
    stream._reader._thread.join(10)
    assert not stream._reader._thread.is_alive()
    assert server.cancels == [3]


def test_the_server_ends_the_call(server: Server, source: EtcdSource) -> None:
    stream = source.watch(b"", 7)
    server.released.set()
    with pytest.raises(Unavailable, match="the server ended the watch"):
        stream.receive(2)


def test_a_watch_that_is_refused(server: Server, source: EtcdSource) -> None:
    """etcd answers such a create with created and canceled at once."""
    server.created = False
    server.script = [
        wire.WatchResponse(watch_id=-1, created=True, canceled=True, cancel_reason=DENIED)
    ]
    with pytest.raises(SourceError, match="permission denied"):
        source.watch(b"", 7)


def test_a_watch_that_is_never_answered(server: Server) -> None:
    source = EtcdSource(f"127.0.0.1:{server.port}", timeout_s=0.5)
    server.created = False
    with pytest.raises(Unavailable, match=r"within 0\.5 s"):
        source.watch(b"", 7)
    assert not [thread for thread in threading.enumerate() if "btreecache" in thread.name]
    source.close()


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ((grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out"), Unavailable),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests"), Unavailable),
        ((grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied"), SourceError),
        ((grpc.StatusCode.INVALID_ARGUMENT, "etcdserver:\nkey is\nnot provided"), SourceError),
    ],
)
def test_refused_reads(
    server: Server, source: EtcdSource, refusal: Abort, expected: type[Exception]
) -> None:
    server.refuse_range = refusal
    calls: list[Callable[[], object]] = [
        lambda: source.list(b""),
        source.current_revision,
        lambda: source.range_at(3, b""),
    ]
    for call in calls:
        with pytest.raises(expected) as failure:
            call()
        assert "etcdserver" in str(failure.value)
        assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("count", "value_bytes", "limits"),
    [
        (20_000, 10, [64, 256, 1024, 4096, 10_000, 10_000]),  # fourfold, up to page_keys
        (4_000, 10_000, [64, 256] + [418] * 9),  # towards 4 MiB a page
    ],
)
def test_pages_grow_towards_a_size(
    server: Server, source: EtcdSource, count: int, value_bytes: int, limits: list[int]
) -> None:
    value = bytes(value_bytes)
    server.keys = [(b"key-%06d" % number, value) for number in range(count)]
    keys = [element.key for element in source.list(b"").elements]
    assert keys == [key for key, _ in server.keys]
    assert [request.limit for request in server.ranges] == limits
    assert [request.revision for request in server.ranges] == [0] + [9] * (len(limits) - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:2379", ("127.0.0.1", 2379, False)),
        ("http://localhost:1", ("localhost", 1, False)),
        ("https://etcd-0.etcd.svc:65535", ("etcd-0.etcd.svc", 65535, True)),
        ("[::1]:2379", ("::1", 2379, False)),
        ("https://[2001:db8::1]:2379", ("2001:db8::1", 2379, True)),
        ("unix:2379", ("unix", 2379, False)),
    ],
)
def test_parse_endpoint(text: str, expected: tuple[str, int, bool]) -> None:
    endpoint = parse_endpoint(text)
    assert endpoint == expected
    assert text.endswith(endpoint.address)


@pytest.mark.parametrize(
    "text",
    [
        "", "host", "host:", ":2379", "host:0", "host:65536", "host:99999999", "host:x", "host:-1",
        "::1:2379", "[::1]", "[::x]:1", "[1.2.3.4]:1", "ftp://host:1", "http://", "host:1/path",
        "host :1", "host:1\n", "user@host:1", "ünï:1", "host:٣",
    ],
)  # fmt: skip
def test_malformed_endpoints(text: str) -> None:
    with pytest.raises(BadRequest) as failure:
        EtcdSource(text)
    assert repr(text) in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"", b"\0"), (b"a", b"b"), (b"a/", b"a0"), (b"\0", b"\1"), (b"a\xff", b"b"),
        (b"a\xfe\xff\xff", b"a\xff"), (b"\xff", b"\0"), (b"\xff\xff", b"\0"),
    ],
)  # fmt: skip
def test_range_end(prefix: bytes, end: bytes) -> None:
    assert range_end(prefix) == end


def test_without_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtra, match=r"btreecache\[etcd\]"):
        EtcdSource("127.0.0.1:2379")


def test_importing_the_module_loads_no_grpc() -> None:
    program = "import sys, btreecache.sources.etcd; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
