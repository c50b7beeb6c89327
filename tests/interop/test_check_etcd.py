"""The job on a real etcd: live writes, a crash, a compaction, odd keys, and a feed that lies."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from btreecache import Batch, Progress
from btreecache.cli import main
from btreecache.sources.etcd import EtcdStream
from tests.interop.etcd_server import Change, EtcdServer, Writer

pytestmark = pytest.mark.interop

OBJECTS = 20_000
LIVE_S = 60


def key(number: int) -> bytes:
    """Every eighth key is not UTF-8."""
    return b"/registry/pods/ns-%02d/pod-%06d" % (number % 40, number) + b"\xff\x80" * (
        number % 8 == 0
    )


def load(writer: Writer, objects: int, value_bytes: int = 200) -> None:
    for first in range(0, objects, 100):
        numbers = range(first, min(first + 100, objects))
        writer.txn([(key(number), b"%d" % number + b"." * value_bytes) for number in numbers])


def write_once(writer: Writer, rng: random.Random, objects: int) -> None:
    """A put, a delete, or a transaction of both on several keys."""
    numbers = rng.sample(range(objects), rng.choice([1, 1, 1, 2, 10, 60]))
    changes: list[Change] = []
    for number in numbers:
        value = b"%x" % rng.getrandbits(rng.choice([8, 4000]))
        changes.append(key(number) if rng.random() < 0.2 else (key(number), value))
    writer.txn(changes)


@contextmanager
def live_writes(endpoint: str, objects: int, writers: int = 3) -> Iterator[list[int]]:
    """Writers that go on whatever happens to the server; yields how often each has written."""
    stop = threading.Event()
    counts = [0] * writers

    def write(number: int) -> None:
        rng = random.Random(number)
        with Writer(endpoint) as writer:
            while not stop.is_set():
                # The server is killed under them: a write may fail, may have happened or not.
                with suppress(grpc.RpcError):
                    write_once(writer, rng, objects)
                    counts[number] += 1
                stop.wait(0.002)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def start_check(endpoint: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "btreecache", "check", "--etcd", endpoint, "--output", "json"]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str], timeout_s: float) -> tuple[int, dict[str, Any]]:
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
        process.wait()
    assert err == ""
    return process.returncode, json.loads(out)


@pytest.mark.parametrize(("etcd", "mode"), [("3.4", "keys"), ("3.5", "values")], indirect=["etcd"])
def test_live_writes_with_a_crash_in_the_middle(
    etcd: EtcdServer, writer: Writer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acceptance run: every sampled revision equals the server's own range at it.

    Without the cache's self-checks, as a user runs it: here the server itself is the check, and on
    two cores they would leave the follower too little of one.
    """
    monkeypatch.setenv("BTREECACHE_VERIFY", "0")
    seconds = LIVE_S
    load(writer, OBJECTS)
    with live_writes(etcd.endpoint, OBJECTS) as counts:
        process = start_check(
            etcd.endpoint, "--mode", mode, "--for", f"{seconds}s", "--interval", "3s",
            "--revisions", "10", "--seed", "7",
        )  # fmt: skip
        time.sleep(seconds / 2)
        before = list(counts)
        etcd.restart()
        code, found = finish(process, timeout_s=seconds + 60)
        assert all(after > then for after, then in zip(counts, before, strict=True))
    assert (code, found["verdict"]) == (0, "consistent"), found
    assert found["feed_faults"] == found["differences"] == []
    assert found["not_checkable"] == 0
    assert found["revisions_checked"] > 10
    assert found["keys_compared"] > 10 * OBJECTS / 2
    assert {one["verdict"] for one in found["rounds"]} == {"consistent"}


def test_revisions_that_the_server_compacted_are_counted(etcd: EtcdServer, writer: Writer) -> None:
    load(writer, 500)
    with live_writes(etcd.endpoint, 500):
        process = start_check(etcd.endpoint, "--for", "6s", "--interval", "2s", "--revisions", "30")
        time.sleep(3)
        writer.compact(writer.put(b"after", b""))
        code, found = finish(process, timeout_s=60)
    assert (code, found["verdict"]) == (0, "consistent"), found
    assert found["not_checkable"] > 0
    assert found["revisions_checked"] > 0


@pytest.mark.parametrize("prefix", ["", "/registry/", "/nothing", "\udcff"])
def test_prefixes(etcd: EtcdServer, writer: Writer, prefix: str, capsys: Any) -> None:
    for one in (b"\x00", b"/registry/a", b"/registry/\xff", b"\xff", b"\xff\xff"):
        writer.put(one, b"\xfe" + one)
    options = ["--prefix", prefix, "--mode", "values", "--output", "json"]
    assert main(["check", "--etcd", etcd.endpoint, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["keys_compared"] == {"": 5, "/registry/": 2, "/nothing": 0, "\udcff": 2}[prefix]


def lying(receive: Callable[..., Any], skip: int) -> Callable[..., Any]:
    """A stream that swallows one batch: the etcd is right, what we read from it is not."""
    seen = 0

    def patched(self: EtcdStream, timeout_s: float) -> Batch | Progress | None:
        nonlocal seen
        item: Batch | Progress | None = receive(self, timeout_s)
        if isinstance(item, Batch):
            seen += 1
            if seen == skip:
                return None
        return item

    return patched


def test_a_swallowed_event_is_found(
    etcd: EtcdServer, writer: Writer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On 3.4.23, which has no progress marks to be trusted, a later event shows how far we are."""
    monkeypatch.setattr(EtcdStream, "receive", lying(EtcdStream.receive, skip=2))
    load(writer, 300)

    def write() -> None:
        time.sleep(1.5)
        for number in range(5):
            writer.put(key(number), b"changed")

    thread = threading.Thread(target=write)
    thread.start()
    code = main(
        ["check", "--etcd", etcd.endpoint, "--for", "4s", "--interval", "1s", "--output", "json"]
    )
    thread.join()
    found = json.loads(capsys.readouterr().out)
    assert (code, found["verdict"]) == (1, "inconsistent")
    kinds = {(one["key"], one["kind"]) for one in found["differences"]}
    assert kinds == {(key(1).decode(), "stale")}


def test_a_server_that_is_gone_makes_it_unknown(
    etcd: EtcdServer, writer: Writer, tmp_path: Path
) -> None:
    load(writer, 100)
    process = start_check(etcd.endpoint, "--for", "4s", "--interval", "1s")
    time.sleep(2.5)
    etcd.kill()
    code, found = finish(process, timeout_s=60)
    assert (code, found["verdict"]) == (3, "unknown")
    last = found["rounds"][-1]
    assert last["verdict"] == "unknown"
    assert last["reason"]
    assert last["duration_s"] >= 25, "it is asked again for half a minute"
