"""Traces of a real etcd: valid as they are, refused once a change breaks a guarantee."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from etcdsim import wire
from etcdsim.cli import main
from etcdsim.record import RecordError
from etcdsim.record_etcd import _Client, _Watch, record_etcd
from etcdsim.trace import WatchRequest, load_trace
from etcdsim.validate import overall, validate
from etcdsim.wire import marks_are_safe
from tests.interop.etcd_server import EtcdServer, Writer
from tests.traces import run_one

pytestmark = pytest.mark.interop

SEEDS = range(10)


def until_it_writes(writer: Writer) -> None:
    """Wait until a recording has begun to make traffic."""
    prefix = wire.RangeRequest(key=b"etcdsim/", range_end=b"etcdsim0", count_only=True)
    while not writer.ask(wire.RANGE, prefix).count:
        time.sleep(0.005)


def test_random_traces_are_valid_and_changed_ones_refused(etcd: EtcdServer) -> None:
    changed = marks = events = 0
    for seed in SEEDS:
        run = run_one(etcd.endpoint, seed)
        assert run["verdict"] == "valid", f"seed {seed}: {run['detail']}"
        assert not run["wrong"], f"seed {seed}: {run['wrong']}"
        events += run["events"]
        changed += sum(run["changes"].values())
        marks += run["marks"]
    # In all: on a busy machine a tenth of a second may go by without any.
    assert events > 10 * len(SEEDS)
    assert changed > 10 * len(SEEDS)
    with Writer(etcd.endpoint) as writer:
        version = writer.ask(wire.STATUS, wire.StatusRequest()).version
    assert (marks > 0) == marks_are_safe(version)


def test_record_validate_replay(
    etcd: EtcdServer, writer: Writer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    writer.put(b"other", b"stays")
    threads = threading.active_count()
    path = str(tmp_path / "trace")
    record = ["record", "--etcd", etcd.endpoint, "--for", "300ms", "--clients", "2", "--seed", "7"]
    assert main([*record, "--output", path]) == 0
    assert threading.active_count() == threads
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert " seed=7 clients=2 watches=" in err
    assert main(["validate", path]) == main(["replay", path]) == 0
    assert ": valid watches=" in capfd.readouterr().out
    answer = writer.ask(wire.RANGE, wire.RangeRequest(key=b"\0", range_end=b"\0"))
    assert [kv.key for kv in answer.kvs] == [b"other"]  # it cleans up after itself
    trace = load_trace(Path(path).read_bytes().splitlines())
    assert {watch.client for watch in trace.watches} == {0, 1}
    assert trace.compactions == ()


def test_a_writer_that_nobody_recorded_makes_it_unknown(etcd: EtcdServer, writer: Writer) -> None:
    done = threading.Event()

    def intrude() -> None:
        until_it_writes(writer)
        writer.put(b"etcdsim/record/3/1/foreign", b"")  # the 1: of a fresh server
        done.set()

    intruder = threading.Thread(target=intrude)
    intruder.start()
    trace = record_etcd(etcd.endpoint, 0.4, clients=2, seed=3, clock=time.monotonic)
    intruder.join()
    assert done.is_set()
    assert overall(validate(trace)) == "unknown"


def test_a_prefix_in_use_is_refused(etcd: EtcdServer, writer: Writer) -> None:
    writer.put(b"etcdsim/record/3/2/x", b"")
    with pytest.raises(RecordError, match=r"there are keys below etcdsim/record/3/2/ already"):
        record_etcd(etcd.endpoint, 0.1, clients=1, seed=3, clock=time.monotonic)


def test_an_etcd_that_dies_gives_one_line(etcd: EtcdServer, writer: Writer) -> None:
    def kill() -> None:
        until_it_writes(writer)
        etcd.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RecordError, match="answers no more"):
        record_etcd(etcd.endpoint, 0.5, clients=2, seed=1, clock=time.monotonic)
    killer.join()


def test_marks_that_overtake_events_are_found_in_an_etcd_that_has_them(etcd: EtcdServer) -> None:
    """etcd 15220, in 3.4.23 and not in 3.5.30. There 54 of 60 such traces were broken."""
    broken: set[str] = set()
    version = ""
    for seed in range(20):
        trace = record_etcd(
            etcd.endpoint, 0.1, clients=3, seed=seed, clock=time.monotonic, marks=True
        )
        version = trace.header.version
        broken |= {one.guarantee for one in validate(trace) if one.state == "broken"}
        if "Bookmarkable" in broken:
            break
    assert ("Bookmarkable" in broken) != marks_are_safe(version)
    assert broken <= {"Bookmarkable", "Reliable"}


def test_a_mark_that_overtakes_a_cancellation_is_not_held_against_the_watch() -> None:
    """Seeds 2840 and 10682 on etcd 3.5.30.

    A watch far behind keeps etcd from answering a progress request. Once it is cancelled the answer
    goes out, to all the watches that are left, and may come before the answer to the cancellation.
    """
    client = _Client.__new__(_Client)
    client.changed = threading.Condition()
    client._requests = SimpleQueue()
    request = WatchRequest(b"a", b"b", 242)
    client.watches = {1: _Watch(0, request), 2: _Watch(0, request)}
    for watch_id in client.watches:
        client._take(_answer(253, watch_id=watch_id, created=True))
    client.cancel(1)
    client._take(_answer(276, watch_id=-1))
    client._take(_answer(276, watch_id=1, canceled=True))
    kinds = [[one.kind for one in watch.responses] for watch in client.watches.values()]
    assert kinds == [["created", "canceled"], ["created", "progress"]]


def _answer(revision: int, **fields: Any) -> Any:
    return wire.WatchResponse(header=wire.ResponseHeader(revision=revision), **fields)
