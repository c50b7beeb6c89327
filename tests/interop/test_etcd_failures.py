"""What only a real etcd can do to EtcdSource: die, come back, lag, speak TLS, or not exist."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from btreecache.errors import BtreecacheError, Compacted, SourceError, Unavailable
from btreecache.event import Batch
from btreecache.sources.etcd import EtcdSource, EtcdStream
from tests.interop.conftest import VERSIONS, etcd_binary
from tests.interop.etcd_server import EtcdServer, Writer, free_port
from tests.source.contract import TIMEOUT_S, batches, progress

pytestmark = pytest.mark.interop


@pytest.fixture
def source(etcd: EtcdServer) -> Iterator[EtcdSource]:
    source = EtcdSource(etcd.endpoint)
    yield source
    source.close()


def retry(action: Callable[[], EtcdStream]) -> EtcdStream:
    """What a follower does: try again while the source is unavailable."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return action()
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def until_error(stream: EtcdStream) -> tuple[list[Batch], BtreecacheError]:
    """The batches up to the end of a stream, and that end."""
    found: list[Batch] = []
    while True:
        try:
            item = stream.receive(TIMEOUT_S)
        except BtreecacheError as error:
            return found, error
        assert item is not None, "the stream did not end"
        if isinstance(item, Batch):
            found.append(item)


def test_name(etcd: EtcdServer, source: EtcdSource) -> None:
    assert source.name == f"etcd at {etcd.endpoint}"
    source.current_revision()
    assert source.name.startswith("etcd 3.")
    assert source.name.endswith(f" at {etcd.endpoint}")


def test_prev_kv(etcd: EtcdServer, writer: Writer) -> None:
    source = EtcdSource(etcd.endpoint, prev_kv=True)
    first = writer.put(b"a", b"1")
    writer.put(b"a", b"2")
    last = writer.delete(b"a")
    assert last is not None
    stream = source.watch(b"", first - 1)
    events = [batch.events[0] for batch in batches(stream, last)]
    assert [event.previous and event.previous.value for event in events] == [None, b"1", b"2"]
    source.close()


def test_fragments_keep_revisions_whole(
    source: EtcdSource, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher that is behind gets many revisions in one response, here 18 MB in 2 MiB pieces."""
    pieces = []
    take_in = EtcdStream._take_in

    def record(stream: EtcdStream, response: object) -> None:
        pieces.append(response)
        take_in(stream, response)

    monkeypatch.setattr(EtcdStream, "_take_in", record)
    before = source.current_revision()
    keys = [b"key-%02d" % number for number in range(20)]
    revisions = [
        writer.txn([(key, b"%03d" % number + b"x" * 60_000) for key in keys])
        for number in range(15)
    ]
    stream = source.watch(b"key-", before)
    got = batches(stream, revisions[-1])
    assert [batch.revision for batch in got] == revisions
    for number, batch in enumerate(got):
        assert [event.key for event in batch.events] == keys
        assert all(e.element and e.element.value[:3] == b"%03d" % number for e in batch.events)
    split = [
        (one, two)
        for one, two in pairwise(pieces)
        if one.fragment and one.events[-1].kv.mod_revision == two.events[0].kv.mod_revision
    ]
    assert split, "no revision was split: this test proved nothing"
    stream.close()


@pytest.mark.parametrize("cut", ["kill", "close"])
def test_a_stream_that_is_not_read_holds_little(etcd: EtcdServer, writer: Writer, cut: str) -> None:
    """The buffer is bounded; nothing is lost by it; a reader waiting for room can be ended."""
    limit = 100_000
    source = EtcdSource(etcd.endpoint, buffer_bytes=limit)
    stream = source.watch(b"", source.current_revision())
    revisions = [writer.put(b"key-%d" % number, b"x" * 50_000) for number in range(200)]
    time.sleep(0.3)
    reader = stream._reader
    # One response goes over the limit, and a fragment is about 2 MiB at most.
    assert limit <= reader.bytes_held <= limit + (2 << 20)
    if cut == "kill":
        got = batches(stream, revisions[150])
        etcd.kill()
        more, error = until_error(stream)
        assert isinstance(error, Unavailable)
        got += more
        assert [batch.revision for batch in got] == revisions[: len(got)]
    stream.close()
    assert not reader._thread.is_alive()
    source.close()


def test_kill_and_restart_loses_nothing(
    etcd: EtcdServer, source: EtcdSource, writer: Writer
) -> None:
    start = source.current_revision()
    stream = source.watch(b"", start)
    written: list[int] = []
    got: list[Batch] = []
    for _ in range(2):
        written += [writer.put(b"a", b"%d" % number) for number in range(50)]
        etcd.kill()
        more, error = until_error(stream)
        assert isinstance(error, Unavailable)
        assert etcd.endpoint in str(error)
        got += more
        with pytest.raises(Unavailable):
            source.current_revision()
        etcd.restart()
        back = time.monotonic()
        last = got[-1].revision if got else start
        stream = retry(lambda last=last: source.watch(b"", last))  # type: ignore[misc]
        assert time.monotonic() - back < 2.0
    written.append(writer.put(b"a", b"last"))
    got += batches(stream, written[-1])
    assert [batch.revision for batch in got] == written
    stream.close()


def test_a_compacted_watch_does_not_hold_up_progress_elsewhere(
    source: EtcdSource, writer: Writer
) -> None:
    """etcd 3.5 lets a watcher that compaction cancelled swallow the progress of its stream."""
    revisions = [writer.put(b"a", b"%d" % number) for number in range(5)]
    writer.compact(revisions[-1])
    for _ in range(3):
        compacted = source.watch(b"", revisions[0])
        for _ in range(2):
            with pytest.raises(Compacted) as failure:
                compacted.receive(TIMEOUT_S)
            assert failure.value.oldest == revisions[-1]
        assert not compacted.request_progress()
    stream = source.watch(b"other", revisions[-1])
    # Without this nothing is owed: etcd answers no request below a watcher's start_revision.
    current = writer.put(b"a", b"new")
    if stream.request_progress():
        assert progress(stream).revision == current
    stream.close()


def test_a_running_watch_overtaken_by_compaction(etcd: EtcdServer, writer: Writer) -> None:
    """The batches already received come first, then Compacted at the next revision needed."""
    source = EtcdSource(etcd.endpoint, buffer_bytes=1)
    stream = source.watch(b"", source.current_revision())
    # More than the connection's window and etcd's own queue of 128 responses take up.
    revisions = [writer.put(b"key", b"x" * 300_000) for _ in range(300)]
    writer.compact(revisions[-1])
    got, error = until_error(stream)
    assert [batch.revision for batch in got] == revisions[: len(got)]
    assert isinstance(error, Compacted)
    assert error.revision == got[-1].revision + 1
    assert error.oldest == revisions[-1]
    source.close()


def test_a_dropped_stream_leaves_no_thread(source: EtcdSource) -> None:
    before = set(threading.enumerate())
    source.watch(b"", 1)
    gc.collect()
    deadline = time.monotonic() + TIMEOUT_S
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def calls(source: EtcdSource) -> list[Callable[[], object]]:
    return [
        lambda: source.list(b""),
        lambda: source.watch(b"", 1),
        source.current_revision,
        lambda: source.range_at(1, b""),
    ]


def assert_fails(endpoint: str, timeout_s: float = 1.0) -> str:
    """Every call fails in time, in one line that names the endpoint; the last of the lines."""
    source = EtcdSource(endpoint, timeout_s=timeout_s)
    text = ""
    for call in calls(source):
        start = time.monotonic()
        with pytest.raises((Unavailable, SourceError)) as failure:
            call()
        assert time.monotonic() - start < timeout_s + 1.0
        text = str(failure.value)
        head = f"etcd at {endpoint.removeprefix('https://')}: "
        assert text.startswith(head)
        assert len(text) > len(head)
        assert "\n" not in text
    source.close()
    return text


def test_nothing_listens() -> None:
    assert "refused" in assert_fails(f"127.0.0.1:{free_port()}")


def test_no_such_host() -> None:
    assert_fails("no-such-host.invalid:2379")


def test_a_port_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert_fails(f"127.0.0.1:{listener.getsockname()[1]}")


def test_the_default_timeout_is_5_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = EtcdSource(f"127.0.0.1:{listener.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(Unavailable):
            source.list(b"")
        assert time.monotonic() - start < 5.5
        source.close()


def test_an_http_server() -> None:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        assert_fails(f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_tls_to_an_etcd_without(etcd: EtcdServer) -> None:
    assert_fails(f"https://{etcd.endpoint}")


@pytest.fixture(params=VERSIONS)
def tls_etcd(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path
) -> Iterator[tuple[EtcdServer, Path]]:
    """An etcd that speaks TLS, and its certificate."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=btreecache test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    flags = (f"--cert-file={certificate}", f"--key-file={key}")
    with EtcdServer(etcd_binary(request.param), data_dir, *flags, scheme="https") as server:
        yield server, certificate


def test_no_tls_to_an_etcd_with(tls_etcd: tuple[EtcdServer, Path]) -> None:
    assert_fails(tls_etcd[0].endpoint)


def test_tls_with_an_unknown_certificate(tls_etcd: tuple[EtcdServer, Path]) -> None:
    assert_fails(f"https://{tls_etcd[0].endpoint}")


def test_tls(tls_etcd: tuple[EtcdServer, Path]) -> None:
    """In a process of its own: gRPC reads the roots once."""
    server, certificate = tls_etcd
    program = (
        "import sys; from btreecache.sources.etcd import EtcdSource;"
        "source = EtcdSource(sys.argv[1]); print(source.current_revision()); source.close()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, f"https://{server.endpoint}"],
        env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.stdout, result.returncode) == ("1\n", 0), result.stderr
