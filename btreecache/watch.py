"""Watcher: a cursor over the window, within one scope.

It holds a position and a scope and nothing else: the window is immutable history, so a watcher
needs no buffer, and a slow one costs nobody anything. Only a batch of its own scope wakes it. It
falls to Compacted when a batch of its own scope that it has yet to see was evicted, or when
history was cut by a resynchronisation; what happens elsewhere can't throw it off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event as Signal
from time import monotonic
from typing import TYPE_CHECKING

from btreecache.errors import Compacted
from btreecache.event import Batch
from btreecache.scope import Scope
from btreecache.window import Window

if TYPE_CHECKING:
    from btreecache.cache import Cache


class Watcher:
    """Yields the batches of a cache that touch a prefix, or one key, each revision whole (I5, I6).

    Used by one thread. Iterating blocks for the next batch and ends when the cache is closed.

    position   everything up to it was handed out: a watch that starts after it misses nothing
    """

    __slots__ = ("_ahead", "_cache", "_epoch", "_scope", "position")

    def __init__(
        self, cache: Cache, after: int | None, prefix: bytes, *, exact: bool = False
    ) -> None:
        self._scope, state = cache.enter(prefix, exact=exact)
        window = state.readable()
        self._cache = cache
        self._epoch = state.epoch
        self.position = window.current if after is None else after
        if self.position < window.watch_floor:
            raise Compacted(self.position, window.watch_floor)
        self._ahead = True
        self._catch_up(window)

    def poll(self) -> Batch | None:
        """The next batch, what lies outside the scope left out; None if there is none yet.

        O(events), amortised: a batch from before anybody watched the scope is looked at once, later
        ones are found by it. Raises Compacted: after it, list again and watch from there.
        """
        state = self._cache.state
        window, suspect_after = state.readable(), state.suspect_after
        if state.epoch != self._epoch:
            raise Compacted(self.position, window.oldest)
        if self._ahead:
            self._catch_up(window)
        while batch := self._next(window):
            if suspect_after is not None and batch.revision > suspect_after:
                return None
            self.position = batch.revision
            if found := _only(batch, self._scope):
                return found
        newest = window.current if suspect_after is None else suspect_after
        self.position = max(self.position, min(newest, window.current))
        return None

    def _catch_up(self, window: Window) -> None:
        """Once the window has reached where it starts: that mustn't be inside a gap."""
        if window.current >= self.position:
            if window.in_gap(self.position):
                raise Compacted(self.position, window.oldest)
            self._ahead = False

    def _next(self, window: Window) -> Batch | None:
        """The next batch that may touch the scope."""
        scope, position = self._scope, self.position
        if position < scope.since:
            # Nobody noted the scope then. What is evicted of it since is in `scope.floor`.
            batch = window.batch_after(max(position, window.watch_floor))
            if scope.floor > position:
                raise Compacted(position, window.watch_floor)
            if batch is not None and batch.revision <= scope.since:
                return batch
        revision = scope.next_after(position)
        # After it, as the writer raises `floor` first: what it then trims can't be overlooked.
        if scope.floor > position:
            raise Compacted(position, window.watch_floor)
        if revision is None or revision > window.last_revision:
            return None
        return window.batch_at(revision)

    def receive(self, timeout_s: float | None = None) -> Batch | None:
        """The next batch, None on timeout or when the cache is closed. Raises as `poll`.

        `timeout_s` 0 doesn't wait, None waits for ever. Waits are in real time.
        """
        found = self.poll()
        if found is not None or timeout_s == 0:
            return found
        deadline = None if timeout_s is None else monotonic() + timeout_s
        signal = Signal()
        self.add_waiter(signal.set)
        try:
            while True:
                closed = self._cache.closed  # Before the look: what came before the end is seen.
                if (found := self.poll()) is not None or closed:
                    return found
                remaining = None if deadline is None else deadline - monotonic()
                if (remaining is not None and remaining <= 0) or not signal.wait(remaining):
                    return None
                signal.clear()
        finally:
            self.remove_waiter(signal.set)

    def add_waiter(self, waiter: Callable[[], object]) -> None:
        """Have `waiter` called, by the writer's thread, when `poll` may have more to say.

        It must be quick and must not raise: set an event, call `loop.call_soon_threadsafe`.
        """
        self._scope.waiters.add(waiter)

    def remove_waiter(self, waiter: Callable[[], object]) -> None:
        self._scope.waiters.discard(waiter)

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self.receive()) is not None:
            yield batch


def _only(batch: Batch, scope: Scope) -> Batch | None:
    """The part of the batch inside the scope, None if there is none; often the batch itself."""
    events = tuple(event for event in batch.events if event.key in scope)
    if len(events) < len(batch.events):
        batch = Batch(batch.revision, events, batch.synthetic)
    return batch if events else None
