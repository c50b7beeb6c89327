"""Watcher: one watch on the model, pulled.

It delivers whole revisions, in order, each once. A progress mark takes its place in the same order:
behind every event up to the revision that it names (etcd 15220 was a mark that overtook events).
There is no queue of events: a watcher is a position in the model's log.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from etcdsim.errors import ErrCompacted, ErrEmptyWatcherRange
from etcdsim.model import ALL, Event, Model

BATCH_REVISIONS = 1000  # etcd's watchBatchMaxRevs


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """What one poll gives: events, a progress mark, or the end of the watch.

    header_revision   with `progress`: everything up to it was delivered. With events it promises
                      nothing: to a watcher that was behind, etcd gives the revision of the store.
                      0 when the watch was cancelled for compaction.
    events            whole revisions, in order
    compact_revision  set: the position was compacted away, the watch is cancelled
    """

    header_revision: int
    events: tuple[Event, ...] = ()
    compact_revision: int = 0
    progress: bool = False
    canceled: bool = False


class Watcher:
    """A watch of [key, range_end) from `start_revision` on; 0 means from the next revision.

    As long as it is behind, a response holds up to `batch_revisions` whole revisions; once it has
    caught up, each response is one revision, however late it is polled. With `prev_kv` each event
    carries what it replaced. One thread.

    Raises ErrCompacted for a negative start (etcd >= 3.5), ErrEmptyWatcherRange for a range that
    can't hold a key. A start below the compact revision is answered by the first poll.
    """

    def __init__(
        self,
        model: Model,
        key: bytes,
        range_end: bytes,
        start_revision: int,
        prev_kv: bool = False,
        *,
        batch_revisions: int = BATCH_REVISIONS,
    ) -> None:
        if start_revision < 0:
            raise ErrCompacted
        self._key = key or ALL  # etcd: an empty key of a watch is "\0"
        if range_end and range_end != ALL and range_end <= self._key:
            raise ErrEmptyWatcherRange
        self._model, self._range_end, self._prev_kv = model, range_end, prev_kv
        self._next_revision = start_revision or model.revision + 1
        self._batch_revisions = batch_revisions
        self._behind = self._next_revision <= model.revision
        self._marks: deque[int] = deque()  # of the progress asked for, ascending
        self._open = True

    @property
    def is_open(self) -> bool:
        return self._open

    def poll(self) -> WatchResponse | None:
        """The next response, None if there is nothing new. O(changes passed over)."""
        if not self._open:
            return None
        if self._next_revision < self._model.compact_revision:
            self._open = False
            return WatchResponse(0, compact_revision=self._model.compact_revision, canceled=True)
        if not self._marks:
            return self._poll_to(self._model.revision)
        response = self._poll_to(self._marks[0])
        if response is None:
            response = WatchResponse(self._marks.popleft(), progress=True)
        return response

    def _poll_to(self, revision: int) -> WatchResponse | None:
        current = self._model.revision
        batch = self._batch_revisions if self._behind else 1
        events: list[Event] = []
        revisions = 0
        while revisions < batch and self._next_revision <= revision:
            found = self._model.events_at(
                self._next_revision, self._key, self._range_end, self._prev_kv
            )
            self._next_revision += 1
            if found:
                events += found
                revisions += 1
        header_revision = current if self._behind else self._next_revision - 1
        if self._next_revision > current:
            self._behind = False
        return WatchResponse(header_revision, tuple(events)) if events else None

    def request_progress(self) -> None:
        """Ask for a mark at the current revision; it comes behind the events up to there.

        Nothing comes of it while the start is still ahead, as in etcd.
        """
        revision = self._model.revision
        first_ahead = self._next_revision > revision + 1
        if self._open and not first_ahead and (not self._marks or self._marks[-1] != revision):
            self._marks.append(revision)

    def close(self) -> None:
        """End the watch; later polls give None. Idempotent."""
        self._open = False
