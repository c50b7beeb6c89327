"""Watcher: a cursor over the window.

It holds a position and nothing else: the window is immutable history, so a watcher needs no buffer,
and a slow one costs nobody anything. It falls to Compacted when a batch that it has yet to see was
evicted, or when history was cut by a resynchronisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from btreecache.errors import Compacted
from btreecache.event import Batch

if TYPE_CHECKING:
    from btreecache.cache import Cache, State


class Watcher:
    """Yields the batches of a cache that touch `prefix`, each revision whole (I5, I6).

    Used by one thread. Iterating blocks for the next batch and ends when the cache is closed.
    """

    def __init__(self, cache: Cache, after: int | None, prefix: bytes) -> None:
        state = cache.state
        window = state.readable()
        self._cache = cache
        self._prefix = prefix
        self._epoch = state.epoch
        self.position = window.current if after is None else after
        if self.position < window.watch_floor:
            raise Compacted(self.position, window.watch_floor)

    def receive(self, timeout_s: float | None = None) -> Batch | None:
        """The next batch with an event of the prefix, None on timeout or when the cache is closed.

        `timeout_s` 0 doesn't wait, None waits for ever. Raises Compacted: after it, list again and
        watch from there.
        """
        found: Batch | None = None

        def advanced(state: State) -> bool:
            nonlocal found
            found = self._advance(state)
            return found is not None

        self._cache.wait_until(advanced, timeout_s)
        return found

    def _advance(self, state: State) -> Batch | None:
        window = state.readable()
        if state.epoch != self._epoch:
            raise Compacted(self.position, window.oldest)
        while batch := window.batch_after(self.position):
            if state.suspect_after is not None and batch.revision > state.suspect_after:
                return None
            self.position = batch.revision
            if filtered := _only(batch, self._prefix):
                return filtered
        return None

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self.receive()
            if batch is not None:
                yield batch
            elif self._cache.closed:
                return


def _only(batch: Batch, prefix: bytes) -> Batch | None:
    """The part of the batch inside the prefix, None if there is none; often the batch itself."""
    events = tuple(event for event in batch.events if event.key.startswith(prefix))
    if len(events) < len(batch.events):
        batch = Batch(batch.revision, events, batch.synthetic)
    return batch if events else None
