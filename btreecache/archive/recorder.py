"""Recorder: the thread that commits, in groups, what the caches of one process have told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import transaction
from ZODB.POSException import POSError

from btreecache.archive.records import NAME, Root
from btreecache.archive.writer import HistoryWriter
from btreecache.backoff import Backoff
from btreecache.errors import ArchiveError
from btreecache.stepper import Stepper

log = logging.getLogger(__name__)


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
        self._manager = transaction.TransactionManager()
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
        Any thread but the recorder's. Raises ArchiveError if it can't be written."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            done = self._changed.wait_for(self._is_idle_or_troubled, timeout_s)
        if self.trouble is not None:
            raise self.trouble
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
        """Stop, then write what still waits. Idempotent. Never raises: `trouble` tells."""
        super().close()
        while any(len(writer.pending) for writer in self._writers):
            if not self._commit():
                break
        connection, self._connection = self._connection, None
        if connection is not None:
            self._manager.abort()
            connection.close()

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

    def _is_idle_or_troubled(self) -> bool:
        return self.trouble is not None or not self._flushing

    def _commit(self) -> bool:
        """One transaction with a group of each history that has one. Whether it was committed."""
        writers = self._writers
        try:
            histories = self._histories()
            changed = [w.prepare(histories, self._revisions, self._bytes) for w in writers]
            if any(changed):
                self._manager.commit()
        except (ArchiveError, POSError, OSError, transaction.interfaces.TransactionError) as error:
            self._fail(writers, error)
            return False
        for writer in writers:
            writer.keep()
        with self._changed:
            self.trouble = None
            if all(writer.pending.idle for writer in writers):
                self._flushing = False
            self._changed.notify_all()
        assert self._connection is not None
        self._connection.cacheGC()
        return any(changed)

    def _histories(self) -> Any:
        """The histories as they are now, in a transaction of their own."""
        if self._connection is None:
            self._connection = self._database.open(self._manager)
        self._manager.begin()
        root = self._connection.root().get(NAME)
        assert isinstance(root, Root), "the archive was made when it was opened"
        histories = root.state[1]
        return _Histories(root, histories)

    def _fail(self, writers: list[HistoryWriter], error: Exception) -> None:
        self._manager.abort()
        for writer in writers:
            writer.give_up()
        log.warning("archive error=%s", error)
        self._backoff.fail()
        with self._changed:
            self.trouble = (
                error
                if isinstance(error, ArchiveError)
                else ArchiveError(f"the archive can't be written: {error}")
            )
            self._flushing = False
            self._changed.notify_all()


class _Histories(dict[bytes, Any]):
    """The histories of an archive; one that is put is written with the transaction."""

    def __init__(self, root: Root, histories: dict[bytes, Any]) -> None:
        super().__init__(histories)
        self._root = root

    def __setitem__(self, prefix: bytes, history: Any) -> None:
        super().__setitem__(prefix, history)
        self._root.state = (self._root.state[0], dict(self))
