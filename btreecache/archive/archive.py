"""Archive: histories of caches that last. Opened by URI; written by its recorder, read by anybody.

    with Archive.open("pods.archive") as archive:
        store = Store(archive=archive.history())
        ...
        with archive.snapshot(17) as snapshot:
            snapshot.get(b"/registry/pods/default/web")

An archive that is open for writing has one thread, the recorder's, from `start` to `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from random import Random, SystemRandom
from typing import Any, BinaryIO, Self

from ZODB.FileStorage import FileStorage

from btreecache.archive import file
from btreecache.archive.importing import Importer, opened_file
from btreecache.archive.packing import pack
from btreecache.archive.patience import ANSWER_S
from btreecache.archive.pending import Pending
from btreecache.archive.reading import Reading, prefixes
from btreecache.archive.recorder import Recorder
from btreecache.archive.records import NAME
from btreecache.archive.restore import restored
from btreecache.archive.retention import Retention
from btreecache.archive.storage import close_database, open_database
from btreecache.archive.trimming import trim
from btreecache.archive.writer import HistoryWriter
from btreecache.backoff import Backoff
from btreecache.element import Element
from btreecache.errors import ArchiveError
from btreecache.event import Batch
from btreecache.history import Restored
from btreecache.snapshot import Snapshot
from btreecache.tree import Tree
from btreecache.window import Bounds

log = logging.getLogger(__name__)

#: Readings that are kept for the next who reads: each remembers nodes and elements.
IDLE_MAX = 4


class Archive:
    """An open archive. Any thread may use it; what it lends belongs to the borrowing thread.

    retention      what is kept of each history
    group_age_s    batches are committed at most so long after they came
    group_revisions, group_bytes   or when so much waits
    queue_revisions, queue_bytes   more than this doesn't wait: it is dropped, and a gap
    wall           seconds since 1970
    """

    def __init__(
        self,
        database: Any,
        *,
        read_only: bool = False,
        retention: Retention | None = None,
        group_age_s: float = 1.0,
        group_revisions: int = 1_000,
        group_bytes: int = 16 << 20,
        queue_revisions: int = 100_000,
        queue_bytes: int = 256 << 20,
        wall: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._database = database
        self._read_only = read_only
        self._retention = retention or Retention()
        self._wall = wall
        self._rng = rng or SystemRandom()
        self._queue = {"revisions_max": queue_revisions, "bytes_max": queue_bytes}
        self._lock = threading.Lock()
        self._started = False
        self._histories: dict[bytes, ArchivedHistory] = {}
        self.recorder = Recorder(
            database,
            Backoff(time.monotonic, self._rng, 0.1, 10.0),
            wall,
            group_age_s=group_age_s,
            group_revisions=group_revisions,
            group_bytes=group_bytes,
        )

    @classmethod
    def open(
        cls, uri: str, *, read_only: bool = False, answer_s: float = ANSWER_S, **options: Any
    ) -> Archive:
        """The archive at a URI (`storage`), made if it isn't there and may be written. A server
        that doesn't answer for `answer_s` seconds is taken for gone.

        Raises BadRequest, MissingExtra, ArchiveError."""
        database = open_database(uri, read_only=read_only, answer_s=answer_s)
        return cls(database, read_only=read_only, **options)

    def start(self) -> Self:
        """Begin to commit, in a thread of its own until `close`. Idempotent."""
        if not self._read_only and not self._started:
            self._started = True
            self.recorder.start()
        return self

    def close(self) -> None:
        """Commit what waits, end the thread, close the storage. Idempotent."""
        self.recorder.close()
        for history in self._histories.values():
            history.close()
        close_database(self._database)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def prefixes(self) -> list[bytes]:
        """The prefixes of which it has a history. Raises ArchiveError."""
        return prefixes(self._database)

    def history(self, prefix: bytes = b"") -> ArchivedHistory:
        """The history of one prefix, to be given to the one cache that makes it."""
        with self._lock:
            found = self._histories.get(prefix)
            if found is None:
                pending = Pending(self._wall, self.recorder.wake, **self._queue)
                number = self._rng.getrandbits(63)
                writer = HistoryWriter(prefix, pending, self._retention, number, self._wall)
                found = ArchivedHistory(self._database, writer, self._wall)
                self._histories[prefix] = found
                if not self._read_only:
                    self.recorder.add(writer)
            return found

    def reading(
        self,
        prefix: bytes | None = None,
        read: Callable[[Element], Element] | None = None,
        recipe: bytes = b"",
    ) -> Reading:
        """One history, to read many of its revisions in this thread. Close it. `prefix` None: the
        only one there is; `recipe`: of the codec that `read` is of, if it has one. Raises
        BadRequest, ArchiveError."""
        return Reading(self._database, prefix, read, recipe=recipe)

    @contextmanager
    def snapshot(
        self,
        revision: int | None = None,
        *,
        time_s: float | None = None,
        prefix: bytes | None = None,
        read: Callable[[Element], Element] | None = None,
    ) -> Iterator[Snapshot]:
        """The state at a revision, or at a time (seconds since 1970), or the newest, as it was read
        from the source; `read` None: nothing is made of its elements. For this thread.

        Raises Compacted, FutureRevision, BadRequest, ArchiveError."""
        with self.reading(prefix, read) as reading:
            yield reading.snapshot(revision if time_s is None else reading.revision_at(time_s))

    @property
    def format(self) -> int:
        """The version of the format that it is written in."""
        with self._database.transaction() as connection:
            return int(connection.root()[NAME].state[0])

    def size(self) -> tuple[int, int]:
        """The bytes that it takes where it is stored, and the records; 0 where that isn't known."""
        return self._database.getSize(), self._database.objectCount()

    def damage(self) -> str | None:
        """What is wrong with the file as a whole; None: nothing that can be seen without `verify`,
        or it is kept elsewhere."""
        storage = self._database.storage
        return file.damage(storage) if isinstance(storage, FileStorage) else None

    def trim(self, retention: Retention, prefix: bytes | None = None) -> int:
        """Forget what a retention doesn't keep, of one history or of all; how many groups went.

        For an archive that has no writer of its own (`Archive(retention=)` looks after itself).
        Raises ArchiveError."""
        return trim(self._database, retention, prefix, self._wall())

    def import_file(self, file: BinaryIO, prefix: bytes | None = None) -> tuple[bytes, int]:
        """Make a new history of an exported file, or of etcdctl's JSON (docs/archive.md): its
        prefix, and how many revisions it has. All of it or nothing.

        Raises BadRequest for a file that can't be imported, ArchiveError."""
        prefix, found = opened_file(file, prefix, self._wall)
        with closing(Importer(self._database, prefix, self._rng.getrandbits(63))) as importer:
            importer.take(found)
            return prefix, importer.revisions

    def pack(self) -> None:
        """Set free what no retained revision needs. May run while others read and write: a writer
        refers only to records of the last checkpoint, which is always retained. Raises
        ArchiveError."""
        if self._read_only:
            raise ArchiveError("the archive is open to be read only")
        pack(self._database)

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Commit all that came in before; whether it was in time. Raises ArchiveError."""
        return self.recorder.flush(timeout_s)


class ArchivedHistory:
    """The history of one cache, a `History`. See there for who may call what."""

    def __init__(self, database: Any, writer: HistoryWriter, wall: Callable[[], float]) -> None:
        self._database = database
        self._writer = writer
        self._wall = wall
        self._lock = threading.Lock()
        self._idle: list[tuple[object, Reading]] = []

    @property
    def pending(self) -> Pending:
        """What is not written yet."""
        return self._writer.pending

    @property
    def oldest(self) -> int:
        return self._writer.oldest

    @property
    def durable_revision(self) -> int:
        return self.pending.durable_revision

    def began(self, revision: int, tree: Tree[bytes, Element]) -> None:
        self.pending.began(revision, tree)

    def appended(self, batch: Batch, tree: Tree[bytes, Element]) -> None:
        self.pending.appended(batch, tree)

    def progressed(self, revision: int) -> None:
        self.pending.progressed(revision)

    def distrusted(self, after: int) -> None:
        self.pending.distrusted(after)

    def restore(
        self, read: Callable[[Element], Element], bounds: Bounds, recipe: bytes = b""
    ) -> Restored | None:
        self._writer.recipe = recipe
        if self._writer.prefix not in prefixes(self._database):
            return None
        with Reading(self._database, self._writer.prefix) as reading:
            found = restored(reading, read, bounds, self._wall(), recipe)
            if found is None:
                return None
            window, adopted = found
            self._writer.adopt(*adopted, reading.oldest, reading.state)
            log.info("history=%r goes on from revision=%d", reading.prefix, window.current)
            return window

    @contextmanager
    def snapshot(
        self, revision: int, read: Callable[[Element], Element], recipe: bytes = b""
    ) -> Iterator[Snapshot]:
        with self._lock:
            found = next((one for key, one in self._idle if key == read), None)
            self._idle = [(key, one) for key, one in self._idle if one is not found]
        if found is None:
            found = Reading(self._database, self._writer.prefix, read, recipe=recipe)
        found.take_over()
        try:
            found.refresh()
            yield found.snapshot(revision)
        finally:
            self._rest(read, found)

    def _rest(self, read: object, reading: Reading) -> None:
        """Keep a reading for the next who asks, if it is any good."""
        with suppress(ArchiveError):
            reading.rest()
            with self._lock:
                if len(self._idle) < IDLE_MAX:
                    self._idle.append((read, reading))
                    return
        reading.close()

    def close(self) -> None:
        """Let go of what is kept for readers. Idempotent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, reading in idle:
            reading.take_over()
            reading.close()
