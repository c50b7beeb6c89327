"""Recorder: the thread that commits, in groups, what the caches of one process have told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ZODB.POSException import ConflictError

from btreecache.archive.records import NAME, Root
from btreecache.archive.storage import Transactions, trouble
from btreecache.archive.writer import HistoryWriter
from btreecache.backoff import Backoff
from btreecache.errors import ArchiveError
from btreecache.stepper import Stepper

log = logging.getLogger(__name__)

#: Another history's first group, or another writer: told apart by who finds what it left.
ATTEMPTS = 3


class Recorder(Stepper):
    """Writes histories to one database. Only one thread may call `step`; `start` makes that thread.

    group_age_s, group_revisions, group_bytes   a group is committed when it has any of these
    """

    def __init__(
        self,
        database: Any,
        backoff: Backoff,
        wall: Callable[[], float],
        *,
        group_age_s: float = 1.0,
        group_revisions: int = 1_000,
        group_bytes: int = 16 << 20,
    ) -> None:
        super().__init__("btreecache-archive")
        self._database = database
        self._backoff = backoff
        self._wall = wall
        self._age_s, self._revisions, self._bytes = group_age_s, group_revisions, group_bytes
        self._writers: list[HistoryWriter] = []
        self._changed = threading.Condition()
        self._flushing = False
        self._failures = 0
        self._manager = Transactions()
        self._connection: Any = None
        self.trouble: ArchiveError | None = None

    def add(self, writer: HistoryWriter) -> None:
        """Write this history too. Any thread."""
        self._writers = [*self._writers, writer]

    def wake(self) -> None:
        """Something came in. Any thread."""
        if any(self._is_full(writer) for writer in self._writers):
            with self._changed:
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Commit what waits now without waiting for a group to fill; whether that was done in time.
        Any thread but the recorder's. Raises ArchiveError if an attempt fails meanwhile."""
        with self._changed:
            failures = self._failures
            self._flushing = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: not self._flushing or self._failures > failures, timeout_s
            )
            if self._failures > failures and self.trouble is not None:
                raise self.trouble
            done, self._flushing = not self._flushing, False
            return done

    def step(self, timeout_s: float = 0.0) -> bool:
        """Commit a group if one is due, else wait for one. Whether anything was committed."""
        if self._backoff.remaining_s() > 0:
            self._stopping.wait(min(timeout_s, self._backoff.remaining_s()))
            return False
        with self._changed:
            if not self._is_due() and timeout_s > 0:
                self._changed.wait(timeout_s)
            if not self._is_due():
                return False
        return self._commit()

    def close(self) -> None:
        """Stop, then write what still waits. Idempotent. Never raises: `trouble` tells. Takes no
        longer than a server may take for an answer, twice."""
        super().close()
        while any(len(writer.pending) for writer in self._writers):
            if not self._commit():
                break
        self._abandon()

    def _is_due(self) -> bool:
        if self._flushing:
            return True
        now_s = self._wall()
        for writer in self._writers:
            since_s = writer.pending.since_s
            if self._is_full(writer) or (since_s is not None and now_s - since_s >= self._age_s):
                return True
        return False

    def _is_full(self, writer: HistoryWriter) -> bool:
        return len(writer.pending) >= self._revisions or writer.pending.held_bytes >= self._bytes

    def _commit(self) -> bool:
        """One transaction with a group of each history that has one. Whether any was committed."""
        writers = self._writers
        changed, error = self._attempt(writers)
        if isinstance(error, ArchiveError) and len(writers) > 1:
            # One history that may not be written doesn't hold up the others.
            for writer in writers:
                changed |= self._attempt([writer])[0]
        if error is not None:
            self._fail(error)
            return changed
        with self._changed:
            self.trouble = None
            if all(writer.pending.idle for writer in writers):
                self._flushing = False
            self._changed.notify_all()
        self._connection.cacheGC()
        return changed

    def _attempt(self, writers: list[HistoryWriter]) -> tuple[bool, Exception | None]:
        """Whether anything of these was committed, and why it wasn't."""
        for attempt in range(ATTEMPTS):
            try:
                changed = self._transaction(writers)
                break
            except Exception as error:  # A driver may raise anything of its own.
                self._abandon()
                for writer in writers:
                    writer.give_up()
                if not isinstance(error, ConflictError) or attempt == ATTEMPTS - 1:
                    return False, error
        for writer in writers:
            writer.keep()
        return changed, None

    def _transaction(self, writers: list[HistoryWriter]) -> bool:
        histories = self._begin()
        for writer in writers:
            writer.attach(self._connection)
        changed = [w.prepare(histories, self._revisions, self._bytes) for w in writers]
        if any(changed):
            self._manager.commit()
        else:
            self._manager.abort()
        return any(changed)

    def _begin(self) -> _Histories:
        """The histories as they are now, in a transaction of their own."""
        if self._connection is None:
            self._connection = self._database.open(self._manager)
        self._manager.begin()
        root = self._connection.root().get(NAME)
        assert isinstance(root, Root), "the archive was made when it was opened"
        return _Histories(root, root.state[1])

    def _fail(self, error: Exception) -> None:
        found = trouble("the archive can't be written", error)
        log.warning("archive error=%s", found)
        self._backoff.fail()
        with self._changed:
            self.trouble = found
            self._flushing = False
            self._failures += 1
            self._changed.notify_all()

    def _abandon(self) -> None:
        """Let go of the connection and of what it was doing; the next one begins anew."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            self._manager.abort()
            # A commit that failed half-way may leave records in its cache under numbers that a
            # server gives to others after a restart.
            connection._resetCache()
            connection.close()
        except Exception as error:  # Whatever state the server's end left it in, it is gone.
            log.info("archive error=%s", error)
            self._manager = Transactions()


class _Histories(dict[bytes, Any]):
    """The histories of an archive; one that is put is written with the transaction."""

    def __init__(self, root: Root, histories: dict[bytes, Any]) -> None:
        super().__init__(histories)
        self._root = root

    def __setitem__(self, prefix: bytes, history: Any) -> None:
        super().__setitem__(prefix, history)
        self._root.state = (self._root.state[0], dict(self))
