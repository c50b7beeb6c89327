"""What `tests.bench.archive` measures: writers, readers and starts, each in a process of its own.

All of them see the same objects and the same updates, so what they read can be compared.
"""

from __future__ import annotations

import os
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import transaction
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB import DB

from btreecache import Cache
from btreecache.archive import Archive
from btreecache.codec import Kubernetes
from btreecache.element import Element
from btreecache.event import Batch, Event
from btreecache.window import Bounds
from tests.bench.serving import objects

OBJECT_BYTES = 2_048
PAGE = 500
PREFIX = b"/registry/pods/"
#: Of the list; every update is one more.
LISTED = 1


class Written(NamedTuple):
    """What some updates took.

    updates, seconds, cpu_s   until the last was told: on the clock, and of the telling thread
    slowest_s                 the 99.9th percentile of one
    flush_s, writer_cpu_s     until all was on the disk, and of all other threads
    bytes, changed_bytes      how much the file grew, and the keys and values that were put
    """

    updates: int
    seconds: float
    cpu_s: float
    slowest_s: float
    flush_s: float
    writer_cpu_s: float
    bytes: int
    changed_bytes: int


class Load:
    """`count` objects as etcd holds them, and updates of random ones, one a revision."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.elements = [*objects("pods", count, OBJECT_BYTES)]
        self._bases = [element.value for element in self.elements]
        self._rng = Random(seed)
        self.revision = LISTED

    def updates(self, count: int) -> Iterator[Element]:
        """The next ones: objects with one field more, each another."""
        for _ in range(count):
            self.revision += 1
            at = self._rng.randrange(len(self.elements))
            before = self.elements[at]
            value = b'%s,"updated":"%012d"}' % (self._bases[at][:-1], self.revision)
            self.elements[at] = Element(
                before.key, value, self.revision, LISTED, before.version + 1
            )
            yield self.elements[at]


class Writer(ABC):
    """A writer of one kind: `put` tells it of updates one by one."""

    file: Path | None = None

    def __init__(self, count: int) -> None:
        self._load = Load(count)

    def update(self, count: int) -> Written:
        """The next `count` updates."""
        elements, took = [*self._load.updates(count)], []
        before, cpu_before = self._file_bytes(), time.process_time()
        cpu, began = time.thread_time(), time.perf_counter()
        for element in elements:
            start = time.perf_counter()
            self.put(element)
            took.append(time.perf_counter() - start)
        told, cpu_s = time.perf_counter(), time.thread_time() - cpu
        self.flush()
        flushed = time.perf_counter()
        own_cpu_s = time.thread_time() - cpu
        took.sort()
        return Written(
            count, told - began, cpu_s, took[len(took) * 999 // 1000], flushed - told,
            time.process_time() - cpu_before - own_cpu_s, self._file_bytes() - before,
            sum(len(element.key) + len(element.value) for element in elements),
        )  # fmt: skip

    def _file_bytes(self) -> int:
        return os.stat(self.file).st_size if self.file else 0

    @abstractmethod
    def put(self, element: Element) -> None:
        """Take one update."""

    def flush(self) -> None:  # noqa: B027  # nothing to do for most
        """Return when all is on the disk."""

    def close(self) -> None:  # noqa: B027
        """Done."""


class CacheWriter(Writer):
    """A cache as a server has it, with an archive at `file` or without one."""

    def __init__(self, count: int, file: Path | None, group: int) -> None:
        super().__init__(count)
        self.file, self._archive = file, None
        if file:
            self._archive = Archive.open(
                str(file), group_age_s=3_600, group_revisions=group
            ).start()
        self._cache = Cache(
            PREFIX,
            bounds=Bounds(age_s=None, revisions=1_000),
            codec=Kubernetes(),
            archive=self._archive.history(PREFIX) if self._archive else None,
        )
        assert not self._cache.restore()
        self._cache.replace(LISTED, self._load.elements)
        self.flush()

    def put(self, element: Element) -> None:
        self._cache.apply(Batch(element.mod_revision, (Event(element.key, element),)))

    def flush(self) -> None:
        if self._archive:
            assert self._archive.flush(600)
            assert self._cache.durable_revision == self._cache.revision

    def pack(self) -> tuple[float, int, int]:
        """Seconds, and the size of the file before and after."""
        assert self._archive
        before, began = self._file_bytes(), time.perf_counter()
        self._archive.pack()
        return time.perf_counter() - began, before, self._file_bytes()

    def close(self) -> None:
        if self._archive:
            self._archive.close()


class Value(Persistent):  # type: ignore[misc]  # persistent has no types
    """A value of its own record, as one would keep objects of 2 KB in ZODB."""

    def __init__(self, value: bytes) -> None:
        self.value = value


class TreeWriter(Writer):
    """An OOBTree in ZODB, a commit for each `group` updates; what each made: `commits`."""

    def __init__(self, count: int, file: Path, group: int, kind: str) -> None:
        super().__init__(count)
        self.file, self._group, self._waiting = file, group, 0
        self._value: Callable[[bytes], Any] = Value if kind == "records" else bytes
        self._database = DB(str(file), cache_size=10_000)
        self._manager = transaction.TransactionManager()
        self._commits = list[tuple[int, bytes]]()
        loaded = OOBTree([(e.key, self._value(e.value)) for e in self._load.elements])
        self._tree = self._database.open(self._manager).root()["tree"] = loaded
        self._commit(LISTED)

    def put(self, element: Element) -> None:
        self._tree[element.key] = self._value(element.value)
        self._waiting += 1
        if self._waiting == self._group:
            self._commit(element.mod_revision)

    def commits(self) -> list[tuple[int, bytes]]:
        """The revision and the transaction of each commit."""
        return self._commits

    def close(self) -> None:
        self._manager.abort()
        self._database.close()

    def _commit(self, revision: int) -> None:
        self._manager.commit()
        self._commits.append((revision, self._database.storage.lastTransaction()))
        self._waiting = 0


class Read(NamedTuple):
    """What a fresh process took to read.

    open_s, first_s, again_s   to open, then for the first page of 500 objects as the cache serves
                               them, then for another one of the same revision
    scan_s, scan_bytes         for all objects, and how far resident memory rose above what it was
                               after the pages
    crc                        of the keys and the stored values of both pages
    """

    open_s: float
    first_s: float
    again_s: float
    scan_s: float
    scan_bytes: int
    crc: int


def read_archive(file: Path, revision: int, start: bytes) -> Read:
    """From an archive."""
    codec = Kubernetes()
    began = time.perf_counter()
    with Archive.open(str(file), read_only=True) as archive:
        reading = archive.reading(PREFIX, codec.decode, codec.recipe)
        with reading:
            opened = time.perf_counter()

            def page(first: bytes) -> list[Element]:
                return [*reading.snapshot(revision).list(PREFIX, start=first, limit=PAGE).elements]

            def everything() -> int:
                return sum(1 for _ in reading.snapshot(revision))

            return _read(began, opened, page, everything, start)


def read_tree(file: Path, tid: bytes, start: bytes) -> Read:
    """From an OOBTree as it was after a transaction."""
    codec = Kubernetes()
    began = time.perf_counter()
    database = DB(str(file), read_only=True)
    connection = database.open(transaction.TransactionManager(), at=tid)
    tree = connection.root()["tree"]
    opened = time.perf_counter()

    def element(key: bytes, value: Any) -> Element:
        return codec.decode(Element(key, getattr(value, "value", value), 1, 1, 1))

    def page(first: bytes) -> list[Element]:
        return [element(*item) for item in islice(tree.iteritems(first), PAGE)]

    def everything() -> int:
        count = 0
        for key, value in tree.iteritems():
            element(key, value)
            count += 1
            if not count % PAGE:
                connection.cacheGC()
        return count

    try:
        return _read(began, opened, page, everything, start)
    finally:
        connection.close()
        database.close()


def _read(
    began: float,
    opened: float,
    page: Callable[[bytes], list[Element]],
    everything: Callable[[], int],
    start: bytes,
) -> Read:
    first = page(start)
    read = time.perf_counter()
    again = page(PREFIX)
    read_again, before = time.perf_counter(), _resident()
    count = everything()
    scanned = time.perf_counter()
    assert count >= len(again) == len(first)
    crc = 0
    for element in (*first, *again):
        crc = zlib.crc32(element.key + element.source_value(), crc)
    return Read(
        opened - began, read - opened, read_again - read, scanned - read_again,
        _most_resident() - before, crc,
    )  # fmt: skip


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _most_resident() -> int:
    """Not ru_maxrss, which begins with what the parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def warm_start(file: Path, revisions: int, objects: int) -> tuple[float, float]:
    """Seconds, and of the processor, until a cache has its window back from an archive."""
    codec = Kubernetes()
    cpu, began = time.process_time(), time.perf_counter()
    with Archive.open(str(file)) as archive:
        cache = Cache(
            PREFIX,
            bounds=Bounds(age_s=None, revisions=revisions),
            codec=codec,
            archive=archive.history(PREFIX),
        )
        assert cache.restore()
        took = time.perf_counter() - began, time.process_time() - cpu
        assert len(cache.snapshot()) == objects
        assert len(cache.state.readable()) == revisions
    return took


def relisting(endpoint: str, objects: int) -> tuple[float, float]:
    """Seconds, and of the processor, until a cache is filled from an etcd. It has no window."""
    from btreecache.sources.etcd import EtcdSource

    codec = Kubernetes()
    cpu, began = time.process_time(), time.perf_counter()
    source = EtcdSource(endpoint)
    cache = Cache(PREFIX, codec=codec)
    listing = source.list(PREFIX)
    cache.replace(listing.revision, listing.elements)
    took = time.perf_counter() - began, time.process_time() - cpu
    assert len(cache.snapshot()) == objects
    source.close()
    return took


Ask = Callable[..., Any]


@contextmanager
def process(maker: Callable[..., Any], *args: Any) -> Iterator[Ask]:
    """What `maker` makes, in a fresh process: `ask(method, *args)` calls it there."""
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs, maker, args))
    child.start()
    theirs.close()

    def ask(method: str, *arguments: Any) -> Any:
        mine.send((method, arguments))
        return mine.recv()

    try:
        assert mine.recv() == "ready"
        yield ask
        ask("close")
    finally:
        mine.close()
        child.join(60)
        child.kill()


def once(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def _serve(pipe: Connection, maker: Callable[..., Any], args: Iterable[Any]) -> None:
    made = maker(*args)
    pipe.send("ready")
    method = ""
    while method != "close":
        method, arguments = pipe.recv()
        pipe.send(getattr(made, method)(*arguments))
